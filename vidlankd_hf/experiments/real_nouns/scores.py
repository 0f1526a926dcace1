"""What a model knows about real nouns: a ridge probe across nouns, and masked words without any training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.probing import masked_scores, noun_states
from ...evaluation.significance import paired_test
from ...evaluation.zero_shot import ZERO_SHOT
from ...utils.extras import requires_extra
from .nouns import PROBED_SETS, read_items

FOLDS, REPEATS = 5, 5
PENALTIES = (10.0, 100.0, 1000.0, 10000.0)
SPATIAL_SETS = ("spatial_size", "spatial_height", "spatial_position")
ROUNDS = 2000


def score_model(model: Any, tokenizer: Any, benchmarks: Path, pictured: Iterable[str], masked: bool = True) -> dict:
    """Scores a model on all sets.

    Args:
        model: A student, or a teacher (`encode_text`).
        tokenizer: Its tokenizer.
        benchmarks: Folder of the benchmarks.
        pictured: Nouns with a picture.
        masked: Whether the model has a trained masked-language-model head.

    Returns:
        What [`score_states`] returns; with `masked`, also `{"masked": {set: {pictured noun: 0 or 1}}, "spatial": {set:
        accuracy}}`.
    """
    pictured = set(pictured)
    nouns = sorted({item["object"] for name in PROBED_SETS for item in scored_items(name, benchmarks, pictured)})
    states = dict(zip(nouns, noun_states(model, tokenizer, nouns)))
    result = score_states(states, benchmarks, pictured)
    if masked:
        result["masked"] = {
            name: _masked(name, [i for i in read_items(name, benchmarks) if i["object"] in pictured], model, tokenizer)
            for name in PROBED_SETS
        }
        result["spatial"] = {
            name: float(np.mean(list(_masked(name, ZERO_SHOT[name].items(benchmarks), model, tokenizer).values())))
            for name in SPATIAL_SETS
        }
    return result


def score_states(states: dict[str, np.ndarray], benchmarks: Path, pictured: set[str]) -> dict:
    """Probes the vectors of nouns.

    Args:
        states: `{noun: [H]}`; nouns without a vector are not scored.
        benchmarks: Folder of the benchmarks.
        pictured: Nouns with a picture.

    Returns:
        `{"probe": {set: {"pictured" | "not_pictured" | "joint": {noun: share of repeats that are right}}}, "colours":
        {pictured noun of CoDa: predicted distribution}}`. The probe of a group is fitted to nouns of that group.
    """
    probes, colours = {}, {}
    for name in PROBED_SETS:
        items = [item for item in scored_items(name, benchmarks, pictured) if item["object"] in states]
        vectors = np.array([states[item["object"]] for item in items])
        shown = np.array([item["object"] in pictured for item in items], dtype=bool)
        groups = {"pictured": shown, "not_pictured": ~shown, "joint": np.ones_like(shown)}
        if shown.all():
            groups = {"pictured": shown}
        probes[name] = {group: _probed(items, vectors, chosen) for group, chosen in groups.items()}
        if name == "coda":
            colours = _distributions(items, vectors, shown)
    return {"probe": probes, "colours": colours}


def scored_items(name: str, benchmarks: Path, pictured: set[str]) -> list[dict]:
    """The items of a set that are scored: all of Memory Colors and CoDa, the pictured ones of the larger sets."""
    items = read_items(name, benchmarks)
    return items if name in ("memory_colors", "coda") else [item for item in items if item["object"] in pictured]


def targets_of(items: list[dict], classes: int) -> np.ndarray:
    """What the probe learns, `[N, classes]`: people's distribution of answers, or else the label."""
    labels = np.eye(classes)[[item["label"] for item in items]]
    return np.array([item.get("distribution", label) for item, label in zip(items, labels)])


def is_right(item: dict, predicted: int) -> bool:
    """Whether the predicted class is the most frequent answer."""
    if "distribution" in item:
        return item["distribution"][predicted] == max(item["distribution"])
    return predicted == item["label"]


