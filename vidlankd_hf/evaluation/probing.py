"""Masked-token scores and linear probes of a frozen model."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..utils.extras import requires_extra

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


def masked_scores(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    items: list[dict],
    candidates: Sequence[str],
    templates: Sequence[str],
) -> np.ndarray:
    """Scores each candidate by the mean log-probability of its tokens, all of which are masked.

    Candidates with the same number of tokens share a masked sequence, which is run once.

    Args:
        model: Masked language model.
        tokenizer: The model's tokenizer, a fast one.
        items: Dicts with the fields of the templates.
        candidates: Possible values of the field `{word}`.
        templates: Sentences with fields in braces.

    Returns:
        `[templates, items, candidates]` float64.

    Raises:
        ValueError: The tokenizer is not a fast one, has no mask token, or has no tokens for a candidate.
    """
    if not tokenizer.is_fast or tokenizer.mask_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} cannot mask words: use a fast tokenizer with a mask token")
    filled = [_fill(template, item, word) for template in templates for item in items for word in candidates]
    encoded = tokenizer([text for text, _ in filled], return_offsets_mapping=True)
    readers: dict[tuple, list] = {}  # masked sequence -> the texts scored on it, with masked positions and their ids
    for text, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"])):
        places = filled[text][1]
        hidden = [
            i for i, (a, b) in enumerate(offsets) if b > a and any(a < end and b > begin for begin, end in places)
        ]
        if not hidden or any(ids[i] == tokenizer.unk_token_id for i in hidden):
            word = candidates[text % len(candidates)]
            raise ValueError(f"the tokenizer has no tokens for the candidate {word!r}: use the model's own tokenizer")
        masked = tuple(tokenizer.mask_token_id if i in hidden else id for i, id in enumerate(ids))
        readers.setdefault(masked, []).append((text, hidden, [ids[i] for i in hidden]))
    scores = np.empty(len(filled))
    sequences = sorted(readers, key=len)
    with _inference(model) as device:
        for first in range(0, len(sequences), BATCH_SIZE):
            chosen = sequences[first : first + BATCH_SIZE]
            batch = tokenizer.pad({"input_ids": list(map(list, chosen))}, return_tensors="pt").to(device)
            rows, columns = (batch["input_ids"] == tokenizer.mask_token_id).nonzero(as_tuple=True)
            logits = model(**batch).logits[rows, columns].float().log_softmax(-1).cpu().numpy()
            found = {place: i for i, place in enumerate(zip(rows.tolist(), columns.tolist()))}
            for row, sequence in enumerate(chosen):
                for text, hidden, ids in readers[sequence]:
                    scores[text] = np.mean([logits[found[row, i], id] for i, id in zip(hidden, ids)])
    return scores.reshape(len(templates), len(items), len(candidates))


def _fill(template: str, item: dict, word: str) -> tuple[str, list[tuple[int, int]]]:
    """Returns the sentence and the character spans of the word in it."""
    text, places = "", []
    for i, part in enumerate(template.split("{word}")):
        if i:
            places.append((len(text), len(text) + len(word)))
            text += word
        text += part.format(**item)
    return text, places


def probe_attributes(model, tokenizer, items: list[dict], train: list[dict] | None) -> np.ndarray:
    """Predicts the labels of objects with a linear probe that was fitted to other objects.

    Args:
        model, tokenizer: As in [`noun_states`].
        items: The N items, with `object` and `label`.
        train: Items to fit the probe to; those whose objects are also in `items` are left out. `None`:
            cross-validation over `items`.

    Returns:
        `[N]` labels.
    """
    states, labels = noun_states(model, tokenizer, [item["object"] for item in items]), _labels(items)
    if train is None:
        with requires_extra("downstream"):
            from sklearn.model_selection import KFold
        return cross_validated(states, labels, KFold(FOLDS, shuffle=True, random_state=0))
    held_out = {item["object"] for item in items}
    train = [item for item in train if item["object"] not in held_out]
    probe = linear_probe()
    with _ignored_convergence():
        probe.fit(noun_states(model, tokenizer, [item["object"] for item in train]), _labels(train))
    return probe.predict(states)


def probe_pairs(model, tokenizer, items: list[dict], train: None = None) -> np.ndarray:
    """Predicts the labels of comparisons from the difference of the two objects' states.

    Each pair of objects is predicted by a probe that was fitted without any comparison of either object.

    Args:
        model, tokenizer: As in [`noun_states`].
        items: The N items, with `object`, `other` and `label`.
        train: Always `None`: these sets have no training split.

    Returns:
        `[N]` labels.
    """
    names = sorted({item[side] for item in items for side in ("object", "other")})
    states = dict(zip(names, noun_states(model, tokenizer, names)))
    inputs = np.stack([states[item["object"]] - states[item["other"]] for item in items])
    sides = [frozenset((item["object"], item["other"])) for item in items]
    splits = [
        (np.flatnonzero([not (side & pair) for side in sides]), np.flatnonzero([side == pair for side in sides]))
        for pair in sorted(set(sides), key=sorted)
    ]
    return cross_validated(inputs, _labels(items), splits)


def probe_sentences(model, tokenizer, items: list[dict], train: None = None) -> np.ndarray:
    """Predicts the labels of sentences from their tokens' mean state, cross-validated over the second object.

    Args:
        model: BERT-like model, with or without head.
        tokenizer: The model's tokenizer.
        items: The N items, with `sentence`, `other` (the second object) and `label`.
        train: Always `None`: these sets have no training split.

    Returns:
        `[N]` labels.
    """
    with requires_extra("downstream"):
        from sklearn.model_selection import GroupKFold
    states = _sentence_states(model, tokenizer, [item["sentence"] for item in items])
    groups = [item["other"] for item in items]
    return cross_validated(states, _labels(items), GroupKFold(min(FOLDS, len(set(groups)))), groups)


def linear_probe():
    """Returns an unfitted logistic regression on standardized states."""
    with requires_extra("downstream"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def cross_validated(states: np.ndarray, labels: Sequence, splits, groups: Sequence | None = None) -> np.ndarray:
    """Predicts each of N labels with a linear probe that was fitted to other examples.

    Args:
        states: `[N, H]`.
        labels: The N labels.
        splits: A splitter of scikit-learn, or a list of `(train indices, test indices)`.
        groups: Group of each example, for a splitter that needs it.

    Returns:
        The N predictions.

    Raises:
        ImportError: The extra `downstream` is not installed.
    """
    with requires_extra("downstream"):
        from sklearn.model_selection import cross_val_predict
    with _ignored_convergence():
        return cross_val_predict(linear_probe(), states, labels, cv=splits, groups=groups)


def _ignored_convergence():
    from sklearn.exceptions import ConvergenceWarning

    return warnings.catch_warnings(action="ignore", category=ConvergenceWarning)


def _labels(items: list[dict]) -> np.ndarray:
    return np.array([item["label"] for item in items])


def _sentence_states(model, tokenizer, sentences: list[str]) -> np.ndarray:
    states = []
    with _inference(model) as device:
        for first in range(0, len(sentences), BATCH_SIZE):
            batch = tokenizer(sentences[first : first + BATCH_SIZE], padding=True, return_tensors="pt").to(device)
            hidden = getattr(model, "base_model", model)(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            states.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
    return torch.cat(states).numpy()


def noun_states(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, nouns: list[str]) -> np.ndarray:
    """Returns each noun's mean state over its word pieces and over eight neutral sentences.

    Args:
        model: A model with `encode_text(input_ids, attention_mask)` (the teacher), or a BERT-like model, whose
            `base_model` is used.
        tokenizer: The model's tokenizer, a fast one.
        nouns: The N nouns.

    Returns:
        `[N, H]` float32.

    Raises:
        ValueError: The tokenizer is not a fast one, or has no pieces for a noun.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} has no character offsets: use a fast tokenizer")
    sentences = [
        (template.format(noun=noun), template.index("{noun}"), noun) for noun in nouns for template in PROBE_TEMPLATES
    ]
    states = []
    with _inference(model) as device:
        for first in range(0, len(sentences), NOUN_BATCH_SIZE):
            texts, starts, words = zip(*sentences[first : first + NOUN_BATCH_SIZE])
            batch = tokenizer(list(texts), padding=True, return_offsets_mapping=True, return_tensors="pt")
            begins, ends = batch.pop("offset_mapping").unbind(-1)
            starts = torch.tensor(starts)[:, None]
            stops = starts + torch.tensor([len(word) for word in words])[:, None]
            of_noun = (begins < stops) & (ends > starts) & (ends > begins)  # some tokens include the space before
            unknown = ~of_noun.any(1) | (of_noun & (batch["input_ids"] == tokenizer.unk_token_id)).any(1)
            if unknown.any():
                raise ValueError(
                    f"the tokenizer has no pieces for the noun {words[int(unknown.nonzero()[0])]!r}: use the model's "
                    "own tokenizer"
                )
            hidden = _encode(model, batch["input_ids"].to(device), batch["attention_mask"].to(device)).float().cpu()
            share = of_noun.float() / of_noun.sum(1, keepdim=True)
            states.append((hidden * share[..., None]).sum(1))
    return torch.cat(states).unflatten(0, (len(nouns), len(PROBE_TEMPLATES))).mean(1).numpy()


def _encode(model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    if hasattr(model, "encode_text"):
        return model.encode_text(input_ids, attention_mask)
    encoder = getattr(model, "base_model", model)
    return encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


@contextmanager
def _inference(model: torch.nn.Module) -> Iterator[torch.device]:
    """Runs the block without gradients and in eval mode; yields the model's device."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)
