"""Small tokenizers of seven families, trained on a few sentences."""

import json
from functools import cache

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and then it jumps again.",
    "A cat sat on the mat. Another cat, named Zoë, watched from the café's window!",
    "Distillation transfers what a large teacher has learned to a smaller student.",
    "In 1999, the naïve façade of the old theatre (built in 1887) was rebuilt for $1,250,000.",
    "Schöne Grüße aus München: die Straße ist naß. Привет, мир! Καλημέρα κόσμε.",
    "今日は天気がいいです。東京に行きます。 नमस्ते दुनिया। 😀 👍🏽 emoji",
    "hello world hello hello world worlds other otherwise another the of and to in is was",
] * 4
FAMILIES = ("wordpiece", "byte_bpe", "roberta", "unigram", "byte_fallback", "word_level", "clip")


@cache
def make_family(name: str) -> PreTrainedTokenizerFast:
    """Trains the tokenizer of a family; all read any text, and some drop or change characters."""
    tokenizer, trainer, special = globals()[f"_{name}"]()
    if trainer is not None:
        tokenizer.train_from_iterator(TEXTS, trainer)
    pairs = [(token, tokenizer.token_to_id(token)) for token in special.values()]
    if name == "wordpiece":
        tokenizer.post_processor = processors.BertProcessing(pairs[3], pairs[2])
    elif name in ("roberta", "clip"):
        options = {"trim_offsets": name == "roberta", "add_prefix_space": name == "roberta"}
        tokenizer.post_processor = processors.RobertaProcessing(pairs[1], pairs[0], **options)
    elif name == "unigram":
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[pairs[0]])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return tokenizer, _trainer(trainers.WordPieceTrainer, special, vocab_size=250), special


def _byte_bpe():
    tokenizer, special = Tokenizer(models.BPE()), {"eos_token": "<|endoftext|>"}
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, _trainer(trainers.BpeTrainer, special, vocab_size=400, initial_alphabet=alphabet), special


def _roberta():
    tokenizer, special = Tokenizer(models.BPE()), {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    special |= {"mask_token": "<mask>", "unk_token": "<unk>"}
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, _trainer(trainers.BpeTrainer, special, vocab_size=330, initial_alphabet=alphabet), special


def _unigram():
    tokenizer, special = Tokenizer(models.Unigram()), {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer, _trainer(trainers.UnigramTrainer, special, vocab_size=220, unk_token="<unk>"), special


def _byte_fallback():
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    options = {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(TEXTS, _trainer(trainers.BpeTrainer, special, vocab_size=300, limit_alphabet=60))
    model = json.loads(tokenizer.to_str())["model"]
    for byte in range(256):
        model["vocab"].setdefault(f"<0x{byte:02X}>", len(model["vocab"]))
    tokenizer.model = models.BPE(model["vocab"], [tuple(merge) for merge in model["merges"]], **options)
    return tokenizer, None, special


def _word_level():
    tokenizer, special = Tokenizer(models.WordLevel(unk_token="[UNK]")), {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.NFD(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer, _trainer(trainers.WordLevelTrainer, special, vocab_size=60), special


def _clip():
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"initial_alphabet": alphabet, "end_of_word_suffix": "</w>"}
    return tokenizer, _trainer(trainers.BpeTrainer, special, vocab_size=500, **options), special


def _trainer(kind, special: dict[str, str], **options):
    return kind(special_tokens=list(special.values()), show_progress=False, **options)
