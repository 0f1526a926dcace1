"""Removes the text that automatic subtitles show twice, because a line scrolls up while the next one appears."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .captions import Caption

MAX_GAP = 0.5  # seconds between the end of a line and the start of one that repeats its words
MAX_REPEATED_WORDS = 200


def remove_rolling_overlap(captions: Iterable["Caption"]) -> list["Caption"]:
    """Removes the words of each caption that repeat the end of the captions before it.

    Automatic subtitles scroll: a line stays on the screen while the next one appears below it, and the file holds both
    each time. The longest run of words that ends the previous captions and begins this one is removed, if this caption
    starts at most half a second after the previous one ended. A single word is removed only if one of the two captions
    consists of this word; "very" after "is very" may have been said. Case and punctuation are ignored. The rest of a
    caption starts when the previous caption ends. If nothing is left of a caption, the previous one gets its time.

    Args:
        captions: One video after another; within a video, sorted by time.

    Returns:
        The captions that have text left, in the same order.
    """
    kept: list[Caption] = []
    video, said, previous = None, list[str](), list[str]()
    for caption in captions:
        words = caption.text.split()
        keys = [(word if word.isalnum() else "".join(filter(str.isalnum, word))).casefold() or word for word in words]
        end = kept[-1].end if caption.video == video else None
        touches = None not in (caption.end, end) and caption.start <= end + MAX_GAP
        said = said if touches else []
        repeated = _longest_overlap(said, keys)
        if repeated == 1 and min(len(keys), len(previous)) > 1:
            repeated = 0
        if repeated == len(keys):
            kept[-1] = kept[-1]._replace(end=max(kept[-1].end, caption.end))
        elif repeated:
            start = kept[-1].end if caption.start < kept[-1].end < caption.end else caption.start
            kept.append(caption._replace(start=start, text=" ".join(words[repeated:])))
        else:
            kept.append(caption)
        video, previous, said = caption.video, keys, (said + keys[repeated:])[-MAX_REPEATED_WORDS:]
    return kept


def _longest_overlap(said: list[str], line: list[str]) -> int:
    """The largest n for which the last n of `said` are the first n of `line`.

    Source: the prefix function of Knuth, Morris and Pratt (1977).
    """
    said = said[-len(line) :]  # no more can be equal
    joined = [*line[: len(said)], None, *said]
    borders = [0] * len(joined)
    for i in range(1, len(joined)):
        n = borders[i - 1]
        while n and joined[i] != joined[n]:
            n = borders[n - 1]
        borders[i] = n + (joined[i] == joined[n])
    return borders[-1] if said else 0
