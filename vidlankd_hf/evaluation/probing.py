"""Masked-token scores and linear probes of a model that is left as it is."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedTokenizerBase

BATCH_SIZE, NOUN_BATCH_SIZE = 128, 256
FOLDS = 5
PROBE_TEMPLATES = (
    "a {noun}",
    "the {noun} is here",
    "there is a {noun}",
    "think of a {noun}",
    "i know the {noun} well",
    "they have a {noun} too",
    "where is the {noun} now",
    "she needs the {noun} again",
)


@torch.no_grad()
def masked_scores(
    model: torch.nn.Module, tokenizer, items: list[dict], candidates: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """Mean log-probability of every candidate's tokens where all of them are masked: `[templates, items, candidates]`.

    Candidates with as many tokens share a masked sequence, which is run once.

    Raises:
        ValueError: The tokenizer is not a fast one, has no mask, or has no tokens for a candidate.
    """
    if not tokenizer.is_fast or tokenizer.mask_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} is not a fast tokenizer with a mask token")
    texts, spans = [], []
    for template in templates:
        for item in items:
            for word in candidates:
                text, places = _fill(template, item, word)
                texts.append(text)
                spans.append(places)
    encoded = tokenizer(texts, return_offsets_mapping=True)
    inputs: dict[tuple, int] = {}
    wanted = []  # of every text: its masked sequence, and the places and ids that are scored
    for ids, offsets, places in zip(encoded["input_ids"], encoded["offset_mapping"], spans):
        hidden = [
            i for i, (a, b) in enumerate(offsets) if b > a and any(a < end and b > begin for begin, end in places)
        ]
        if not hidden or any(ids[i] == tokenizer.unk_token_id for i in hidden):
            word = candidates[len(wanted) % len(candidates)]
            raise ValueError(f"the tokenizer has no tokens for the candidate {word!r}: give the model's own tokenizer")
        masked = list(ids)
        for i in hidden:
            masked[i] = tokenizer.mask_token_id
        sequence = inputs.setdefault(tuple(masked), len(inputs))
        wanted.append((sequence, hidden, [ids[i] for i in hidden]))
    by_sequence: list[list[int]] = [[] for _ in inputs]
    for text, (sequence, _, _) in enumerate(wanted):
        by_sequence[sequence].append(text)
    scores = np.empty(len(texts))
    sequences = list(inputs)
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for first in range(0, len(order), BATCH_SIZE):
        chosen = order[first : first + BATCH_SIZE]
        batch = tokenizer.pad({"input_ids": [list(sequences[i]) for i in chosen]}, return_tensors="pt").to(device)
        rows, columns = (batch["input_ids"] == tokenizer.mask_token_id).nonzero(as_tuple=True)
        logits = model(**batch).logits[rows, columns].float().log_softmax(-1).cpu().numpy()
        found = {place: i for i, place in enumerate(zip(rows.tolist(), columns.tolist()))}
        for row, sequence in enumerate(chosen):
            for text in by_sequence[sequence]:
                _, places, ids = wanted[text]
                scores[text] = np.mean([logits[found[row, i], id] for i, id in zip(places, ids)])
    model.train(was_training)
    return scores.reshape(len(templates), len(items), len(candidates))


def _fill(template: str, item: dict, word: str) -> tuple[str, list[tuple[int, int]]]:
    """The sentence, and where the word stands in it."""
    text, places = "", []
    for i, part in enumerate(template.split("{word}")):
        if i:
            places.append((len(text), len(text) + len(word)))
            text += word
        text += part.format(**item)
    return text, places


def probe_attributes(model, tokenizer, items: list[dict], train: list[dict] | None) -> np.ndarray:
    """Predictions `[N]` for objects: by a probe of the objects in `train`, else cross-validated over the objects."""
    labels = np.array([item["label"] for item in items])
    states = noun_states(model, tokenizer, [item["object"] for item in items])
    if train is None:
        return _cross_validated(states, labels, KFold(FOLDS, shuffle=True, random_state=0))
    held_out = {item["object"] for item in items}
    train = [item for item in train if item["object"] not in held_out]
    fitted = _fit(
        noun_states(model, tokenizer, [item["object"] for item in train]), np.array([item["label"] for item in train])
    )
    return fitted.predict(states)


def probe_pairs(model, tokenizer, items: list[dict], train: None = None) -> np.ndarray:
    """Predictions `[N]` for comparisons, each by a probe of differences of states that saw neither of its objects."""
    names = sorted({item[side] for item in items for side in ("object", "other")})
    states = dict(zip(names, noun_states(model, tokenizer, names)))
    inputs = np.stack([states[item["object"]] - states[item["other"]] for item in items])
    labels = np.array([item["label"] for item in items])
    sides = [frozenset((item["object"], item["other"])) for item in items]
    predictions = np.empty(len(items), dtype=int)
    for pair in sorted(set(sides), key=sorted):
        asked = np.array([side == pair for side in sides])
        others = np.array([not (side & pair) for side in sides])
        predictions[asked] = _fit(inputs[others], labels[others]).predict(inputs[asked])
    return predictions


def probe_sentences(model, tokenizer, items: list[dict], train: None = None) -> np.ndarray:
    """Predictions `[N]` for sentences from the mean of their tokens' states; objects `other` are held out in turn."""
    labels = np.array([item["label"] for item in items])
    states = _sentence_states(model, tokenizer, [item["sentence"] for item in items])
    groups = [item["other"] for item in items]
    return _cross_validated(states, labels, GroupKFold(min(FOLDS, len(set(groups)))), groups)


@torch.no_grad()
def _sentence_states(model, tokenizer, sentences: list[str]) -> np.ndarray:
    was_training, encoder = model.training, getattr(model, "base_model", model)
    model.eval()
    states = []
    for first in range(0, len(sentences), BATCH_SIZE):
        batch = tokenizer(sentences[first : first + BATCH_SIZE], padding=True, return_tensors="pt")
        batch = batch.to(next(model.parameters()).device)
        hidden = encoder(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        states.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
    model.train(was_training)
    return torch.cat(states).numpy()


def _fit(states: np.ndarray, labels: np.ndarray):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(states, labels)


def _cross_validated(states: np.ndarray, labels: np.ndarray, splits, groups=None) -> np.ndarray:
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return cross_val_predict(probe, states, labels, cv=splits, groups=groups)


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
    for first in range(0, len(sentences), NOUN_BATCH_SIZE):
        texts, starts, words = zip(*sentences[first : first + NOUN_BATCH_SIZE])
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
