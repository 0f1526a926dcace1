"""Metric of TRACIE (Zhou et al., NAACL 2021)."""

from collections import defaultdict

import datasets
import evaluate


class Tracie(evaluate.Metric):
    """Accuracy over all hypotheses, over starts and over ends, and the share of stories without a mistake.

    References are `{"label", "event", "story"}`. A hypothesis is about a start if its event contains "starts before"
    or "starts after", otherwise about an end.
    """

    def _info(self):
        label, text = datasets.Value("int64"), datasets.Value("string")
        return evaluate.MetricInfo(
            description="TRACIE",
            citation="Zhou et al., Temporal Reasoning on Implicit Events from Distant Supervision, NAACL 2021",
            features=datasets.Features(
                {"predictions": label, "references": {"label": label, "event": text, "story": text}}
            ),
        )

    def _compute(self, predictions, references):
        if not references:
            raise ValueError("there is nothing to score: give at least one prediction and its reference")
        by_name, by_story = defaultdict(list), defaultdict(list)
        for prediction, reference in zip(predictions, references):
            correct = prediction == reference["label"]
            starts = any(words in reference["event"] for words in ("starts before", "starts after"))
            for name in ("accuracy", "start_accuracy" if starts else "end_accuracy"):
                by_name[name].append(correct)
            by_story[reference["story"]].append(correct)
        scores = {name: sum(values) / len(values) for name, values in by_name.items()}
        return {**scores, "story_exact_match": sum(map(all, by_story.values())) / len(by_story)}
