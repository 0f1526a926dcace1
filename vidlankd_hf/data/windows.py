"""Windows: consecutive captions of a video, joined to texts of limited length, differently in every epoch.

A line is a caption, or a piece of a caption that is longer than a window.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from .captions import Caption, CaptionError
from .fingerprint import hash64
from .tokenization import counts_spaces, lengths_in_text, token_spans


class Windows:
    """The windows of several videos, numbered one video after another.

    The columns are Arrow arrays, either in memory (from [`make_windows`]) or memory-mapped from files.

    Args:
        lines: Table of the videos' lines, one video after another: `text`, `tokens`, `start` and `end` (seconds).
        videos: Table with the `first_line` and the `first_window` of each video.
        max_tokens: Maximum number of tokens of a window.
    """

    def __init__(self, lines: pa.Table, videos: pa.Table, max_tokens: int):
        self.max_tokens, self.texts = max_tokens, lines["text"].chunk(0)
        self.tokens, self.starts, self.ends = (_array(lines, name) for name in ("tokens", "start", "end"))
        self.first_lines, self.first_windows = (_array(videos, name) for name in ("first_line", "first_window"))

    @property
    def content_fingerprint(self) -> str:
        """Hash of all lines and of their division into videos and windows."""
        digest = hashlib.sha256()
        for text in self.texts.to_pylist():
            digest.update(f"{len(text)}:{text}".encode())
        for array in (self.tokens, self.starts, self.ends, self.first_lines, self.first_windows):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def locate(self, window: int) -> tuple[int, int]:
        """The position in `videos` of the video that a window belongs to, and the window's number in that video."""
        video = int(np.searchsorted(self.first_windows, window, side="right")) - 1
        return video, window - int(self.first_windows[video])

    def read(self, video: int, number: int, shift: float) -> tuple[str, float, float]:
        """Reads a window.

        Args:
            video: Position of the video in `videos`.
            number: Number of the window in the video.
            shift: Shift of the tiling, from [`shift_of`].

        Returns:
            Text, start and end (seconds).
        """
        first, bounds = self._tile(video, shift)
        return self._span(first + bounds[number], first + bounds[number + 1])

    def read_around(self, video: int, number: int, shift: float, count: int) -> list[str]:
        """The texts of the nearest windows of the same video: up to `count` // 2 before and as many after a window.

        Args:
            video, number, shift: See [`read`].
            count: Number of texts together with the window's own.

        Returns:
            The other windows' texts in order of time, fewer at the edges of the video.
        """
        first, bounds = self._tile(video, shift)
        reach, windows = count // 2, len(bounds) - 1
        numbers = range(max(0, number - reach), min(windows, number + reach + 1))
        return [self._span(first + bounds[n], first + bounds[n + 1])[0] for n in numbers if n != number]

    def read_video(self, video: int) -> list[tuple[str, float, float]]:
        """Text, start and end (seconds) of all windows of a video, with shift 0."""
        first, bounds = self._tile(video, 0.0)
        return [self._span(first + begin, first + end) for begin, end in zip(bounds, bounds[1:])]

    def _tile(self, video: int, shift: float) -> tuple[int, list[int]]:
        """The first line of a video, and the bounds of its windows relative to it."""
        first = int(self.first_lines[video])
        last = int(self.first_lines[video + 1]) if video + 1 < len(self.first_lines) else len(self.tokens)
        return first, tile(self.tokens[first:last], self.max_tokens, shift)

    def _span(self, first: int, last: int) -> tuple[str, float, float]:
        text = " ".join(self.texts[first:last].to_pylist())
        return text, float(self.starts[first:last].min()), float(self.ends[first:last].max())


def _array(table: pa.Table, name: str) -> np.ndarray:
    return table[name].chunk(0).to_numpy()


