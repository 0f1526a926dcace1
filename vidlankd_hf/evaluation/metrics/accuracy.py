"""Accuracy over all examples and, on request, by group."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score


class Accuracy(evaluate.Metric):
    """Share of correct predictions, from 0 to 1.

    With the configuration `by_group`, references are `{"label", "group"}`, and the accuracy of each group is added
    under the group's name.
    """

    def _info(self):
        label = datasets.Value("int64")
        grouped = {"label": label, "group": datasets.Value("string")}
        references = grouped if self.config_name == "by_group" else label
        return evaluate.MetricInfo(
            description="Accuracy",
            citation="",
            features=datasets.Features({"predictions": label, "references": references}),
        )

    def _compute(self, predictions, references):
        if not references:
            raise ValueError("there is nothing to score: give at least one prediction and its reference")
        if self.config_name != "by_group":
            return {"accuracy": float(accuracy_score(references, predictions))}
        correct = [prediction == reference["label"] for prediction, reference in zip(predictions, references)]
        groups = [reference["group"] for reference in references]
        scores = {"accuracy": sum(correct) / len(correct)}
        for group in sorted(set(groups)):
            of_group = [c for c, other in zip(correct, groups) if other == group]
            scores[group] = sum(of_group) / len(of_group)
        return scores
