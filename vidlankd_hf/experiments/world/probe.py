"""What a text encoder knows about visual attributes, read from its frozen states by a linear probe."""

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ...evaluation.probing import cross_validated, noun_states
from ...utils.extras import requires_extra
from ...utils.json_files import read_json
from .render import ATTRIBUTES


def probe_model(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, world_dir: str | Path, folds: int = 4, seed: int = 0
) -> list[dict]:
    """Probes a text encoder for the colour, shape and motion of the world's nouns.

    A noun's state is the frozen encoder's last hidden state, averaged over the noun's word pieces and over eight
    neutral sentences that are neither captions nor text of the world. A logistic regression on standardized states is
    fitted to three quarters of the nouns and scored on the others. No probe is scored on nouns it was fitted to.

    Args:
        model: A model with `encode_text(input_ids, attention_mask) -> [B, L, H]` (the teacher), or a BERT-like model
            of `transformers`, whose `base_model` is used.
        tokenizer: The model's tokenizer, a fast one.
        world_dir: A folder with `nouns.json`.
        folds: Number of folds of the cross-validation over nouns.
        seed: Seed of the folds.

    Returns:
        For each attribute `{attribute, accuracy, chance, num_nouns, low, high}`; low and high are the 95 % Wilson
        interval of the accuracy.

    Raises:
        FileNotFoundError: There is no `nouns.json` in `world_dir`.
        ImportError: The extra `world` is not installed.
        ValueError: The tokenizer is not a fast one or has no pieces for a noun.
    """
    path = Path(world_dir) / "nouns.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: make the world with `vidlankd make-world`")
    nouns = read_json(path, list, "make the world again")
    states = noun_states(model, tokenizer, [entry["noun"] for entry in nouns])
    return [
        {"attribute": attribute, **probe_states(states, [entry[attribute] for entry in nouns], folds, seed)}
        for attribute in ATTRIBUTES
    ]


def probe_states(states: np.ndarray, values: list[str], folds: int = 4, seed: int = 0) -> dict:
    """Scores a linear probe from states to values, cross-validated.

    Args:
        states: `[N, H]`.
        values: The N values of an attribute.
        folds: Number of folds.
        seed: Seed of the folds.

    Returns:
        One entry of [`probe_model`], without `attribute`.
    """
    with requires_extra("world"):
        from scipy.stats import binomtest
        from sklearn.model_selection import StratifiedKFold
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    correct = int((cross_validated(states, values, splits) == np.array(values)).sum())
    interval = binomtest(correct, len(values)).proportion_ci(method="wilson")
    return {
        "accuracy": correct / len(values),
        "chance": 1 / len(set(values)),
        "num_nouns": len(values),
        "low": float(interval.low),
        "high": float(interval.high),
    }
