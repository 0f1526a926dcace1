"""Tokenizers beyond the families of `tokenizer_families.py`: each token covers the characters that it was made of."""

import base64
import json
import unicodedata
import zlib
from functools import cache

import numpy as np
import pytest
from tokenizer_families import TEXTS, make_family
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from vidlankd_hf.data.segments import classes_of, cut, without_spaces
from vidlankd_hf.data.teacher_batch import TeacherBatch
from vidlankd_hf.data.token_tasks import make_aligner
from vidlankd_hf.data.tokenization import special_tokens_around, tokenize, tokenize_with_spans

# A normalizer that SentencePiece made: U+0001 is removed, and the ligature fi becomes two letters.
CHARSMAP = (
    b"c-k$~WssHy5CGu!7?>fBlJICyy1QEu=?3XOI69OTq(uek?v4XNx;qt6P`cBAIXa|#z8QArncbb8{kI#$4uT*&2*o#H34<UyB"
    b"33XoP7s9YLnCDnp9I7u9*Ic&e$7ho0m(>0Qd06E$w@(K(hxx^(vyL-q~jw#CL@{1N;Wc+g`DIfJ2}WpK5~<Xf)pY@1t>}}3R"
    b"8rVl%hB#C`&m?Q-+FsLU}6i8I}2zN>rs9pHqdJ)S@~ys7pO+Q-_8$qCO31LQ}q=F)e6GGn&(ewzQ%(k#wLP?de2kIub=Uy3>"
    b"WO^rAOC=t&>?@+Ds}fPwU*KZ6;<Aiic8!$SwaP)0GD5sc(JzUN!UFpeMjfw4?v662Y`RHiYRDa>RR)0x3s<}sT&EMyV$S-?`"
    b"3v6v;SWEIO<!5V%dn$`Twde*XzO>AZZ8`;Kowy>35>}Cf$*~fnNu$My|<^Tsd#xES<C?`0{uN>zTr}>TFIm220;7=}ak#n5q"
    b"3Rk(rWo~ejYh33Jce%xF{^4K#;%{QY!-5$39`|{~V;=C3XFTT#Px+5myx=8odB<zsgg!qqD)=7`N`kf"
)
MORE = [
    "\ufb01nd the o\ufb03ce, \u0130stanbul \u0131ss\u0131z \u1e9e",
    "한국어 안녕하세요 세계 값",
    "①② ㎏ ㍿ ½ Ⅷ",
] * 4
NASTY = [
    "\x01hello world", "\x01\x02 a cat", "\x01\u200dhello", "hello\x01 world", "\u200dcat", "\x01",
    "\ufeffThe cat", "\ufb01nd o\ufb03ces", "Straße STRASSE \u1e9e",
    "\u0130stanbul D\u0130YAR \u0131l\u0131k", "한국어 안녕하세요", "\u1112\u1161\u11ab cat",
    "e\u0301t\xe9 cafe\u0301s", "  two  spaces ", "\u3000wide\u3000space", "①②㎏cats", "the Fox, the fox",
    "  the  cat sat  here", "<unk> </s> <0x41> ▁the", "日本 the 日本", "x\x09y\x0d\x0az", "",
    "\u202ehello\u202c", "a\u0327\u0301\u0345b",
]  # fmt: skip


def _unigram(normalizer=None, **metaspace):
    tokenizer = Tokenizer(models.Unigram())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**metaspace)
    options = {"vocab_size": 230, "special_tokens": ["</s>", "<unk>"], "unk_token": "<unk>", "show_progress": False}
    tokenizer.train_from_iterator(TEXTS + MORE, trainers.UnigramTrainer(**options))
    return tokenizer


