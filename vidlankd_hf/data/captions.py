"""Reads captions: which words belong to which span of which video."""

import bz2
import gzip
import itertools
import logging
import lzma
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .caption_formats import READERS, SUBTITLE_SUFFIXES, detect_format, has_word_times, suffix_of, video_name

logger = logging.getLogger(__name__)

SPEECH_FORMATS = ("srt", "vtt", "howto100m")  # lines without text are common here: they clear the screen
WRONG_TIMES = ("howto100m", "activitynet")  # as published, a few lines end when, or before, they start
MAX_CHARACTERS = 1_000_000  # in one caption; about a long novel
MAX_GAP = 0.5  # seconds between the end of a line and the start of one that repeats its words
MAX_REPEATED_WORDS = 200
_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}


class Caption(NamedTuple):
    """One line of speech or description; `start` and `end` in seconds; an `end` of None is the end of the video."""

    video: str
    start: float
    end: float | None
    text: str


def read_captions(path: str | Path, format: str | None = None, remove_overlap: bool | None = None) -> list[Caption]:
    """Reads the captions of one or many videos from a file, or from a folder with a subtitle file for each video.

    | format | content | video id |
    |---|---|---|
    | `jsonl` | lines of `{"video", "start", "end", "text"}`; `start` and `end` are optional | `video` |
    | `srt`, `vtt` | a subtitle file, or a folder of them | the file name without suffix |
    | `howto100m` | `{id: {"start": [], "end": [], "text": []}}`, or a csv file (`start,end,text`) per video | the id |
    | `activitynet` | `{id: {"timestamps": [[start, end]], "sentences": []}}` | the id, including `v_` |
    | `youcook2` | `{"database": {id: {"annotations": [{"segment": [start, end], "sentence"}]}}}` | the id |
    | `msvd` | lines of `id<tab>sentence`; a sentence describes the complete video | the id |

    A folder is searched for .srt, .vtt and .csv files, including subfolders; other files are ignored. Files may be
    compressed (.xz, .gz, .bz2). Lines without text, common in subtitles and HowTo100M, are left out. Two faults of
    ActivityNet and HowTo100M as published are corrected: swapped times are put in order, and a line without duration
    gets one second. The log counts each.

    Args:
        path: The file or folder.
        format: One of the formats above; by default detected from suffix and content.
        remove_overlap: Whether to apply [`remove_rolling_overlap`]. By default it is applied where the problem occurs:
            to HowTo100M, and to WebVTT with times inside its lines, which is how YouTube writes recognized speech.

    Returns:
        The captions, in the order of the file, or of the sorted files.

    Raises:
        ValueError: The file does not exist, is not UTF-8, has an unknown format or does not follow its format, has no
            captions, names a video twice or outside the folder, or has a caption that is empty, too long or whose
            times are not 0 <= start < end. The message names file and line.
    """
    return list(iterate_captions(path, format, remove_overlap))


def iterate_captions(
    path: str | Path, format: str | None = None, remove_overlap: bool | None = None
) -> Iterator[Caption]:
    """Like [`read_captions`], but an iterator: holds the text of one file and the captions of one video at a time."""
    path = Path(path)
    if format not in (None, *READERS):
        raise ValueError(f"format is {format!r}: choose one of {', '.join(READERS)}")
    corrections, empty = Counter[str](), True
    for file in caption_files(path):
        text = _read_text(file)
        kind = format or detect_format(file, text)
        found = _captions(READERS[kind](text, file), kind, corrections)
        rolling = kind == "howto100m" or (kind == "vtt" and has_word_times(text))
        if rolling if remove_overlap is None else remove_overlap:
            by_video = itertools.groupby(found, key=lambda caption: caption.video)
            found = itertools.chain.from_iterable(remove_rolling_overlap(spoken) for _, spoken in by_video)
        for caption in found:
            empty = False
            yield caption
    if empty:
        raise ValueError(f"{path} holds no caption: give video, start, end and text on each line, or subtitles")
    for correction, count in corrections.items():
        logger.warning("%s: %d captions %s", path, count, correction)


def remove_rolling_overlap(captions: Iterable[Caption]) -> list[Caption]:
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
        keys = ["".join(filter(str.isalnum, word)).casefold() or word for word in words]
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
    joined = [*line[: len(said)], None, *said]
    borders = [0] * len(joined)
    for i in range(1, len(joined)):
        n = borders[i - 1]
        while n and joined[i] != joined[n]:
            n = borders[n - 1]
        borders[i] = n + (joined[i] == joined[n])
    return borders[-1] if said else 0


def caption_files(path: Path) -> list[Path]:
    """The file itself, or the sorted subtitle files in a folder.

    Raises:
        ValueError: There is no such file or folder, or the folder holds no subtitles or two files for one video.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(
            f"captions {path} not found: give a .jsonl file with video, start, end and text on each line, a file of a "
            "published data set, or a folder of subtitles"
        )
    files = sorted(p for p in path.rglob("*") if p.is_file() and suffix_of(p) in SUBTITLE_SUFFIXES)
    if not files:
        raise ValueError(f"{path} holds no {', '.join(SUBTITLE_SUFFIXES)} file: give a folder of subtitle files")
    videos: dict[str, Path] = {}
    for file in files:
        other = videos.setdefault(video_name(file), file)
        if other != file:
            raise ValueError(f"{other} and {file} both belong to the video {video_name(file)!r}: keep one of them")
    return files


def _read_text(path: Path) -> str:
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): convert it, for example with iconv") from error
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _captions(rows: Iterator[tuple[str, Any, Any, Any, Any]], kind: str, corrections: Counter) -> Iterator[Caption]:
    """Checks rows of (where, video, start, end, text) and yields them as captions."""
    for where, video, start, end, text in rows:
        _check_video(video, where)
        if not isinstance(text, str):
            raise ValueError(f"{where}: text {text!r} must be a string")
        text = text.strip()
        if not text:
            if kind in SPEECH_FORMATS:
                corrections["without text were left out"] += 1
                continue
            raise ValueError(f"{where}: the caption of {video!r} is empty: video and text must be non-empty strings")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"{where}: the caption of {video!r} has {len(text):,} characters, but at most {MAX_CHARACTERS:,} are "
                "allowed: divide it, with the time of each part"
            )
        times = [start] if end is None else [start, end]
        if not all(isinstance(t, (int, float)) and not isinstance(t, bool) and math.isfinite(t) for t in times):
            raise ValueError(f"{where}: start {start!r} and end {end!r} must be numbers of seconds")
        if kind in WRONG_TIMES and end <= start:
            correction = "without duration got one second" if end == start else "with swapped times were corrected"
            corrections[correction] += 1
            start, end = (end, start) if end < start else (start, start + 1.0)
        if start < 0 or (end is not None and end <= start):
            raise ValueError(f"{where}: start {start} and end {end} must satisfy 0 <= start < end")
        yield Caption(video, float(start), None if end is None else float(end), text)


def _check_video(video: Any, where: str) -> None:
    if not isinstance(video, str) or not video.strip():
        raise ValueError(f"{where}: video {video!r} and text must be non-empty strings")
    path = PurePosixPath(video.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(ord(character) < 32 for character in video):
        raise ValueError(
            f"{where}: the video {video!r} leads out of the folder or is no file name: use the file name alone"
        )
