"""The batch for a teacher with another tokenizer: every token of both models is where its segment says."""

import numpy as np
import pytest
import torch
from helpers import WORDS, make_tokenizer
from tokenizer_families import make_family

from vidlankd_hf import TextCollator

NONE = 255


def sample(segments, teacher_segments, windows=None, sample_id=0):
    """An aligned block whose student tokens have the ids 5, 6, ... and whose teacher tokens have 50, 51, ..."""
    return {
        "input_ids": np.arange(5, 5 + len(segments), dtype=np.uint16),
        "segments": np.array(segments, np.uint8),
        "teacher_ids": np.arange(50, 50 + len(teacher_segments), dtype=np.uint16),
        "teacher_segments": np.array(teacher_segments, np.uint8),
        "teacher_windows": np.array([len(teacher_segments)] if windows is None else windows, np.uint32),
        "sample_id": sample_id,
        "epoch": 0,
    }


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def collate(tokenizer, teacher, *samples, **options):
    return TextCollator(tokenizer, teacher_tokenizer=teacher, **options)(list(samples))


def read_back(batch):
    """For each block and segment, the teacher's ids in it, in order."""
    flat = batch["teacher_input_ids"].reshape(-1)
    segments, ids = batch["teacher_segments"], flat[batch["teacher_positions"]]
    count = int(batch["segment_mask"].sum(1).max())
    return [[ids[b][segments[b] == s].tolist() for s in range(count)] for b in range(len(segments))]


def test_special_tokens_of_both_ends_are_the_first_and_the_last_segment(tokenizer):
    first, last = make_tokenizer_with_specials(tokenizer)
    blocks = sample([0, 0, 1, NONE], [0, 1, 1]), sample([0, 1, 2, 3], [NONE, 0, 1, 2, 3])
    batch = collate(tokenizer, first, *blocks)
    assert batch["segments"].tolist() == [[0, 1, 1, 2, -1, 3], [0, 1, 2, 3, 4, 5]]
    assert batch["segment_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    cls, sep = last
    assert read_back(batch) == [
        [[cls], [50], [51, 52], [sep], [], []],
        [[cls], [51], [52], [53], [54], [sep]],
    ]
    assert batch["teacher_attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0], [1] * 7]
    assert {name: value.dtype for name, value in batch.items()} == dict.fromkeys(batch, torch.int64)


def make_tokenizer_with_specials(tokenizer):
    teacher = make_family("wordpiece")
    return teacher, (teacher.cls_token_id, teacher.sep_token_id)


def test_windows_of_a_block_are_rows_that_its_segments_find(tokenizer):
    teacher, (cls, sep) = make_tokenizer_with_specials(tokenizer)
    blocks = sample([0, 1, 2, 3], [0, NONE, 1, 2, 3], windows=[3, 2]), sample([0, 0, 0, 1], [0, 1])
    batch = collate(tokenizer, teacher, *blocks)
    pad = teacher.pad_token_id
    assert batch["teacher_input_ids"].tolist() == [
        [cls, 50, 51, 52, sep],
        [cls, 53, 54, sep, pad],
        [cls, 50, 51, sep, pad],
    ]
    assert read_back(batch) == [
        [[cls, cls], [50], [52], [53], [54], [sep, sep]],
        [[cls], [50], [51], [sep], [], []],
    ]
    order = batch["teacher_positions"][0]
    assert (order[1:] > order[:-1]).all(), "the tokens of a block are in the order of the text"
    unused = batch["teacher_segments"] == -1
    assert (batch["teacher_positions"][1][unused[1]] == 0).all()


@pytest.mark.parametrize(
    ("family", "causal", "cls", "sep"),
    [("byte_bpe", False, -1, -1), ("unigram", False, -1, 2), ("clip", True, -1, 2), ("clip", False, 0, 3)],
)
def test_special_token_without_a_counterpart_is_in_no_segment(tokenizer, family, causal, cls, sep):
    batch = collate(tokenizer, make_family(family), sample([0, 1], [0, 1]), causal_teacher=causal)
    shift = int(cls == 0)
    assert batch["segments"].tolist() == [[cls, shift, shift + 1, sep]]
    assert batch["segment_mask"].sum() == 2 + (cls >= 0) + (sep >= 0)
    assert "teacher_attention_mask" not in batch
    shown = batch["teacher_input_ids"].reshape(-1)[batch["teacher_positions"]][batch["teacher_segments"] >= 0]
    assert len(shown) == 2 + (cls >= 0) + (sep >= 0)


def test_equal_tokens_give_segments_that_are_the_tokens(tokenizer):
    teacher, _ = make_tokenizer_with_specials(tokenizer)
    batch = collate(tokenizer, teacher, *(sample(range(6), range(6), sample_id=i) for i in range(3)))
    every = torch.arange(8).expand(3, 8)
    assert torch.equal(batch["segments"], every) and torch.equal(batch["teacher_segments"], every)
    assert batch["segment_mask"].all() and "teacher_attention_mask" not in batch
    assert torch.equal(batch["teacher_positions"], torch.arange(24).view(3, 8))


def test_a_block_without_aligned_tokens_or_teacher_tokens_is_still_a_row(tokenizer):
    blocks = sample([NONE, NONE], []), sample([NONE, NONE], [NONE])
    batch = collate(tokenizer, make_family("byte_bpe"), *blocks)
    assert batch["segment_mask"].shape == (2, 0) and (batch["segments"] == -1).all()
    assert batch["teacher_input_ids"].shape == (2, 1) and (batch["teacher_segments"] == -1).all()


def test_alignment_changes_no_mask(tokenizer):
    teacher, _ = make_tokenizer_with_specials(tokenizer)
    blocks = [sample([0, 1, 1, NONE] * 5, [0, 1], sample_id=i) for i in range(4)]
    plain, aligned = TextCollator(tokenizer)(blocks), collate(tokenizer, teacher, *blocks)
    assert all(torch.equal(plain[name], aligned[name]) for name in plain)


def test_clean_input_is_the_batch_before_masking(tokenizer):
    texts = [{"input_ids": [5 + i % len(WORDS) for i in range(n)], "sample_id": n, "epoch": 1} for n in (9, 20)]
    batch, plain = TextCollator(tokenizer, clean_teacher_input=True)(texts), TextCollator(tokenizer)(texts)
    clean = batch.pop("teacher_input_ids")
    assert batch.keys() == plain.keys() and all(torch.equal(batch[name], plain[name]) for name in plain)
    labels, rows = batch["masked_labels"], torch.arange(2)[:, None]
    used = labels != -100
    assert torch.equal(clean[rows, batch["masked_positions"]][used], labels[used])
    restored = batch["input_ids"].clone()
    restored[rows.expand_as(used)[used], batch["masked_positions"][used]] = labels[used]
    assert torch.equal(clean, restored)


def test_data_and_teacher_that_do_not_fit_are_refused(tokenizer):
    teacher, _ = make_tokenizer_with_specials(tokenizer)
    with pytest.raises(ValueError, match="no segments.*load_text_blocks.*teacher_tokenizer"):
        collate(tokenizer, teacher, {"input_ids": [5], "sample_id": 0, "epoch": 0})
    with pytest.raises(ValueError, match="different lengths"):
        collate(tokenizer, teacher, sample([0, 1], [0, 1]) | {"segments": np.zeros(3, np.uint8)})
    with pytest.raises(ValueError, match="always reads clean text"):
        TextCollator(tokenizer, teacher_tokenizer=teacher, clean_teacher_input=True)
