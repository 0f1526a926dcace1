"""Captions: what is said, in which video, from when to when."""

import bz2
import gzip
import itertools
import logging
import lzma
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .caption_formats import READERS, SUBTITLE_SUFFIXES, detect_format, has_word_times, video_name

logger = logging.getLogger(__name__)

SPEECH_FORMATS = ("srt", "vtt", "howto100m")  # here a line without text clears the screen
WRONG_TIMES = ("howto100m", "activitynet")  # as published, a few lines end where or before they start
MAX_CHARACTERS = 1_000_000  # of one caption; a long novel
TOUCHING = 0.5  # seconds between a line and the one that repeats its tail, at most
REMEMBERED = 200  # words of what was said before that a line may repeat
_OPENERS = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}


class Caption(NamedTuple):
    """One line of speech or description; `start` and `end` in seconds, `end` is None for "to the end of the video"."""

    video: str
    start: float
    end: float | None
    text: str


def read_captions(path: str | Path, format: str | None = None, remove_overlap: bool | None = None) -> list[Caption]:
    """Reads the captions of one or many videos from a file, or from a folder of subtitle files, one a video.

    | format | what | video |
    |---|---|---|
    | `jsonl` | `{"video", "start", "end", "text"}` a line; `start` may be left out, `end` left out or null | `video` |
    | `srt`, `vtt` | a subtitle file, or a folder of them | the file's name without suffix |
    | `howto100m` | `{id: {"start": [], "end": [], "text": []}}`, or a csv a video with `start,end,text` | the id |
    | `activitynet` | `{id: {"timestamps": [[start, end]], "sentences": []}}` | the id, `v_` included |
    | `youcook2` | `{"database": {id: {"annotations": [{"segment": [start, end], "sentence"}]}}}` | the id |
    | `msvd` | `id<tab>sentence` a line; a sentence is about the whole video | the id |

    A folder is searched for .srt, .vtt and .csv, also in its subfolders; its other files, such as the videos, are let
    be. Files may be packed (.xz, .gz, .bz2). Subtitles and HowTo100M hold lines without text: they are left out. So
    are two faults of ActivityNet and HowTo100M as published: times that are swapped are put in order, and a line
    without duration gets a second. Each is counted in the log.

    Args:
        path: The file or folder.
        format: One of the above; by default found from suffix and content.
        remove_overlap: Whether [`remove_rolling_overlap`] is applied; by default where a format has that problem:
            HowTo100M, and WebVTT with times inside its lines, which is how YouTube writes recognised speech.

    Raises:
        ValueError: No such file, not UTF-8, of no known format or not as its format says, without captions, two files
            for one video, a video whose name leads out of a folder, or a caption that is empty, endless or whose times
            are not 0 <= start < end; it names file and line.
    """
    captions = list(iterate_captions(path, format, remove_overlap))
    if not captions:
        raise ValueError(f"{path} holds no caption: give video, start, end and text on each line, or subtitles")
    return captions


def iterate_captions(
    path: str | Path, format: str | None = None, remove_overlap: bool | None = None
) -> Iterator[Caption]:
    """[`read_captions`] one after another: no more is held than the text of one file and the captions of one video."""
    path = Path(path)
    if format not in (None, *READERS):
        raise ValueError(f"format is {format!r}: choose one of {', '.join(READERS)}")
    corrections = Counter()
    for file in caption_files(path):
        text = _read_text(file)
        kind = format or detect_format(file, text)
        found = _captions(READERS[kind](text, file), kind, corrections)
        rolling = kind == "howto100m" or (kind == "vtt" and has_word_times(text))
        if rolling if remove_overlap is None else remove_overlap:
            for _, spoken in itertools.groupby(found, key=lambda caption: caption.video):
                yield from remove_rolling_overlap(spoken)
        else:
            yield from found
    for correction, count in corrections.items():
        logger.warning("%s: %d captions %s", path, count, correction)


