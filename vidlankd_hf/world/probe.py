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

from .language import PROBE_TEMPLATES
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


@torch.no_grad()
def noun_states(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, nouns: list[str]) -> np.ndarray:
    """Each noun's mean state ``[N, H]`` float32 over its word pieces and the neutral sentences; see
    :func:`probe_model`."""
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} is not a fast tokenizer, which tells the pieces of a word.")
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    sentences = [
        (template.format(noun=noun), template.index("{noun}"), noun) for noun in nouns for template in PROBE_TEMPLATES
    ]
    states = []
    for first in range(0, len(sentences), BATCH_SIZE):
        texts, starts, words = zip(*sentences[first : first + BATCH_SIZE])
        batch = tokenizer(list(texts), padding=True, return_offsets_mapping=True, return_tensors="pt")
        begins, ends = batch.pop("offset_mapping").unbind(-1)
        starts = torch.tensor(starts)[:, None]
        stops = starts + torch.tensor([len(word) for word in words])[:, None]
        of_noun = (begins < stops) & (ends > starts) & (ends > begins)  # some count the space before a word in
        unknown = ~of_noun.any(1) | (of_noun & (batch["input_ids"] == tokenizer.unk_token_id)).any(1)
        if unknown.any():
            raise ValueError(
                f"The tokenizer has no pieces for the noun {words[int(unknown.nonzero()[0])]!r}. Give the one that "
                "the model was trained with."
            )
        hidden = _encode(model, batch["input_ids"].to(device), batch["attention_mask"].to(device)).float().cpu()
        share = of_noun.float() / of_noun.sum(1, keepdim=True)
        states.append((hidden * share[..., None]).sum(1))
    model.train(was_training)
    return torch.cat(states).unflatten(0, (len(nouns), len(PROBE_TEMPLATES))).mean(1).numpy()


def _encode(model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    if hasattr(model, "encode_text"):
        return model.encode_text(input_ids, attention_mask)
    encoder = getattr(model, "base_model", model)
    return encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
