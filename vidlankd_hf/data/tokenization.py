"""Converts texts to token ids. All data are tokenized here, so that no text can contain a control token."""

import re
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Spans = list[tuple[int, int]]


class ControlTokens(NamedTuple):
    """The special tokens of a tokenizer except the unknown token: a pattern of their spellings, and their ids."""

    spellings: re.Pattern
    ids: frozenset[int]
    unknown: int


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens | None:
    """The tokens that a text must not contain; None if the tokenizer has no unknown token to replace them."""
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids))
    unknown = special.pop(tokenizer.unk_token, None)
    if unknown is None or not special:
        return None
    return ControlTokens(re.compile("|".join(map(re.escape, special))), frozenset(special.values()), unknown)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], control: ControlTokens | None = None
) -> list[list[int]]:
    """Token ids of each text, without special tokens.

    `[MASK]`, `[PAD]` and other special tokens written in a text are read as ordinary characters. If a tokenizer still
    gives a single token for one of them, it is replaced by the unknown token.

    Args:
        tokenizer: The tokenizer.
        texts: The texts.
        control: Result of [`control_tokens`], if it is known; computing it takes as long as a short text.
    """
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return _without_control_tokens(encoded, tokenizer, texts, control)


def tokenize_with_spans(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[list[list[int]], np.ndarray]:
    """Returns the token ids of each text, as [`tokenize`] does, and the span of all tokens, `[n, 2]`.

    A span holds the index of a token's first character in its text, and the index after its last one.

    Args:
        tokenizer: A fast tokenizer.
        texts: The texts.
    """
    if not texts:
        return [], np.zeros((0, 2), np.int64)
    backend = tokenizer.backend_tokenizer  # `tokenizer(...)` gives the same, but copies every token in Python
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # as ordinary characters
    encodings = backend.encode_batch(list(texts), add_special_tokens=False)
    ids = [encoding.ids for encoding in encodings]
    numbers = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
    spans = np.fromiter(numbers, np.int64, 2 * sum(map(len, ids))).reshape(-1, 2)
    for i, text in enumerate(texts):
        if not (text[:1].isprintable() or text[0].isspace()):
            first = sum(map(len, ids[:i]))
            spans[first : first + len(ids[i])] = _spans_after_invisible(backend, text, encodings[i])
    return _without_control_tokens(ids, tokenizer, texts, None), spans


def _spans_after_invisible(backend: "Tokenizer", text: str, encoding: "Encoding") -> np.ndarray:
    """Returns the spans `[n, 2]` of the tokens of a text that begins with invisible characters.

    Where SentencePiece's rules remove such characters, the spans of all tokens are too small by their number. The text
    without them has the same tokens and correct spans.
    """
    for start in range(next((i for i, c in enumerate(text[:32]) if c.isprintable()), len(text[:32])), 0, -1):
        rest = backend.encode(text[start:], add_special_tokens=False)
        if rest.ids == encoding.ids:
            return np.array(rest.offsets, np.int64).reshape(-1, 2) + start
    return np.array(encoding.offsets, np.int64).reshape(-1, 2)


def _without_control_tokens(
    encoded: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    control: ControlTokens | None,
) -> list[list[int]]:
    control = control_tokens(tokenizer) if control is None else control
    for i, text in enumerate(texts if control is not None else ()):
        if control.spellings.search(text):
            encoded[i] = [control.unknown if index in control.ids else index for index in encoded[i]]
    return encoded


def token_spans(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Spans]:
    """The characters that each token of each text covers: the first one, and the one after the last.

    A tokenizer without a fast version does not return spans; then each word is divided evenly among its tokens.
    """
    if not tokenizer.is_fast:
        return [_spans_of_words(tokenizer, text) for text in texts]
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    return tokenizer(list(texts), return_offsets_mapping=True, **options)["offset_mapping"] if texts else []


def special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Returns the ids of the special tokens that a tokenizer puts before and after a text.

    Raises:
        ValueError: The tokenizer changes the tokens between them, or has no token for `x`.
    """
    options = {"padding": False, "verbose": False}
    ordinary = tokenizer("x", add_special_tokens=False, **options)["input_ids"]
    ids = tokenizer("x", **options)["input_ids"]
    for first in range(len(ids) - len(ordinary) + 1 if ordinary else 0):
        if ids[first : first + len(ordinary)] == ordinary:
            return ids[:first], ids[first + len(ordinary) :]
    raise ValueError(
        f"the tokenizer encodes 'x' as {ids} with special tokens and as {ordinary} without them, so it is unknown "
        "which special tokens it adds: use another tokenizer"
    )


def counts_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a word has different tokens after a space than at the beginning, as in byte-level tokenizers."""
    probes = ["hello world", "Commands", "a", "1999"]
    return tokenize(tokenizer, probes) != tokenize(tokenizer, [" " + probe for probe in probes])


def lengths_in_text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """The largest number of tokens that each text has inside a longer one: with or without a space before it."""
    counts = [len(ids) for ids in tokenize(tokenizer, texts)]
    if not counts_spaces(tokenizer):
        return counts
    return [max(pair) for pair in zip(counts, map(len, tokenize(tokenizer, [f" {text}" for text in texts])))]


def _spans_of_words(tokenizer: PreTrainedTokenizerBase, text: str) -> Spans:
    words = list(re.finditer(r"\S+", text))
    spans: Spans = []
    for word, ids in zip(words, tokenize(tokenizer, [word[0] for word in words])):
        begin, length = word.start(), len(word[0])
        for i in range(len(ids)):
            spans.append((begin + i * length // len(ids), begin + max(i + 1, (i + 1) * length // len(ids))))
    return [(first, min(last, len(text))) for first, last in spans]
