"""A paired test between two models that were scored on the same examples."""

import numpy as np

from .metrics import accuracy, matthews_correlation, pearson

STATISTICS = {"accuracy": accuracy, "matthews_correlation": matthews_correlation, "pearson": pearson}
ROUNDS = 2000
CHUNK = 100


def paired_test(metric: str, first: list[dict], second: list[dict], seed: int = 0) -> float:
    """Two-sided p of the difference of two models' mean scores over their seeds, by approximate randomisation.

    Under the hypothesis that both are alike, it does not matter which model an example's predictions came from: they
    are exchanged at random, an example's in all seeds together, and the share of exchanges that differ at least as
    much as what was seen is p (Noreen 1989). It holds for any metric. It says what other examples would give with
    these runs, not what other seeds would give; that the spread shows.

    Args:
        metric: Name of the main score: of `STATISTICS`, or any other where examples have scores of their own.
        first: `examples` of one model's runs, in the order of their seeds.
        second: Of the other's; as many of both are compared.
        seed: Of the exchanges.

    Raises:
        ValueError: They were not scored on the same examples.
    """
    runs = min(len(first), len(second))
    if "scores" in first[0]:
        labels, key = None, "scores"
    else:
        labels, key = np.array(first[0]["labels"]), "predictions"
        if any(run["labels"] != first[0]["labels"] for run in (*first[:runs], *second[:runs])):
            raise ValueError("the two models were not scored on the same examples: score both on the same data")
    a = np.array([run[key] for run in first[:runs]], dtype=float)
    b = np.array([run[key] for run in second[:runs]], dtype=float)
    if a.shape != b.shape:
        raise ValueError(
            f"the two models were scored on {a.shape[1]} and {b.shape[1]} examples: score both on the same"
        )

    def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of predictions `[..., runs, N]`; where a score is undefined (constant predictions) it counts as 0."""
        means = [
            np.nan_to_num(values.mean(-1) if labels is None else STATISTICS[metric](values, labels)).mean(-1)
            for values in (x, y)
        ]
        return means[0] - means[1]

    seen = abs(float(difference(a, b)))
    generator, at_least = np.random.default_rng(seed), 0
    for _ in range(ROUNDS // CHUNK):
        exchanged = generator.random((CHUNK, 1, a.shape[1])) < 0.5
        x, y = np.where(exchanged, b, a), np.where(exchanged, a, b)
        at_least += int((abs(difference(x, y)) >= seen - 1e-12).sum())
    return (at_least + 1) / (ROUNDS + 1)
