"""What a text encoder knows about how things look, read from its frozen states by a linear probe."""

import json
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedTokenizerBase

from ...evaluation.probing import noun_states
from .render import ATTRIBUTES

BATCH_SIZE = 256


def probe_model(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    world_dir: str | Path,
    folds: int = 4,
    seed: int = 0,
) -> list[dict]:
    """Probes a text encoder for the colour, shape and motion of the world's nouns.

    A noun's state is the encoder's last hidden state, frozen, over its word pieces and over eight neutral sentences
    that are neither captions nor text of the world. A logistic regression on standardised states is fitted to three
    quarters of the nouns and scored on the others, so every noun is scored by a probe that never saw it.

    Args:
        model: has ``encode_text(input_ids, attention_mask) -> [B, L, H]`` (the teacher), or is a BERT-like model of
            ``transformers``, whose ``base_model`` is taken.
        tokenizer: the model's, a fast one.
        world_dir: a folder with ``nouns.json``.
        folds: of the cross-validation over nouns.
        seed: of the folds.

    Returns:
        For each attribute ``{attribute, accuracy, chance, num_nouns, low, high}``: low and high are the 95 % Wilson
        interval of the accuracy.

    Raises:
        FileNotFoundError: no ``nouns.json`` in ``world_dir``.
        ValueError: the tokenizer is not a fast one or has no pieces for a noun.
    """
    path = Path(world_dir) / "nouns.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: make the world with examples/make_world.py.")
    nouns = json.loads(path.read_text(encoding="utf-8"))
    states = noun_states(model, tokenizer, [entry["noun"] for entry in nouns])
    return [
        {"attribute": attribute, **probe_states(states, [entry[attribute] for entry in nouns], folds, seed)}
        for attribute in ATTRIBUTES
    ]


def probe_states(states: np.ndarray, values: list[str], folds: int = 4, seed: int = 0) -> dict:
    """Cross-validated accuracy of a linear probe from ``states`` [N, H] to the N ``values``, as in
    :func:`probe_model`."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    correct = int((cross_val_predict(probe, states, values, cv=splits) == np.array(values)).sum())
    interval = binomtest(correct, len(values)).proportion_ci(method="wilson")
    return {
        "accuracy": correct / len(values),
        "chance": 1 / len(set(values)),
        "num_nouns": len(values),
        "low": float(interval.low),
        "high": float(interval.high),
    }
