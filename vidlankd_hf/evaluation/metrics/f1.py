"""F1 of classes, averaged over the classes."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score


class F1(evaluate.Metric):
    """`macro_f1`, the mean of the classes' F1, and `accuracy`, from 0 to 1.

    The classes are those that occur in the references. A class that is never predicted has an F1 of 0.
    """

    def _info(self):
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="F1 of classes",
            citation="",
            features=datasets.Features({"predictions": label, "references": label}),
        )

    def _compute(self, predictions, references):
        if not references:
            raise ValueError("there is nothing to score: give at least one prediction and its reference")
        classes = sorted(set(references))
        macro = f1_score(references, predictions, labels=classes, average="macro", zero_division=0)
        return {"macro_f1": float(macro), "accuracy": float(accuracy_score(references, predictions))}