def cross_predicted(states: np.ndarray, targets: np.ndarray, repeat: int) -> np.ndarray:
    """Predicts the targets of each noun with a ridge regression that was fitted to other nouns.

    The states are standardized, and the penalty is the one of `PENALTIES` with the smallest leave-one-out error on the
    nouns that the regression is fitted to.

    Args:
        states: `[N, H]`.
        targets: `[N, C]`.
        repeat: Seed of the division into folds.

    Returns:
        `[N, C]`.
    """
    with requires_extra("downstream"):
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import KFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    probe = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    folds = KFold(min(FOLDS, len(states)), shuffle=True, random_state=repeat)
    return cross_val_predict(probe, states, targets, cv=folds)


def _probed(items: list[dict], states: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """For each chosen noun the share of repeats in which the probe is right."""
    kept = [item for item, keep in zip(items, chosen) if keep]
    if len(kept) < 2:
        return {}
    targets = targets_of(items, 1 + max(item["label"] for item in items))[chosen]
    right = np.zeros(len(kept))
    for repeat in range(REPEATS):
        predicted = cross_predicted(states[chosen], targets, repeat).argmax(-1)
        right += [is_right(item, label) for item, label in zip(kept, predicted)]
    return {item["object"]: round(float(share), 2) for item, share in zip(kept, right / REPEATS)}


def _distributions(items: list[dict], states: np.ndarray, chosen: np.ndarray) -> dict[str, list[float]]:
    """For each chosen noun of CoDa the predicted distribution over colours, mean over repeats."""
    kept = [item for item, keep in zip(items, chosen) if keep]
    if len(kept) < 2:
        return {}
    targets = targets_of(items, len(items[0]["distribution"]))[chosen]
    predicted = np.mean([cross_predicted(states[chosen], targets, repeat) for repeat in range(REPEATS)], 0).clip(0)
    predicted /= predicted.sum(-1, keepdims=True)
    return {item["object"]: [round(float(v), 3) for v in row] for item, row in zip(kept, predicted)}


def _masked(name: str, items: list[dict], model: Any, tokenizer: Any) -> dict[str, int]:
    """For each item whether the masked word is right; the key is its object, with numbers if it is a comparison."""
    task = ZERO_SHOT[name]
    predicted = masked_scores(model, tokenizer, items, task.candidates, task.templates).mean(0).argmax(-1)
    compared = "other" in items[0]
    return {
        f"{item['object']} {number}" if compared else item["object"]: int(is_right(item, int(label)))
        for number, (item, label) in enumerate(zip(items, predicted))
    }


def compare(first: list[dict[str, float]], second: list[dict[str, float]]) -> dict[str, Any]:
    """Compares two models' scores of the same nouns.

    Args:
        first: `{noun: score}` of each seed of a model.
        second: The same of the other model.

    Returns:
        `nouns`, `difference` (first minus second, mean over seeds), its 95 % `interval` over nouns (bootstrap) and `p`
        (paired randomization test, all seeds pooled).

    Raises:
        ValueError: There is no noun, or the models were not scored on the same nouns.
    """
    nouns = sorted(first[0])
    if not nouns or any(sorted(scores) != nouns for scores in (*first, *second)):
        raise ValueError("the models were not scored on the same nouns: run them on the same pictures")
    runs = min(len(first), len(second))
    a, b = (np.array([[scores[n] for n in nouns] for scores in model[:runs]]) for model in (first, second))
    differences = (a - b).mean(0)
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(nouns), (ROUNDS, len(nouns)))].mean(-1)
    p = paired_test("accuracy", [{"scores": row} for row in a], [{"scores": row} for row in b])
    return {
        "nouns": len(nouns),
        "difference": float(differences.mean()),
        "interval": [float(value) for value in np.quantile(means, (0.025, 0.975))],
        "p": p,
    }
