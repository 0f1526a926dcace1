"""Tokenizers: loading, fingerprints, and a check that teacher and student map tokens to the same ids."""

import hashlib
import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..utils.io import sha256_of
from ..utils.loading import loading

PROBES = (
    "Hello WORLD, naïve Café don't.", "  Tabs\tand\nlines  1,234.5 e-mail@x.org [MASK]", "汉字 かな हिन्दी 😀 Ａ",
    "@User saw http://t.co/x",
)  # fmt: skip
SPECIAL_TOKENS = ("pad", "unk", "cls", "sep", "mask")


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer from a folder or the Hub, without running its code.

    Of a multimodal model, whose folder holds a processor, only the tokenizer is loaded.

    Raises:
        ValueError: The tokenizer does not exist, cannot be read, or needs a package that is not installed.
    """
    with loading(name):
        try:
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except ImportError as error:  # sentencepiece, tiktoken, ...
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"its tokenizer needs a package that is not installed: {reason}") from error


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    return {name: getattr(tokenizer, f"{name}_token_id") for name in SPECIAL_TOKENS}


def vocabulary_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hexadecimal sha256 of the vocabulary (token to id) and the ids of the special tokens."""
    content = json.dumps([sorted(tokenizer.get_vocab().items()), _special_ids(tokenizer)])
    return hashlib.sha256(content.encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hexadecimal sha256 of everything that determines the ids of a text."""
    content: list[str | dict | list] = [vocabulary_fingerprint(tokenizer)]
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        content.append({name: rule for name, rule in rules.items() if name not in ("truncation", "padding", "model")})
        content.append({name: rule for name, rule in rules["model"].items() if name != "vocab"})
    else:  # rules in Python: the class, its files, and what they make of texts of all kinds
        content += [type(tokenizer).__qualname__, _saved_files(tokenizer)]
        content.append(tokenizer(list(PROBES), add_special_tokens=False, verbose=False)["input_ids"])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _saved_files(tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """Names and sha256 of the files that a tokenizer without a fast version saves: vocabulary, merges, settings."""
    with tempfile.TemporaryDirectory(prefix="vidlankd-") as folder:
        tokenizer.save_pretrained(folder)
        return [(path.name, sha256_of(path)) for path in sorted(Path(folder).iterdir())]


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


def check_vocabulary_size(tokenizer, model_name: str, vocab_size: int, recorded: str | None = None) -> str:
    """Checks that `tokenizer` fits a model.

    Args:
        tokenizer: The tokenizer.
        model_name: What messages call the model, such as "teacher".
        vocab_size: Number of the model's embeddings.
        recorded: Fingerprint of the vocabulary that the model was trained with, if known.

    Returns:
        Fingerprint of the tokenizer's vocabulary.

    Raises:
        ValueError: The tokenizer has more tokens than the model, or another vocabulary.
    """
    fingerprint = vocabulary_fingerprint(tokenizer)
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the {model_name} has embeddings for {vocab_size}: "
            f"use the {model_name}'s own tokenizer"
        )
    if recorded is not None and recorded != fingerprint:
        raise ValueError(
            f"the {model_name} was trained with another vocabulary ({recorded[:12]}) than the tokenizer's "
            f"({fingerprint[:12]}): use the tokenizer saved with the {model_name}"
        )
    return fingerprint
