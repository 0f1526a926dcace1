"""Byte-level BPE tokenizers trained on texts: RoBERTa's for students, CLIP's for the CLIP teacher."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ...utils.io import atomic_dir

SPECIAL_TOKENS = {
    "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"
}  # fmt: skip
CLIP_SPECIAL_TOKENS = {
    "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"
}  # fmt: skip


def train_byte_level_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Trains a tokenizer like RoBERTa's on texts and saves it, unless `folder` exists."""
    if folder.is_dir():
        return
    tokenizer = _byte_level_bpe(texts, vocab_size, list(SPECIAL_TOKENS.values()), ("<s>", "</s>"))
    with atomic_dir(folder) as part:
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS).save_pretrained(part)


def train_clip_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a tokenizer like CLIP's on texts: lower case, and its end token is the padding too."""
    ends = CLIP_SPECIAL_TOKENS["bos_token"], CLIP_SPECIAL_TOKENS["eos_token"]
    tokenizer = _byte_level_bpe(texts, vocab_size, list(ends), ends, normalizers.Lowercase())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **CLIP_SPECIAL_TOKENS)


def _byte_level_bpe(texts, vocab_size: int, special: list[str], around: tuple[str, str], normalizer=None) -> Tokenizer:
    """Trains a byte-level BPE; `around` are the tokens before and after a text."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = {"special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, **options))
    first, last = ((token, tokenizer.token_to_id(token)) for token in around)
    tokenizer.post_processor = processors.RobertaProcessing(last, first, trim_offsets=True, add_prefix_space=True)
    return tokenizer
