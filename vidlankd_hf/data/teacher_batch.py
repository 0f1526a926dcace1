"""The part of a batch that a teacher with another tokenizer reads, and the segments of both models' tokens."""

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from .segments import NONE
from .tokenization import special_tokens_around


class TeacherBatch:
    """Adds the teacher's tokens and the segments of both models to a batch of aligned blocks.

    In addition to `input_ids`, a sample has `segments`, the segment of each of these tokens; `teacher_ids` and
    `teacher_segments`, the teacher's tokens of the block, without special tokens, and their segments; and
    `teacher_windows`, the number of tokens in each of the teacher's windows. Segments are numbered 0, 1, ... in each
    block; the largest value of the unsigned type means none.

    Args:
        tokenizer: The teacher's tokenizer.
        causal: Whether the teacher is causal: its tokens see only those before them. [CLS] is then in no segment.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, causal: bool = False):
        first, last = special_tokens_around(tokenizer)
        self._first, self._last = (np.array(ids, np.int64) for ids in (first, last))
        self._pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
        self._cls_is_segment, self._sep_is_segment = bool(first) and not causal, bool(last)

    def __call__(self, samples: list[dict[str, Any]], ordinary: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `segments`, `segment_mask`, `teacher_input_ids`, `teacher_attention_mask` (if something is padded),
        `teacher_positions` and `teacher_segments`; see [`TextCollator`].

        Args:
            samples: Aligned blocks.
            ordinary: `[B, L]`, which tokens of the student are neither special tokens nor padding.

        Raises:
            ValueError: The samples have no alignment, or one whose length differs from the text's.
        """
        for name in ("segments", "teacher_ids", "teacher_segments", "teacher_windows"):
            if name not in samples[0]:
                raise ValueError(
                    f"the samples have no {name}, but the teacher has another tokenizer: prepare the text for it with "
                    "load_text_blocks(..., teacher_tokenizer=...)"
                )
        lengths = ordinary.sum(1)
        if [len(sample["segments"]) for sample in samples] != lengths.tolist():
            raise ValueError("a text and its segments have different lengths: give one segment for each token")
        shift = int(self._cls_is_segment)
        segments = np.full(ordinary.shape, NONE, np.int64)
        segments[ordinary] = _numbers([sample["segments"] for sample in samples], shift)
        counts = np.maximum(segments.max(1) + 1, shift)
        rows = np.arange(len(samples))
        if self._cls_is_segment:
            segments[:, 0] = 0
        if self._sep_is_segment:
            segments[rows, lengths + 1] = counts
            counts = counts + 1
        fields = {"segments": segments, "segment_mask": (np.arange(counts.max()) < counts[:, None]).astype(np.int64)}
        return fields | self._windows(samples, counts)

    def _windows(self, samples: list[dict[str, Any]], counts: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the teacher's windows, and the positions of its tokens in them.

        Args:
            samples: Aligned blocks.
            counts: `[B]`, the number of segments of each block, special tokens included.
        """
        block = np.repeat(np.arange(len(samples)), [len(sample["teacher_windows"]) for sample in samples])
        lengths = np.concatenate([sample["teacher_windows"] for sample in samples]).astype(np.int64)[:, None]
        before, after = len(self._first), len(self._last)
        places = np.arange(before + int(lengths.max()) + after)
        ids = np.full((len(block), len(places)), self._pad_id, np.int64)
        segments = np.full(ids.shape, NONE, np.int64)
        ordinary = (places >= before) & (places < before + lengths)
        ids[ordinary] = np.concatenate([sample["teacher_ids"] for sample in samples])
        shift = int(self._cls_is_segment)
        segments[ordinary] = _numbers([sample["teacher_segments"] for sample in samples], shift)
        ids[:, :before] = self._first
        ends = np.arange(len(block))[:, None], before + lengths + np.arange(after)
        ids[ends] = self._last
        placed = ordinary
        if self._cls_is_segment:
            placed[:, :before], segments[:, :before] = True, 0
        if self._sep_is_segment:
            placed[ends], segments[ends] = True, counts[block][:, None] - 1
        found = np.bincount(block, placed.sum(1), len(samples)).astype(np.int64)
        used = np.arange(max(1, found.max())) < found[:, None]
        positions, segment_of = np.zeros(used.shape, np.int64), np.full(used.shape, NONE, np.int64)
        positions[used], segment_of[used] = np.flatnonzero(placed), segments[placed]
        fields = {"teacher_input_ids": ids, "teacher_positions": positions, "teacher_segments": segment_of}
        if (lengths != lengths[0]).any():
            fields["teacher_attention_mask"] = (places < before + lengths + after).astype(np.int64)
        return fields


def _numbers(segments: list[np.ndarray], shift: int) -> np.ndarray:
    """Converts stored segments to signed numbers that start at `shift`, with -1 for none."""
    stored = np.concatenate(segments)
    numbers = stored.astype(np.int64) + shift
    numbers[stored == np.iinfo(stored.dtype).max] = NONE
    return numbers