def remove_rolling_overlap(captions: Iterable[Caption]) -> list[Caption]:
    """Removes from each caption what it repeats from the end of those before it.

    Speech recognition shows text that rolls: a line stays while the next one appears under it, and files hold both
    each time. The longest run of words that ends what was said so far and begins the caption is removed, if the
    caption starts at most half a second after the one before it ended. One word alone is removed only if it is all of
    this caption or all of the one before; "very" after "is very" may have been said. Words are compared without case
    and punctuation. What is left of a caption starts when the one before ends; one of which nothing is left lends its
    time to the one before.

    Args:
        captions: Of one video after another, in the order of time within each.
    """
    kept: list[Caption] = []
    video, said, previous = None, [], []
    for caption in captions:
        words = caption.text.split()
        keys = [_key(word) for word in words]
        touches = (
            caption.video == video
            and None not in (caption.end, kept[-1].end)
            and caption.start <= kept[-1].end + TOUCHING
        )
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
        video, previous, said = caption.video, keys, (said + keys[repeated:])[-REMEMBERED:]
    return kept


def _key(word: str) -> str:
    return "".join(filter(str.isalnum, word)).casefold() or word


def _longest_overlap(said: list[str], line: list[str]) -> int:
    """The largest n for which the last n of `said` are the first n of `line` (the prefix function of Knuth et al.)."""
    joined = [*line[: len(said)], None, *said]
    borders = [0] * len(joined)
    for i in range(1, len(joined)):
        n = borders[i - 1]
        while n and joined[i] != joined[n]:
            n = borders[n - 1]
        borders[i] = n + (joined[i] == joined[n])
    return borders[-1] if said else 0


def caption_files(path: Path) -> list[Path]:
    """The file itself, or the subtitle files in a folder, sorted."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(
            f"captions {path} not found: give a .jsonl file with video, start, end and text on each line, a file of a "
            "published data set, or a folder of subtitles"
        )
    files = sorted(p for p in path.rglob("*") if p.is_file() and _unpacked(p).suffix.lower() in SUBTITLE_SUFFIXES)
    if not files:
        raise ValueError(f"{path} holds no {', '.join(SUBTITLE_SUFFIXES)} file: give a folder of subtitle files")
    videos: dict[str, Path] = {}
    for file in files:
        other = videos.setdefault(video_name(file), file)
        if other != file:
            raise ValueError(f"{other} and {file} are both of the video {video_name(file)!r}: keep one of them")
    return files


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in _OPENERS else path


def _read_text(path: Path) -> str:
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): convert it, with iconv for example") from error
    except (lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _captions(rows: Iterator[tuple[str, Any, Any, Any, Any]], kind: str, corrections: Counter) -> Iterator[Caption]:
    """Checked captions of rows of (where, video, start, end, text)."""
    for where, video, start, end, text in rows:
        _check_video(video, where)
        if not isinstance(text, str):
            raise ValueError(f"{where}: text {text!r} must be a string")
        text = text.strip()
        if not text and kind in SPEECH_FORMATS:
            corrections["without text were left out"] += 1
            continue
        if not text:
            raise ValueError(f"{where}: the caption of {video!r} is empty: video and text must be non-empty strings")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"{where}: the caption of {video!r} has {len(text):,} characters, more than {MAX_CHARACTERS:,}: this "
                "is hardly one caption; divide it, with the time of each part"
            )
        times = [start] if end is None else [start, end]
        if not all(isinstance(t, (int, float)) and not isinstance(t, bool) and math.isfinite(t) for t in times):
            raise ValueError(f"{where}: start {start!r} and end {end!r} must be seconds")
        if kind in WRONG_TIMES and end <= start:
            corrections["of no duration were given a second" if end == start else "of swapped times were turned"] += 1
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
            f"{where}: the video {video!r} leads out of the folder or is no file name: use the file's name alone"
        )
