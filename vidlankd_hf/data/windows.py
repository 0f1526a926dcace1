"""Windows of text that tile a video's captions, other ones in every epoch."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from .captions import Caption
from .features import FeatureStore


def tile(tokens: np.ndarray, max_tokens: int, shift: float = 0.0) -> list[int]:
    """Divides lines into the fewest windows of at most `max_tokens` tokens.

    Of the tilings with that many windows, shift 0 is the one that fills the windows from the first line on, shift 1
    the one that fills them from the last line back; in between every window starts that share of the way from its
    latest to its earliest possible line. So the number of windows is the same for every shift.

    Args:
        tokens: [N] tokens of each line, N >= 1, each from 1 to `max_tokens`.
        max_tokens: Most tokens of a window.
        shift: From 0 to 1.

    Returns:
        The first line of each window, and N.
    """
    before = np.concatenate([[0], np.cumsum(tokens)])
    furthest = (np.searchsorted(before, before + max_tokens, side="right") - 1).tolist()  # end of a window from here
    nearest = np.searchsorted(before, before - max_tokens, side="left").tolist()  # start of a window that ends here
    latest, earliest = [0], [len(tokens)]
    while latest[-1] < len(tokens):
        latest.append(furthest[latest[-1]])
    while earliest[-1] > 0:
        earliest.append(nearest[earliest[-1]])
    bounds = [0]
    for late, early in zip(latest[1:-1], earliest[-2:0:-1]):
        wanted = late - round(shift * (late - early))
        bounds.append(min(max(wanted, bounds[-1] + 1), furthest[bounds[-1]]))
    return [*bounds, len(tokens)]


def shift_of(seed: int | None, epoch: int, video: str) -> float:
    """The shift of a video's tiling: 0 in epoch 0 and without a seed, else a pure function of (seed, epoch, video)."""
    if epoch == 0 or seed is None:
        return 0.0
    digest = hashlib.blake2b(f"{seed}/{epoch}/{video}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def divide(
    captions: Sequence[Caption], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[tuple[Caption, int]]:
    """Captions and their tokens, each caption of more than `max_tokens` in pieces: between words, its time in
    proportion."""
    texts = [caption.text for caption in captions]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    lines = []
    for caption, offsets in zip(captions, encoded["offset_mapping"]):
        if not offsets:
            raise ValueError(
                f"the caption {caption.text!r} of {caption.video} has no token in the vocabulary: remove it"
            )
        lines += _pieces(caption, offsets, max_tokens)
    return lines


def _pieces(caption: Caption, offsets: list[tuple[int, int]], max_tokens: int) -> list[tuple[Caption, int]]:
    text, pieces, first = caption.text, [], 0
    seconds_per_token = (caption.end - caption.start) / len(offsets)
    while first < len(offsets):
        last = min(first + max_tokens, len(offsets))
        if last < len(offsets):
            starts_word = (i for i in range(last, first, -1) if text[offsets[i][0] - 1].isspace())
            last = next(starts_word, last)
        piece = caption._replace(
            text=text[offsets[first][0] : offsets[last - 1][1]],
            start=caption.start + first * seconds_per_token,
            end=caption.start + last * seconds_per_token,
        )
        pieces.append((piece, last - first))
        first = last
    return pieces


class WindowReader:
    """Rows of windows -> text, times and features, as the transform of the data set of [`load_video_text`].

    A row says which window it is of which lines. In epoch 0 the windows are those in the row; in another epoch
    [`EpochDataset`] asks for [`read`](self.read), and the lines are tiled with a shift that is a pure function of
    (seed, epoch, video). No state changes, so order, workers and resuming do not matter.

    Args:
        store: The features.
        lines: Of all videos, one video after another, with their tokens.
        max_tokens: Most tokens of a window.
        seed: Of the shifts; None leaves the windows the same in every epoch.
        own_clips: False where each row's clip is another video's, which no shift changes.
    """

    def __init__(
        self,
        store: FeatureStore,
        lines: list[tuple[Caption, int]],
        max_tokens: int,
        seed: int | None,
        own_clips: bool,
    ):
        self.store, self.max_tokens, self.seed, self.own_clips = store, max_tokens, seed, own_clips
        self.texts = pa.array([line.text for line, _ in lines], pa.large_string())
        self.tokens = np.array([tokens for _, tokens in lines], np.int32)
        self.starts = np.array([line.start for line, _ in lines])
        self.ends = np.array([line.end for line, _ in lines])

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return self.read(rows, [0] * len(rows["id"]))

    def read(self, rows: dict[str, list], epochs: Sequence[int]) -> dict[str, list]:
        """The windows of `rows` in `epochs`, one each."""
        kept = {name: rows[name] for name in ("id", "video")}
        windows = [self._window({name: rows[name][i] for name in rows}, int(epoch)) for i, epoch in enumerate(epochs)]
        texts, starts, ends = (list(column) for column in zip(*windows))
        clips = [self.store.read(*span) for span in zip(rows["video"], starts, ends)]
        features = {"video_features": [clip[0] for clip in clips], "times": [clip[1] for clip in clips]}
        return {**kept, "text": texts, "start": starts, "end": ends, **features}

    def windows(self, first: int, last: int, shift: float = 0.0) -> list[tuple[str, float, float]]:
        """(text, start, end) of the windows that tile the lines from `first` to before `last`."""
        bounds = [first + bound for bound in tile(self.tokens[first:last], self.max_tokens, shift)]
        return [self._span(a, b) for a, b in zip(bounds, bounds[1:])]

    def _span(self, a: int, b: int) -> tuple[str, float, float]:
        return " ".join(self.texts[a:b].to_pylist()), float(self.starts[a:b].min()), float(self.ends[a:b].max())

    def _window(self, row: dict, epoch: int) -> tuple[str, float, float]:
        first, last, number = row["first_line"], row["last_line"], row["window"]
        if epoch == 0 or self.seed is None:
            return row["text"], row["start"], row["end"]
        shift = shift_of(self.seed, epoch, row["id"].rpartition("#")[0])
        bounds = tile(self.tokens[first:last], self.max_tokens, shift)
        text, start, end = self._span(first + bounds[number], first + bounds[number + 1])
        return (text, start, end) if self.own_clips else (text, row["start"], row["end"])
