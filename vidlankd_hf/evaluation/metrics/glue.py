"""Metrics of GLUE (Wang et al., ICLR 2019), on a scale from 0 to 1."""

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


class Glue(evaluate.Metric):
    """Scores of one GLUE task, named by the configuration.

    - `cola`: `matthews_correlation`.
    - `stsb`: `pearson` and `spearmanr`, NaN if predictions or references are constant.
    - `mrpc`, `qqp`: `accuracy` and `f1` of class 1.
    - `ax`, the diagnostics: `matthews_correlation`, overall and by category. References are `{"label", "categories"}`
      with the categories separated by `;`.
    - All others: `accuracy`.
    """

    def _info(self):
        number = datasets.Value("float64" if self.config_name == "stsb" else "int64")
        references = {"label": number, "categories": datasets.Value("string")} if self.config_name == "ax" else number
        return evaluate.MetricInfo(
            description="GLUE",
            citation="Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform, ICLR 2019",
            features=datasets.Features({"predictions": number, "references": references}),
        )

    def _compute(self, predictions, references):
        if not references:
            raise ValueError("there is nothing to score: give at least one prediction and its reference")
        if self.config_name == "ax":
            return _by_category(predictions, references)
        if self.config_name == "cola":
            return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}
        if self.config_name == "stsb":
            if len(set(predictions)) == 1 or len(set(references)) == 1:  # scipy gives NaN, with a warning
                return {"pearson": float("nan"), "spearmanr": float("nan")}
            correlations = pearsonr(predictions, references), spearmanr(predictions, references)
            return {name: float(c.statistic) for name, c in zip(("pearson", "spearmanr"), correlations)}
        scores = {"accuracy": float(accuracy_score(references, predictions))}
        if self.config_name in ("mrpc", "qqp"):
            scores["f1"] = float(f1_score(references, predictions, zero_division=0))
        return scores


def _by_category(predictions, references) -> dict[str, float]:
    predictions, labels = np.array(predictions), np.array([reference["label"] for reference in references])
    categories = [set(filter(None, reference["categories"].split(";"))) for reference in references]
    scores = {"matthews_correlation": _matthews(labels, predictions)}
    for category in sorted(set.union(*categories)):
        chosen = np.array([category in of_row for of_row in categories])
        scores[category] = _matthews(labels[chosen], predictions[chosen])
    return scores


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    """0 for constant labels or predictions, which small categories may have and scikit-learn may warn about."""
    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return float(matthews_corrcoef(labels, predictions))
