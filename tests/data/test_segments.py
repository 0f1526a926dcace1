"""Segments: for all texts and families of tokenizers, the finest cut on which both tokenizations agree."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, TEXTS, make_family

from vidlankd_hf.data.segments import classes_of, cut, sentence_ends, without_spaces
from vidlankd_hf.data.tokenization import tokenize, tokenize_with_spans

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
letters = st.one_of(
    st.sampled_from(" \n\t\u00a0\u3000.'aAbéß１ﬁ½中文हि\u0301\u0327\u200d😀👍🏽\ufb01Ⅷ㍿İ"),
    st.characters(codec="utf-8"),
)
texts = st.one_of(
    st.text(letters, max_size=40),
    st.lists(st.sampled_from([*" ".join(TEXTS).split(), " ", "  ", "\n"]), max_size=12).map(" ".join),
)


def naive(one, other):
    """Union of all pairs of tokens that overlap; a set with tokens of both is a segment."""
    tokens = [(0, i, *span) for i, span in enumerate(one)] + [(1, i, *span) for i, span in enumerate(other)]
    group = list(range(len(tokens)))
    for (i, (_, _, b, e)), (j, (_, _, c, f)) in itertools.combinations(enumerate(tokens), 2):
        if b < e and c < f and b < f and c < e:
            group = [group[i] if g == group[j] else g for g in group]
    kept = [g for g in dict.fromkeys(group) if {s for (s, *_), h in zip(tokens, group) if h == g} == {0, 1}]
    kept.sort(key=lambda g: min(b for (_, _, b, _), h in zip(tokens, group) if h == g))
    numbers = [kept.index(g) if g in kept else -1 for g in group]
    return numbers[: len(one)], numbers[len(one) :]


@st.composite
def tokenizations(draw):
    length = draw(st.integers(0, 12))
    spans = st.lists(st.tuples(st.integers(0, length), st.integers(0, length)).map(sorted), max_size=8)
    return length, sorted(draw(spans)), sorted(draw(spans))


@quick
@given(tokenizations())
def test_cut_is_that_of_a_naive_comparison_of_all_pairs(inputs):
    length, one, other = inputs
    arrays = (np.array(spans, np.int64).reshape(-1, 2) for spans in (one, other))
    assert tuple(numbers.tolist() for numbers in cut(length, *arrays)) == naive(one, other)


@quick
@given(tokenizations(), st.randoms(use_true_random=False))
def test_tokens_out_of_order_are_in_one_segment_with_those_between(inputs, random):
    length, one, other = inputs
    random.shuffle(one)
    numbers, _ = cut(length, *(np.array(spans, np.int64).reshape(-1, 2) for spans in (one, other)))
    assert (np.diff(numbers[numbers >= 0]) >= 0).all()


def spans_of(family, text):
    ids, spans = tokenize_with_spans(make_family(family), [text])
    assert ids == tokenize(make_family(family), [text])
    return without_spaces(spans, classes_of(text))


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FAMILIES, 2)))
@settings(quick, max_examples=15)
@given(text=texts)
def test_segments_of_real_tokenizers_are_the_finest_that_no_token_crosses(one, other, text):
    first, second = spans_of(one, text), spans_of(other, text)
    segments = cut(len(text), first, second)
    assert tuple(numbers.tolist() for numbers in segments) == naive(first.tolist(), second.tolist())
    for numbers, spans in zip(segments, (first, second)):
        placed = numbers[numbers >= 0]
        assert (np.diff(placed) >= 0).all(), "the segments of a tokenizer are in the order of its tokens"
        assert set(placed) == set(range(max(map(int, placed), default=-1) + 1))
        assert (spans[numbers >= 0, 0] < spans[numbers >= 0, 1]).all(), "a token in a segment has text"
    read = [np.zeros(len(text), int) - 1 for _ in segments]
    for characters, numbers, spans in zip(read, segments, (first, second)):
        for number, (begin, end) in zip(numbers, spans):
            characters[begin:end] = number
    covered = [np.zeros(len(text), bool) for _ in segments]
    for characters, spans in zip(covered, (first, second)):
        for begin, end in spans:
            characters[begin:end] = True
    both = covered[0] & covered[1]
    assert (read[0][both] >= 0).all() and (read[0][both] == read[1][both]).all(), "text that both read is aligned"


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FAMILIES, 2)))
def test_words_of_ordinary_text_are_aligned_whatever_the_tokenizer(one, other):
    """In plain sentences, no segment holds parts of two words: spaces and word-start markers do not join words."""
    for text in TEXTS[:3]:
        first, second = spans_of(one, text), spans_of(other, text)
        segments, _ = cut(len(text), first, second)
        words = len(text.split())
        shown = [bool(text[begin:end].strip()) for begin, end in first]
        assert segments.max() + 1 >= words and (segments[shown] >= 0).all()
        starts = {begin for begin in range(len(text)) if not text[begin].isspace() and text[:begin][-1:].isspace()}
        assert starts <= set(first[:, 0]), "a token begins where a word begins"


def test_one_character_of_several_bytes_is_one_segment():
    text = "ok 😀 ok"
    first, second = spans_of("byte_bpe", text), spans_of("wordpiece", text)
    ours, theirs = cut(len(text), first, second)
    emoji = [int(number) for number, (begin, end) in zip(ours, first) if begin <= 3 < end]
    assert len(emoji) > 1 and len(set(emoji)) == 1 and emoji[0] in theirs.tolist()


def test_every_kind_of_white_space_belongs_to_nobody():
    spaces = [chr(i) for i in range(0x110000) if chr(i).isspace()]
    assert {unicodedata.category(space) for space in spaces} <= {"Zs", "Zl", "Zp", "Cc"}
    for space in spaces:
        text = f"{space}a{space}b{space}"
        spans = np.array([[0, 3], [2, 5], [0, 1]])
        assert without_spaces(spans, classes_of(text)).tolist() == [[1, 2], [3, 4], [0, 1]]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("One. Two", [3]), ("3.14 is pi.", [10]), ('He said "no!" Then', [12]), ("x.y", []), ("是。不是。", [1, 4]),
        ("Wait... what?", [6, 12]), ("(Done.) Next", [6]), ("", []),
    ],
)  # fmt: skip
def test_sentences_end_with_a_stop_before_white_space(text, ends):
    assert np.flatnonzero(sentence_ends(classes_of(text))).tolist() == ends
