"""Reads captions: which words belong to which span of which video."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.folders import files_below, is_media, listed
from ..utils.messages import nearest, number_of
from .account import Account
from .caption_formats import (
    BY_ENTRY,
    FORMATS,
    READERS,
    SUBTITLE_SUFFIXES,
    detect_format,
    format_of_entries,
    suffix_of,
    video_name,
)
from .caption_tables import is_table, read_table, table_files
from .characters import decode, decoded_parts, without_margins
from .compressed import read_bytes, read_parts
from .rolling_captions import remove_rolling_overlap
from .subtitles import Rows, has_word_times

logger = logging.getLogger(__name__)

TABLE = "table"
# Lines without text are common here: in subtitles they clear the screen, and tables have empty fields.
SPEECH_FORMATS = ("srt", "vtt", "json3", "srv3", "howto100m", "sentencified_htm", TABLE)
# In the published files, a few lines end at or before their start.
WRONG_TIMES = ("howto100m", "sentencified_htm", "activitynet")
MAX_CHARACTERS = 1_000_000  # in one caption; about a long novel
MOST_SECONDS = 10**8  # three years
Reading = tuple[str, Rows, bool]  # format of a file, its rows, and whether its lines repeat those before them


class Caption(NamedTuple):
    """One line of speech or description; `start` and `end` in seconds; an `end` of None is the end of the video."""

    video: str
    start: float
    end: float | None
    text: str


class CaptionError(ValueError):
    """A caption cannot be used.

    Args:
        caption: The caption.
        problem: What is wrong, and what to do.
        where: File and line, if known.
    """

    def __init__(self, caption: Caption, problem: str, where: str = ""):
        text = caption.text if len(caption.text) <= 80 else caption.text[:80] + "..."
        place = f"{where}: " if where else ""
        super().__init__(f"{place}the caption {text!r} of {caption.video} at {caption.start} s {problem}")
        self.caption, self.problem, self.where = caption, problem, where

    def __reduce__(self) -> tuple:  # from the process that divides captions
        return CaptionError, (self.caption, self.problem, self.where)


@contextmanager
def naming_the_line(
    path: str | Path, format: str | None = None, encoding: str | None = None, columns: Sequence[str] | None = None
) -> Iterator[None]:
    """Adds file and line to a [`CaptionError`] about a caption that was read from `path`."""
    try:
        yield
    except CaptionError as error:
        for _, rows, _ in readings_of(Path(path), format, encoding, columns):
            for where, _, start, end, words in rows:
                has_time = start is not None and (end is None or start <= error.caption.start < end)
                if has_time and isinstance(words, str) and error.caption.text in words:
                    raise CaptionError(error.caption, error.problem, where) from error
        raise


def read_captions(
    path: str | Path,
    format: str | None = None,
    remove_overlap: bool | None = None,
    encoding: str | None = None,
    account: Account | None = None,
    columns: Sequence[str] | None = None,
) -> list[Caption]:
    """Reads the captions of one or many videos from a file, or from a folder with a subtitle file for each video.

    | format | content | video id |
    |---|---|---|
    | `jsonl` | lines of `{"video", "start", "end", "text"}`; `start` and `end` are optional | `video` |
    | `srt`, `vtt`, `json3`, `srv3` | a subtitle file, or a folder of them | the file name without suffix |
    | `howto100m` | `{id: {"start": [], "end": [], "text": []}}`, or a csv file (`start,end,text`) per video | the id |
    | `activitynet` | `{id: {"timestamps": [[start, end]], "sentences": []}}` | the id, including `v_` |
    | `youcook2` | `{"database": {id: {"annotations": [{"segment": [start, end], "sentence"}]}}}` | the id |
    | `msvd` | lines of `id<tab>sentence`; a sentence describes the complete video | the id |
    | `msrvtt`, `vatex`, `vatex_youtube`, `ego4d`, `sentencified_htm` | their JSON | the id |
    | `webvid`, `internvid`, `panda70m`, `htm_aa` | tables with their columns | the id |

    A folder is searched for .srt, .vtt, .json3, .srv3 and .csv files, including subfolders; the log names the other
    files, which are left out. Files may be compressed (.xz, .gz, .bz2). Lines without text, common in subtitles and
    HowTo100M, are left out; see [`has_text`]. Two errors in the published files of ActivityNet and HowTo100M are
    corrected and counted in the log: swapped times are put in order, and a line without duration gets one second.

    Args:
        path: The file or folder.
        format: One of the formats above; by default detected from suffix and content.
        remove_overlap: Whether to apply [`remove_rolling_overlap`]. By default it is applied where the problem occurs:
            to HowTo100M, and to WebVTT with times inside its lines, which is how YouTube writes recognized speech.
        encoding: Encoding of the files, such as `"cp1252"`. By default UTF-8, or UTF-16 with a byte order mark.
        account: If given, counts what was read and lists what was left out.
        columns: The columns of a table, such as `["video=clip", "start=begin:ms", "end=stop:ms", "text=caption"]`;
            `path` is then a .csv, .tsv, .parquet or .jsonl file, a folder of them, or a Hub data set; see
            [`parse_columns`] and [`read_table`].

    Returns:
        The captions, in the order of the file, or of the sorted files.

    Raises:
        ValueError: The file does not exist, is in another encoding, has an unknown format or does not follow its
            format, has no captions, names a video outside the folder, or has a caption that is empty or too long or
            whose times are not 0 <= start < end; or a folder has two files for one video. The message says where.
    """
    return list(iterate_captions(path, format, remove_overlap, encoding, account, columns))


def iterate_captions(
    path: str | Path,
    format: str | None = None,
    remove_overlap: bool | None = None,
    encoding: str | None = None,
    account: Account | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[Caption]:
    """Like [`read_captions`], but an iterator: holds the text of one file and the captions of one video at a time."""
    path = Path(path)
    if format not in (None, *FORMATS):
        raise ValueError(f"format is {format!r}: choose one of {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    corrections, empty = Counter[str](), True
    for caption in checked_captions(
        readings_of(path, format, encoding, columns, account), remove_overlap, corrections, account
    ):
        empty = False
        yield caption
    check_read(path, empty, corrections)


def checked_captions(
    readings: Iterable[Reading], remove_overlap: bool | None, corrections: Counter, account: Account | None = None
) -> Iterator[Caption]:
    """Yields the captions of files; counts in `corrections` what was corrected or left out."""
    for kind, rows, rolling in readings:
        found = _captions(rows, kind, corrections, account)
        if rolling if remove_overlap is None else remove_overlap:
            by_video = itertools.groupby(found, key=lambda caption: caption.video)
            found = itertools.chain.from_iterable(_without_overlap(spoken, account) for _, spoken in by_video)
        yield from found


def check_read(path: Path, empty: bool, corrections: Mapping[str, int]) -> None:
    """Raises a `ValueError` if no caption was read; logs what was corrected or left out."""
    if empty:
        raise ValueError(f"{path} holds no caption: give video, start, end and text on each line, or subtitles")
    for correction, count in corrections.items():
        logger.warning("%s: %s %s", path, number_of(count, "caption"), correction)


def readings_of(
    path: Path,
    format: str | None,
    encoding: str | None,
    columns: Sequence[str] | None,
    account: Account | None = None,
) -> Iterator[Reading]:
    """Yields the format of each file, or of all tables, its rows, and whether its lines repeat those before them."""
    if is_table(path, format, columns, encoding):
        yield TABLE, read_table(path, format, columns, encoding, account), False
        return
    for file in caption_files(path, account):
        yield open_file(file, encoding, format)


def open_file(file: Path, encoding: str | None, format: str | None) -> Reading:
    """The format of a file, its rows, and whether its lines repeat those before them."""
    if suffix_of(file) == ".json" and encoding is None and format in (None, *BY_ENTRY):
        parts, begin = decoded_parts(read_parts(file), lambda: read_bytes(file), file), list[str]()
        kind = format or format_of_entries(file, _kept_in(begin, parts))
        if kind is not None:
            return kind, BY_ENTRY[kind](itertools.chain(begin, parts), file), kind == "howto100m"
    return read_file(file, decode(read_bytes(file), file, encoding), format)


def _kept_in(held: list[str], parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        held.append(part)
        yield part


def read_file(file: Path, text: str, format: str | None) -> Reading:
    """The format of a file, its rows, and whether its lines repeat those before them, from its content."""
    kind = format or detect_format(file, text)
    return kind, READERS[kind](text, file), kind == "howto100m" or (kind == "vtt" and has_word_times(text))


def source_files(path: Path, format: str | None, columns: Sequence[str] | None) -> list[Path]:
    """The files that captions are read from; none for a Hub data set."""
    return table_files(path) if is_table(path, format, columns) else caption_files(path)


def _without_overlap(spoken: Iterable[Caption], account: Account | None) -> list[Caption]:
    captions = list(spoken)
    kept = remove_rolling_overlap(captions)
    for _ in range(len(captions) - len(kept) if account is not None else 0):
        account.leave_out("captions", "repeats the captions before it", captions[0].video)
    return kept


def caption_files(path: Path, account: Account | None = None) -> list[Path]:
    """The file itself, or the sorted subtitle files in a folder and its subfolders.

    Args:
        path: The file or folder.
        account: If given, lists the other files. The log names those that are not video, audio or images.

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
    files, others = list[Path](), list[Path]()
    for file in files_below(path):
        (files if suffix_of(file) in SUBTITLE_SUFFIXES else others).append(file)
    if account is not None:
        account.read["caption files"] += len(files) + len(others)
        account.used["caption files"] += len(files)
        for file in others:
            account.leave_out("caption files", "is not a subtitle file", str(file))
    unknown = [str(file) for file in others if not is_media(file)]
    if unknown:
        logger.warning(
            "%s: left out %s other than subtitles: %s", path, number_of(len(unknown), "file"), listed(unknown)
        )
    if not files:
        raise ValueError(f"{path} holds no {', '.join(SUBTITLE_SUFFIXES)} file: give a folder of subtitle files")
    videos: dict[str, Path] = {}
    for file in files:
        other = videos.setdefault(video_name(file), file)
        if other != file:
            raise ValueError(f"{other} and {file} both belong to the video {video_name(file)!r}: keep one of them")
    return files