def _with_bytes(tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = [tuple(entry) for entry in model["vocab"]] + [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    tokenizer.model = models.Unigram(vocabulary, model["unk_id"], True)
    return tokenizer


def _with_added_tokens(**options):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.ByteLevel(False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS + MORE, trainer)
    tokenizer.add_tokens([AddedToken(text, **options) for text in ("the", "Fox", "cat sat", "\u0130", "\ufb01", "日")])
    return tokenizer


def _plain_bpe(*normalizer):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(list(normalizer))
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>", "<unk>"], limit_alphabet=80, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS + MORE, trainer)
    return tokenizer


def _sentencepiece():
    rules = zlib.decompress(base64.b85decode(CHARSMAP))
    steps = [normalizers.Precompiled(rules), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]
    return _unigram(normalizers.Sequence(steps))


KINDS = {
    "sentencepiece": _sentencepiece,
    "unigram_nfd": lambda: _unigram(normalizers.NFD(), prepend_scheme="never"),
    "unigram_one_piece": lambda: _unigram(normalizers.NFKC(), split=False),
    "unigram_bytes": lambda: _with_bytes(_unigram(normalizers.NFKD(), prepend_scheme="first")),
    "added": lambda: _with_added_tokens(lstrip=True, rstrip=True),
    "added_words": lambda: _with_added_tokens(normalized=True, single_word=True),
    "added_as_written": lambda: _with_added_tokens(normalized=False, lstrip=True),
    "prepended": lambda: _plain_bpe(normalizers.Strip(), normalizers.NFKC(), normalizers.Prepend("▁")),
    "without_accents": lambda: _plain_bpe(
        normalizers.Nmt(), normalizers.NFKD(), normalizers.Lowercase(), normalizers.StripAccents()
    ),
}


@cache
def make(kind: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](), eos_token="</s>", unk_token="<unk>", model_max_length=int(1e30),
        truncation_side="left", padding_side="left",
    )  # fmt: skip
    # Settings that a saved tokenizer may hold:
    tokenizer.backend_tokenizer.enable_truncation(3, direction="left")
    tokenizer.backend_tokenizer.enable_padding(length=50)
    return tokenizer


def folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_covers_its_own_characters_and_is_in_their_segment(kind):
    tokenizer = make(kind)
    for text in NASTY:
        ids, spans = tokenize_with_spans(tokenizer, [text])
        assert ids == tokenize(tokenizer, [text])
        for token, (begin, end) in zip(tokenizer.convert_ids_to_tokens(ids[0]), spans):
            letters = token.strip("▁Ġ ")
            if letters.isascii() and letters.isalpha() and not (len(letters) == 1 and text[begin:end].isspace()):
                assert letters.lower() in folded(text[begin:end]), (text, token, begin, end)
        classes = classes_of(text)
        ours, theirs = (
            without_spaces(of, classes) for of in (spans, tokenize_with_spans(make_family("wordpiece"), [text])[1])
        )
        segments = cut(len(text), ours, theirs)
        read = [np.full(len(text), -1) for _ in segments]
        for characters, numbers, of in zip(read, segments, (ours, theirs)):
            for number, (begin, end) in zip(numbers, of):
                characters[begin:end] = number
        both = (read[0] >= 0) & (read[1] >= 0)
        assert (read[0][both] == read[1][both]).all()


def test_texts_of_one_batch_have_the_spans_that_they_have_alone():
    tokenizer = make("sentencepiece")
    together, alone = (
        tokenize_with_spans(tokenizer, NASTY)[1],
        [tokenize_with_spans(tokenizer, [text]) for text in NASTY],
    )
    assert np.array_equal(together, np.concatenate([spans for _, spans in alone]))


def test_tokenizer_with_only_a_first_token_and_no_padding_token():
    tokenizer = make("unigram_bytes")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("</s> $A", special_tokens=[("</s>", 0)])
    try:
        assert special_tokens_around(tokenizer) == ([0], [])
        assert make_aligner(make_family("wordpiece"), tokenizer, 20).room == 19
        ids = np.array([7, 8], np.uint16)
        numbers = np.array([0, 1], np.uint8)
        sample = {"segments": numbers, "teacher_ids": ids, "teacher_segments": numbers, "teacher_windows": [1, 1]}
        ordinary = np.array([[False, True, True, False]])
        batch = TeacherBatch(tokenizer, causal=True)([sample], ordinary)
        assert batch["teacher_input_ids"].tolist() == [[0, 7], [0, 8]] and batch["segments"].tolist() == [
            [-1, 0, 1, -1]
        ]
    finally:
        tokenizer.backend_tokenizer.post_processor = None


def test_tokenizer_whose_special_tokens_cannot_be_found_is_refused():
    tokenizer = Tokenizer(models.BPE({"a": 0, "<s>": 1}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    with pytest.raises(
        ValueError, match=r"encodes 'x' as \[\] with special tokens and as \[\] without.*another tokenizer"
    ):
        make_aligner(make_family("wordpiece"), tokenizer, None)
