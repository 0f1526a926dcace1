"""A paired test between two models that were scored on the same examples."""

import numpy as np

ROUNDS = 2000
CHUNK = 100


def paired_test(metric: str, first: list[dict], second: list[dict], seed: int = 0) -> float:
    """Returns the two-sided p-value of the difference between two models' mean scores, by approximate randomization.

    If the models do not differ, it does not matter which of them an example's predictions came from. The test swaps
    them at random, for all seeds of an example together, and p is the share of swaps with a difference at least as
    large as the observed one (Noreen 1989). It works for any metric. The p-value covers the choice of examples, not
    the choice of seeds: the spread over seeds shows that.

    The test is `scipy.stats.permutation_test(permutation_type="samples")` of the absolute difference, but three times
    as fast, because an example has only two arrangements, and with random numbers that do not depend on scipy.

    Args:
        metric: Key of `STATISTICS`; ignored if the examples have scores.
        first: `examples` of one model's runs in the order of their seeds, each `{"scores"}` or
            `{"predictions", "labels"}`.
        second: The same of the other model. Extra seeds of either model are not used.
        seed: Seed of the swaps.

    Raises:
        ValueError: The models were not scored on the same examples.
    """
    runs = min(len(first), len(second))
    has_scores = "scores" in first[0]
    if not has_scores and any(run["labels"] != first[0]["labels"] for run in (*first[:runs], *second[:runs])):
        raise ValueError("the two models were not scored on the same examples: score both on the same data")
    key = "scores" if has_scores else "predictions"
    a, b = (np.array([run[key] for run in model[:runs]], dtype=float) for model in (first, second))  # [runs, N]
    if a.shape != b.shape:
        raise ValueError(
            f"the two models were scored on {a.shape[1]} and {b.shape[1]} examples: score both on the same data"
        )

    def mean_score(values: np.ndarray) -> np.ndarray:
        """`[..., runs, N]` -> `[...]`; an undefined score (constant predictions) counts as 0."""
        scores = values.mean(-1) if has_scores else STATISTICS[metric](values, np.array(first[0]["labels"]))
        return np.nan_to_num(scores).mean(-1)

    observed = abs(mean_score(a) - mean_score(b))
    generator, at_least = np.random.default_rng(seed), 0
    for _ in range(ROUNDS // CHUNK):
        swapped = generator.random((CHUNK, 1, a.shape[1])) < 0.5
        differences = mean_score(np.where(swapped, b, a)) - mean_score(np.where(swapped, a, b))
        at_least += int((abs(differences) >= observed - 1e-12).sum())
    return (at_least + 1) / (ROUNDS + 1)


# Metrics as in scikit-learn and scipy, but for predictions `[..., N]` and labels `[N]`: no loop over swaps is needed.


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of correct predictions."""
    return (predictions == labels).mean(-1)


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Matthews correlation of any number of classes (Gorodkin's R_K); 0 if predictions or labels are constant."""
    size = labels.shape[-1]
    correct = (predictions == labels).sum(-1).astype(float)
    cross = predicted_squares = true_squares = np.zeros(())
    for value in np.union1d(predictions, labels):
        predicted, true = (predictions == value).sum(-1).astype(float), float((labels == value).sum())
        cross = cross + predicted * true
        predicted_squares, true_squares = predicted_squares + predicted**2, true_squares + true**2
    spread = (size**2 - predicted_squares) * (size**2 - true_squares)
    return np.where(spread > 0, (correct * size - cross) / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def pearson(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson correlation; NaN if predictions or labels are constant."""
    constant = (predictions == predictions[..., :1]).all(-1) | (labels == labels[:1]).all(-1)
    x, y = (values - values.mean(-1, keepdims=True) for values in (predictions, labels))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.where(constant, np.nan, value)


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of the F1 of the classes that occur in the labels; a class that is never predicted has an F1 of 0."""
    classes = np.unique(labels)
    total = np.zeros(predictions.shape[:-1])
    for value in classes:
        predicted, true = predictions == value, labels == value
        total = total + 2 * (predicted & true).sum(-1) / (predicted.sum(-1) + true.sum(-1))
    return total / len(classes)


def spearmanr(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Spearman correlation; NaN if predictions or labels are constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(predictions, axis=-1), rankdata(labels))


STATISTICS = {
    "accuracy": accuracy, "macro_f1": macro_f1, "matthews_correlation": matthews_correlation, "pearson": pearson,
    "spearmanr": spearmanr,
}  # fmt: skip