def _captions(rows: Rows, kind: str, corrections: Counter, account: Account | None) -> Iterator[Caption]:
    """Checks rows of (where, video, start, end, text) and yields them as captions."""
    checked = None  # the video of the row before
    for where, video, start, end, text in rows:
        if account is not None:
            account.read["captions"] += 1
        if checked is None or video != checked:
            _check_video(video, where)
            checked = video
        if kind == TABLE and start is None:
            corrections["without a time were left out"] += 1
            if account is not None:
                account.leave_out("captions", "has no time", where)
            continue
        if not isinstance(text, str):
            raise ValueError(f"{where}: text {_short(text)} must be a string")
        _check_unicode(text, where)
        text = without_margins(text)
        if not text:
            if kind in SPEECH_FORMATS:
                corrections["without text were left out"] += 1
                if account is not None:
                    account.leave_out("captions", "has no text", where)
                continue
            raise ValueError(f"{where}: the caption of {video!r} is empty: video and text must be non-empty strings")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"{where}: the caption of {video!r} has {len(text):,} characters, but at most {MAX_CHARACTERS:,} are "
                "allowed: divide it, with the time of each part"
            )
        if not (_is_seconds(start) and (end is None or _is_seconds(end))):
            raise ValueError(
                f"{where}: start {_short(start)} and end {_short(end)} must be numbers of seconds below "
                f"{MOST_SECONDS:,}"
            )
        if kind in WRONG_TIMES and end <= start:
            correction = "without duration got one second" if end == start else "with swapped times were corrected"
            corrections[correction] += 1
            start, end = (end, start) if end < start else (start, start + 1.0)
        if start < 0 or (end is not None and end <= start):
            raise ValueError(f"{where}: start {start} and end {end} must satisfy 0 <= start < end: correct them")
        yield Caption(video, float(start), None if end is None else float(end), text)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MOST_SECONDS


def _short(value: Any) -> str:
    """At most 80 characters of a value; Python refuses to write integers of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        text = "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_unicode(text: str, where: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = ascii(text[max(0, error.start - 20) : error.start + 20])
        raise ValueError(
            f"{where}: {near} holds half of a surrogate pair, which is not a character: write it as valid UTF-8"
        ) from None


def _check_video(video: Any, where: str) -> None:
    if not isinstance(video, str) or not video.strip():
        raise ValueError(f"{where}: video {_short(video)} and text must be non-empty strings")
    _check_unicode(video, where)
    parts = video.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or min(video) < " ":
        raise ValueError(
            f"{where}: the video {video!r} leads out of the folder or is not a file name: use the file name only"
        )
