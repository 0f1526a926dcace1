"""Tokenizers: loading, fingerprints, and a check that teacher and student map tokens to the same ids."""

import hashlib
import json

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..utils.loading import loading

SPECIAL_TOKENS = ("pad", "unk", "cls", "sep", "mask")


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer from a folder or the Hub.

    Raises:
        ValueError: It is not there, or cannot be read.
    """
    with loading(name):
        return AutoTokenizer.from_pretrained(name)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    return {name: getattr(tokenizer, f"{name}_token_id") for name in SPECIAL_TOKENS}


def vocabulary_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hexadecimal sha256 of the vocabulary (token to id) and the ids of the special tokens."""
    content = json.dumps([sorted(tokenizer.get_vocab().items()), _special_ids(tokenizer)])
    return hashlib.sha256(content.encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hexadecimal sha256 of everything that determines the ids of a text."""
    content: list[str | dict] = [vocabulary_fingerprint(tokenizer)]
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        content.append({name: rule for name, rule in rules.items() if name not in ("truncation", "padding", "model")})
        content.append({name: rule for name, rule in rules["model"].items() if name != "vocab"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same_vocabulary(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """Checks that two tokenizers have the same vocabulary and special ids.

    Args:
        teacher: The teacher's tokenizer.
        student: The student's tokenizer.

    Raises:
        ValueError: They differ; the message names the first difference.
    """
    if vocabulary_fingerprint(teacher) == vocabulary_fingerprint(student):
        return
    remedy = "train the student with the teacher's tokenizer, or choose models with the same vocabulary"
    ours, theirs = teacher.get_vocab(), student.get_vocab()
    if len(ours) != len(theirs):
        raise ValueError(f"the teacher's vocabulary has {len(ours)} tokens, the student's {len(theirs)}: {remedy}")
    for token, index in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != index:
            raise ValueError(
                f"token {token!r} has id {index} in the teacher's vocabulary and {theirs.get(token)} in the "
                f"student's: {remedy}"
            )
    for name, index in _special_ids(teacher).items():
        if (other := _special_ids(student)[name]) != index:
            raise ValueError(f"the {name} token has id {index} for the teacher and {other} for the student: {remedy}")