def make_windows(
    by_video: Mapping[str, Sequence[Caption]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[pa.Table, pa.Table, int]:
    """Divides captions into lines and counts the windows that tile them.

    Args:
        by_video: Captions of each video, sorted by time.
        tokenizer: Counts the tokens.
        max_tokens: Maximum number of tokens of a window.

    Returns:
        The tables `lines` and `videos` for [`Windows`], and the number of windows.
    """
    lines, first_lines, first_windows, windows = list[tuple[Caption, int]](), [], [], 0
    spaced = counts_spaces(tokenizer)
    for captions in by_video.values():
        divided = divide(captions, tokenizer, max_tokens, spaced)
        first_lines.append(len(lines))
        first_windows.append(windows)
        windows += len(tile(np.array([tokens for _, tokens in divided]), max_tokens)) - 1
        lines += divided
    columns = {
        "text": pa.array([line.text for line, _ in lines], pa.large_string()),
        "tokens": pa.array([tokens for _, tokens in lines], pa.int32()),
        "start": pa.array([line.start for line, _ in lines], pa.float64()),
        "end": pa.array([line.end for line, _ in lines], pa.float64()),
    }
    videos = {"first_line": pa.array(first_lines, pa.int64()), "first_window": pa.array(first_windows, pa.int64())}
    return pa.table(columns), pa.table(videos), windows


def tile(tokens: np.ndarray, max_tokens: int, shift: float = 0.0) -> list[int]:
    """Divides lines into as few windows of at most `max_tokens` tokens as possible.

    Many tilings have the minimum number of windows. Shift 0 fills the windows from the first line on; shift 1 fills
    them from the last line back. In between, each window starts at that fraction of the way from its latest to its
    earliest possible line. So the number of windows is the same for every shift.

    Args:
        tokens: `[N]` tokens of each line, N >= 1, each from 1 to `max_tokens`.
        max_tokens: Maximum number of tokens of a window.
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
    """The shift of a video's tiling: 0 in epoch 0 or without a seed, else a pure function of (seed, epoch, video)."""
    if epoch == 0 or seed is None:
        return 0.0
    return hash64(f"{seed}/{epoch}/{video}") / 2**64


def check_candidates(count: int | None) -> None:
    """Raises a `ValueError` if a bag of `count` texts cannot have as many before as after the window's own."""
    if count is not None and (count < 1 or count % 2 == 0):
        raise ValueError(
            f"mil_candidates is {count}: give an odd number such as 5, the clip's own text and as many before as "
            "after it"
        )


def divide(
    captions: Sequence[Caption], tokenizer: PreTrainedTokenizerBase, max_tokens: int, spaced: bool | None = None
) -> list[tuple[Caption, int]]:
    """Divides captions of more than `max_tokens` tokens between words; times are divided in proportion to the tokens.

    Args:
        captions: Captions of one video, sorted by time.
        tokenizer: Counts the tokens.
        max_tokens: Maximum number of tokens of a caption.
        spaced: Result of [`counts_spaces`], if it is known.

    Returns:
        The captions, each with the number of tokens that it has in a window, after another caption and a space.

    Raises:
        CaptionError: A caption has no token, or cannot be tokenized.
    """
    spaced = counts_spaces(tokenizer) if spaced is None else spaced
    texts = [caption.text for caption in captions]
    try:
        spans = token_spans(tokenizer, texts)
        counts = lengths_in_text(tokenizer, texts) if spaced else [len(span) for span in spans]
    except Exception as error:  # each tokenizer raises different errors
        raise _failing(captions, tokenizer, error) from error
    lines = []
    for caption, offsets, count in zip(captions, spans, counts):
        if not offsets:
            raise CaptionError(caption, "has no tokens: remove it")
        if count <= max_tokens:
            lines.append((caption, count))
        else:
            lines += _pieces(caption, offsets, max_tokens, tokenizer, spaced)
    return lines


def _failing(captions: Sequence[Caption], tokenizer: PreTrainedTokenizerBase, error: Exception) -> Exception:
    for caption in captions:
        try:
            token_spans(tokenizer, [caption.text])
        except Exception as reason:
            return CaptionError(caption, f"cannot be tokenized ({reason!r}): correct or remove it")
    return error


def _pieces(
    caption: Caption, offsets: list[tuple[int, int]], max_tokens: int, tokenizer: PreTrainedTokenizerBase, spaced: bool
) -> list[tuple[Caption, int]]:
    """Divides a caption into pieces of at most `max_tokens` tokens, counted as separate texts."""
    budget = max_tokens
    while True:
        pieces = _divide_between_words(caption, offsets, budget)
        if not spaced:
            return pieces
        counts = lengths_in_text(tokenizer, [piece.text for piece, _ in pieces])
        excess = max(counts) - max_tokens
        if excess <= 0 or budget == 1:
            return [(piece, count) for (piece, _), count in zip(pieces, counts)]
        budget = max(1, budget - excess)


def _divide_between_words(
    caption: Caption, offsets: list[tuple[int, int]], max_tokens: int
) -> list[tuple[Caption, int]]:
    text, pieces, first = caption.text, [], 0
    seconds_per_token = (caption.end - caption.start) / len(offsets)
    while first < len(offsets):
        last = min(first + max_tokens, len(offsets))
        if last < len(offsets):
            starts_word = (i for i in range(last, first, -1) if _starts_word(text, offsets, i))
            last = next(starts_word, None) or _character_end(offsets, first, last)
        piece = caption._replace(
            text=text[offsets[first][0] : offsets[last - 1][1]].strip(),
            start=caption.start + first * seconds_per_token,
            end=caption.start + last * seconds_per_token,
        )
        pieces.append((piece, last - first))
        first = last
    return pieces


def _starts_word(text: str, offsets: list[tuple[int, int]], i: int) -> bool:
    """Whether a word starts with token `i`. In some tokenizers the space is part of the token."""
    place = offsets[i][0]
    return offsets[i - 1][1] <= place and (text[place - 1].isspace() or text[place].isspace())


def _character_end(offsets: list[tuple[int, int]], first: int, last: int) -> int:
    """The nearest token at which a character ends: in byte-level tokenizers it can have several."""
    for i in (*range(last, first, -1), *range(last + 1, len(offsets))):
        if offsets[i - 1][1] <= offsets[i][0]:
            return i
    return len(offsets)
