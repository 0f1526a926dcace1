"""Aligns the tokens of student and teacher by segments of the text, and divides the teacher's among the blocks.

The student's blocks have `block_tokens` tokens each, whichever teacher is used. A segment (see segments.py) that
crosses the edge of a block is dropped: its tokens stay, but belong to no segment, and the teacher's go to the block in
which the segment begins. If a block has more teacher tokens than the teacher reads at once, it is read in several
windows. No window begins inside a segment. If a text or sentence ends in the second half of a window's maximum length,
the next window begins there.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from .segments import NONE, classes_of, cut, sentence_ends, without_spaces
from .tokenization import tokenize_with_spans

LEAST_ALIGNED = 0.5  # a block is poor if a smaller share of its tokens is aligned
MOST_POOR_BLOCKS, MOST_POOR_AT_START, START_BLOCKS = 0.01, 0.5, 100  # allowed share: of all blocks, of the first 100


class AlignedTexts(NamedTuple):
    """The alignment of some texts.

    Attributes:
        segments: `[n]` segment of each of the student's tokens, -1 for none.
        teacher_ids: `[m]` the teacher's tokens.
        teacher_segments: `[m]` segment of each teacher token, -1 for none.
        places: `[m]` index of the student's token with which each teacher token is stored; determines its block.
        ends: `[m]` whether a text or sentence ends with each teacher token.
    """

    segments: np.ndarray
    teacher_ids: np.ndarray
    teacher_segments: np.ndarray
    places: np.ndarray
    ends: np.ndarray


class Tokens(NamedTuple):
    """Token ids of each text, and the span of each token in its text `[n, 2]`."""

    ids: list[list[int]]
    spans: np.ndarray

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> "Tokens":
        return cls(*tokenize_with_spans(tokenizer, texts))


def align(texts: Sequence[str], student: Tokens, teacher: Tokens, dtype: np.dtype, same: bool) -> AlignedTexts:
    """Aligns the tokens of some texts.

    Args:
        texts: The texts.
        student, teacher: The tokens of the texts.
        dtype: Type of the teacher's ids.
        same: Whether both tokenizers are the same. Then each token is a segment, even one without text.
    """
    starts = np.cumsum([0, *map(len, texts)])
    classes = classes_of("".join(texts))
    counts = [np.array([len(ids) for ids in tokens.ids], np.int64) for tokens in (student, teacher)]
    spans = [
        without_spaces(tokens.spans + np.repeat(starts[:-1], count)[:, None], classes)
        for tokens, count in zip((student, teacher), counts)
    ]
    if same:
        ours = theirs = np.arange(len(spans[0]))
    else:
        ours, theirs = cut(len(classes), *spans)
    in_text = counts[1] > 0
    after = np.cumsum(counts[1])[in_text]
    places = np.append(_first_and_last(ours)[0], NONE)[theirs]
    text_begins = after - counts[1][in_text]
    places[text_begins] = np.maximum(places[text_begins], (np.cumsum(counts[0]) - counts[0])[in_text])
    np.maximum.accumulate(places, out=places)
    ends = np.append(sentence_ends(classes), False)[spans[1][:, 1] - 1]
    ends[after - 1] = True
    ids = np.fromiter(chain.from_iterable(teacher.ids), dtype, len(theirs))
    return AlignedTexts(ours, ids, theirs, places, ends)


class AlignmentCutter:
    """Divides aligned texts, in order, into blocks, and makes the rows of the files that store their alignment.

    The files, for N blocks, M tokens of the teacher and W windows:

    - `segments.npy` `[N, block_tokens]`: segment of each of the student's tokens, numbered 0, 1, ... in each block;
      the largest value means none;
    - `teacher_ids.npy` `[M]`: the teacher's tokens, without special ones;
    - `teacher_segments.npy` `[M]`: segment of each teacher token;
    - `windows.npy` `[W]`: number of tokens in each window;
    - `ends.npy` `[N, 2]`: number of the teacher's tokens, and of windows, up to the end of each block.

    Args:
        block_tokens: Tokens per block.
        room: Maximum number of tokens in a window; `None` if the teacher has no limit.
        dtype: Type of the teacher's ids.
    """

    def __init__(self, block_tokens: int, room: int | None, dtype: np.dtype):
        self.block_tokens, self.room = block_tokens, room
        stored = next(np.dtype(t) for t in (np.uint8, np.uint16, np.uint32) if block_tokens < np.iinfo(t).max)
        self.files: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
            "segments.npy": (stored, (block_tokens,)),
            "teacher_ids.npy": (dtype, ()),
            "teacher_segments.npy": (stored, ()),
            "windows.npy": (np.dtype(np.uint32), ()),
            "ends.npy": (np.dtype(np.uint64), (2,)),
        }
        names = ("blocks", "segments", "aligned_tokens", "teacher_tokens", "aligned_teacher_tokens", "windows",
                 "segments_across_blocks", "segments_too_long", "poor_blocks")  # fmt: skip
        self.resume({"counts": dict.fromkeys(names, 0), "rest": [[], [], [], [], []]})

    def state(self) -> dict[str, Any]:
        """Returns the state from which the next piece continues, as JSON values."""
        return {"counts": self.counts, "rest": [part.tolist() for part in self._rest]}

    def resume(self, state: dict[str, Any]) -> None:
        """Continues from what [`state`] returned."""
        types: tuple[Any, ...] = (np.int64, self.files["teacher_ids.npy"][0], np.int64, np.int64, np.bool_)
        self._rest = AlignedTexts(*(np.array(part, kind) for part, kind in zip(state["rest"], types)))
        self.counts: dict[str, int] = state["counts"]

    def summary(self) -> dict[str, Any]:
        """Returns the counts over all blocks, for `info.json`."""
        counts, tokens = self.counts, self.counts["blocks"] * self.block_tokens
        return {
            "segments": counts["segments"],
            "aligned_share": round(counts["aligned_tokens"] / tokens, 6),
            "tokens_in_no_segment": tokens - counts["aligned_tokens"],
            "teacher_tokens": counts["teacher_tokens"],
            "teacher_tokens_in_no_segment": counts["teacher_tokens"] - counts["aligned_teacher_tokens"],
            "teacher_tokens_per_token": round(counts["teacher_tokens"] / tokens, 4),
            "windows_per_block": round(counts["windows"] / counts["blocks"], 4),
            **{name: counts[name] for name in ("segments_across_blocks", "segments_too_long", "poor_blocks")},
        }

    def add(self, texts: AlignedTexts) -> dict[str, np.ndarray]:
        """Adds texts; returns the rows of the blocks that they complete, by file name.

        Raises:
            ValueError: More than half of the first blocks are poor.
        """
        rest, size = self._rest, self.block_tokens
        shift = int(rest.segments.max(initial=NONE)) + 1
        ours, theirs = (
            np.concatenate([old, np.where(new >= 0, new + shift, NONE)])
            for old, new in ((rest.segments, texts.segments), (rest.teacher_segments, texts.teacher_segments))
        )
        places = np.concatenate([rest.places, texts.places + len(rest.segments)])
        ids, ends = np.concatenate([rest.teacher_ids, texts.teacher_ids]), np.concatenate([rest.ends, texts.ends])
        blocks = len(ours) // size
        tokens = int(np.searchsorted(places, blocks * size))  # of the teacher, in these blocks

        first, last = _first_and_last(ours)
        their_first, their_last = _first_and_last(theirs)
        block = first // size
        across = block != last // size
        long = their_last - their_first >= (self.room or np.inf)
        kept = ~(across | long)
        number = np.cumsum(kept) - 1
        before = np.concatenate([[0], np.cumsum(np.bincount(block[kept], minlength=blocks + 1))])
        number = np.append(np.where(kept, number - before[block], NONE), NONE)
        ours, theirs = number[ours], number[theirs]

        # Differences of the number of segments that reach across the left edge of each token.
        inside = np.zeros(len(theirs) + 1, np.int64)
        inside[their_first[kept] + 1] += 1
        inside[their_last[kept] + 1] -= 1
        may_cut = np.cumsum(inside[: tokens + 1]) == 0
        counts = np.bincount(places[:tokens] // size, minlength=blocks)
        windows, windows_of = self._windows(counts, may_cut, ends)
        self._rest = AlignedTexts(
            ours[blocks * size :], ids[tokens:], theirs[tokens:], places[tokens:] - blocks * size, ends[tokens:]
        )
        ours, theirs = ours[: blocks * size].reshape(blocks, size), theirs[:tokens]
        totals = self.counts["teacher_tokens"], self.counts["windows"]
        rows = {
            "segments.npy": ours,
            "teacher_ids.npy": ids[:tokens],
            "teacher_segments.npy": theirs,
            "windows.npy": windows,
            "ends.npy": np.stack([np.cumsum(counts) + totals[0], np.cumsum(windows_of) + totals[1]], axis=1),
        }
        aligned = (ours >= 0).sum(1)
        found = (blocks, before[blocks], aligned.sum(), tokens, (theirs >= 0).sum(), len(windows), across.sum(),
                 long.sum(), (aligned < LEAST_ALIGNED * size).sum())  # fmt: skip
        self.counts = {name: value + int(more) for (name, value), more in zip(self.counts.items(), found)}
        if self.counts["blocks"] - blocks < START_BLOCKS <= self.counts["blocks"]:
            self.check(MOST_POOR_AT_START)
        return {name: rows[name].astype(dtype) for name, (dtype, _) in self.files.items()}

    def _windows(self, counts: np.ndarray, may_cut: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the number of tokens in each window `[W]`, and the number of windows of each block `[N]`.

        Args:
            counts: `[N]`, the number of teacher tokens of each block.
            may_cut: Whether a window may begin at each token, and after the last one.
            ends: Whether a text or sentence ends with each token.
        """
        if self.room is None or counts.max(initial=0) <= self.room:
            return counts, np.ones_like(counts)
        place = np.arange(len(may_cut))
        bounds = np.maximum.accumulate(np.where(may_cut, place, 0))
        good = may_cut[1:] & ends[: len(may_cut) - 1]
        good_bounds = np.maximum.accumulate(np.where(np.append(False, good), place, 0))
        end, block = np.cumsum(counts), np.arange(len(counts))
        begin, begins, blocks = end - counts, [], []
        while len(begin):  # the first window of every block, then the second one of blocks that need more, ...
            begins.append(begin)
            blocks.append(block)
            more = begin + self.room < end
            begin, end, block = begin[more], end[more], block[more]
            good, most = good_bounds[begin + self.room], bounds[begin + self.room]
            begin = np.where(good > begin + self.room // 2, good, most)
        starts = np.sort(np.concatenate(begins))
        return np.diff(np.append(starts, place[-1])), np.bincount(np.concatenate(blocks), minlength=len(counts))

    def check(self, most_poor_blocks: float = MOST_POOR_BLOCKS) -> None:
        """Refuses texts whose tokens can hardly be aligned.

        Raises:
            ValueError: In more than this share of the blocks, less than half of the tokens are aligned.
        """
        blocks, poor = self.counts["blocks"], self.counts["poor_blocks"]
        if poor > blocks * most_poor_blocks:
            share = self.counts["aligned_tokens"] / (blocks * self.block_tokens)
            what = "no token is" if not share else f"only {share:.1%} of the tokens are"
            raise ValueError(
                f"{what} aligned with the teacher's: in {poor:,} of {blocks:,} blocks less than half are, but that is "
                f"allowed in at most {MOST_POOR_BLOCKS:.0%} of them. The tokenizers read different characters of this "
                "text: use a teacher and a student that were made for its language and script"
            )


def _first_and_last(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the first and the last token of each segment."""
    tokens = np.flatnonzero(segments >= 0)
    numbers = segments[tokens]
    first = np.empty(int(numbers.max(initial=NONE)) + 1, np.int64)
    last = np.empty_like(first)
    last[numbers], first[numbers[::-1]] = tokens, tokens[::-1]
    return first, last
