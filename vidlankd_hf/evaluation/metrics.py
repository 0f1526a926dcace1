"""Metrics as `evaluate.Metric` modules that need no Hub: GLUE, its diagnostics, accuracy, TRACIE, the grounded world.

Scores are to 1, as the official scorers print them. The statistics below take predictions `[..., N]` and labels `[N]`
and work along the last axis, so that a resampling test needs no loop.
"""

from collections import defaultdict

import datasets
import evaluate
import numpy as np
from scipy.stats import rankdata

GLUE_CITATION = "Wang et al., GLUE, ICLR 2019"


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (np.asarray(predictions) == labels).mean(-1)


def f1_of_positives(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """F1 of class 1; 0 where nothing is, or should be, positive, as in scikit-learn."""
    predicted, true = np.asarray(predictions) == 1, np.asarray(labels) == 1
    both = 2 * (predicted & true).sum(-1)
    return both / np.maximum(predicted.sum(-1) + true.sum(-1), 1)


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Matthews' correlation of any number of classes (Gorodkin's R_K); 0 where predictions or labels are constant."""
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    size = labels.shape[-1]
    right = (predictions == labels).sum(-1).astype(float)
    cross = predicted_squares = 0.0
    true_squares = 0.0
    for value in np.union1d(predictions, labels):
        predicted, true = (predictions == value).sum(-1).astype(float), float((labels == value).sum())
        cross = cross + predicted * true
        predicted_squares = predicted_squares + predicted**2
        true_squares += true**2
    spread = (size**2 - predicted_squares) * (size**2 - true_squares)
    return np.where(spread > 0, (right * size - cross) / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def pearson(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson's correlation; NaN where one side is constant, as in scipy."""
    x = np.asarray(predictions, dtype=float)
    y = np.asarray(labels, dtype=float)
    constant = (x == x[..., :1]).all(-1) | (y == y[..., :1]).all(-1)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.where(constant, np.nan, value)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks, ties sharing theirs."""
    return pearson(rankdata(predictions, axis=-1), rankdata(labels, axis=-1))


def _info(description: str, predictions, references, citation: str = "") -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description="",
        features=datasets.Features({"predictions": predictions, "references": references}),
    )


def _same_number(predictions, references) -> None:
    if len(predictions) != len(references) or not len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: give one each, and some")


class GlueMetric(evaluate.Metric):
    """GLUE's scores: `GlueMetric("cola").compute(predictions=..., references=...)`.

    `matthews_correlation` for cola; `pearson` and `spearmanr` for stsb; `accuracy` and `f1` for mrpc and qqp; else
    `accuracy`.
    """

    def _info(self):
        kind = "float64" if self.config_name == "stsb" else "int64"
        return _info("GLUE", datasets.Value(kind), datasets.Value(kind), GLUE_CITATION)

    def _compute(self, predictions, references):
        _same_number(predictions, references)
        predictions, references = np.asarray(predictions), np.asarray(references)
        if self.config_name == "cola":
            return {"matthews_correlation": float(matthews_correlation(predictions, references))}
        if self.config_name == "stsb":
            values = pearson(predictions, references), spearman(predictions, references)
            return {"pearson": float(values[0]), "spearmanr": float(values[1])}
        scores = {"accuracy": float(accuracy(predictions, references))}
        if self.config_name in ("mrpc", "qqp"):
            scores["f1"] = float(f1_of_positives(predictions, references))
        return scores


class AccuracyMetric(evaluate.Metric):
    """The share that is right."""

    def _info(self):
        return _info("accuracy", datasets.Value("int64"), datasets.Value("int64"))

    def _compute(self, predictions, references):
        _same_number(predictions, references)
        return {"accuracy": float(accuracy(np.asarray(predictions), np.asarray(references)))}


class GroupedAccuracyMetric(evaluate.Metric):
    """Accuracy over all, and of every group: references are `{"label", "group"}`."""

    def _info(self):
        reference = {"label": datasets.Value("int64"), "group": datasets.Value("string")}
        return _info("accuracy by group", datasets.Value("int64"), reference)

    def _compute(self, predictions, references):
        _same_number(predictions, references)
        groups = defaultdict(list)
        for prediction, reference in zip(predictions, references):
            groups[reference["group"]].append(prediction == reference["label"])
        right = [value for values in groups.values() for value in values]
        return {"accuracy": float(np.mean(right)), **{name: float(np.mean(v)) for name, v in sorted(groups.items())}}


class TracieMetric(evaluate.Metric):
    """TRACIE's scores: accuracy over all, over starts, over ends, and the share of stories without a mistake.

    References are `{"label", "event", "story"}`. A hypothesis is about a start if it holds "starts before" or "starts
    after", else about an end.
    """

    def _info(self):
        text = datasets.Value("string")
        reference = {"label": datasets.Value("int64"), "event": text, "story": text}
        return _info("TRACIE", datasets.Value("int64"), reference, "Zhou et al., NAACL 2021")

    def _compute(self, predictions, references):
        _same_number(predictions, references)
        by_time, by_story = defaultdict(list), defaultdict(list)
        for prediction, reference in zip(predictions, references):
            right = prediction == reference["label"]
            starts = any(words in reference["event"] for words in ("starts before", "starts after"))
            by_time["start_accuracy" if starts else "end_accuracy"].append(right)
            by_story[reference["story"]].append(right)
        every = [right for values in by_time.values() for right in values]
        scores = {"accuracy": float(np.mean(every))}
        scores |= {name: float(np.mean(by_time[name])) for name in ("start_accuracy", "end_accuracy") if by_time[name]}
        return {**scores, "story_exact_match": float(np.mean([all(values) for values in by_story.values()]))}


class DiagnosticsMetric(evaluate.Metric):
    """Matthews' correlation over GLUE's diagnostics and of every category (`Logic`, `Knowledge: World knowledge`).

    References are `{"label", "categories"}`: the categories of a row, separated by `;`.
    """

    def _info(self):
        reference = {"label": datasets.Value("int64"), "categories": datasets.Value("string")}
        return _info("GLUE diagnostics", datasets.Value("int64"), reference, GLUE_CITATION)

    def _compute(self, predictions, references):
        _same_number(predictions, references)
        rows = defaultdict(list)
        for i, reference in enumerate(references):
            for category in filter(None, reference["categories"].split(";")):
                rows[category].append(i)
        predictions = np.asarray(predictions)
        labels = np.array([reference["label"] for reference in references])
        scores = {"matthews_correlation": float(matthews_correlation(predictions, labels))}
        for category, members in sorted(rows.items()):
            scores[category] = float(matthews_correlation(predictions[members], labels[members]))
        return scores
