"""Caption formats: each reader yields unchecked rows of (where, video, start, end, text).

`where` names the file and the place in it, for error messages.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .caption_presets import COLUMNS, read_ego4d, read_msrvtt, read_vatex, read_vatex_youtube
from .subtitles import Rows, read_srt, read_webvtt
from .youtube_subtitles import read_json3, read_srv3

Text = str | Iterable[str]  # of a file, or its parts in order
MOST_ENTRY = 2**30  # characters of an entry that is read in parts
SUBTITLE_SUFFIXES = (".srt", ".vtt", ".json3", ".srv3", ".csv")
_COMPRESSIONS = (".xz", ".gz", ".bz2")


def video_name(path: Path) -> str:
    """The video id of a subtitle file: its name without suffix, `talk.en` for `talk.en.srt.gz`."""
    return path.with_suffix("").stem if path.suffix.lower() in _COMPRESSIONS else path.stem


def suffix_of(path: Path) -> str:
    """The suffix of a file in lower case, `.srt` for `talk.en.SRT.gz`; empty if there is none."""
    return next((s for s in map(str.lower, reversed(path.suffixes)) if s not in _COMPRESSIONS), "")


def detect_format(path: Path, text: str) -> str:
    """Detects the format of a file from its suffix and, for .json and .txt, its content.

    Raises:
        ValueError: The format is unknown.
    """
    suffix = suffix_of(path)
    if suffix in (".jsonl", ".srt", ".vtt", ".json3", ".srv3"):
        return suffix[1:]
    if suffix == ".csv":
        return "howto100m"
    if suffix == ".json" and (kind := format_of_entries(path, text)):
        return kind
    if suffix == ".txt" and "\t" in text.partition("\n")[0]:
        return "msvd"
    raise ValueError(
        f"{path} has an unknown format (suffix {suffix!r}): give .jsonl, .srt, .vtt, .json3, .srv3, a table with "
        f"--caption_columns, or set --caption_format, format= in Python ({', '.join(FORMATS)})"
    )


def format_of_entries(path: Path, text: Text) -> str | None:
    """The format of a .json file, by its first entry; None if it is unknown."""
    name, first = next(_entries(text, path), ("", None))
    if name == "database":
        return "youcook2"
    if isinstance(first, dict):
        if {"timestamps", "sentences"} <= set(first):
            return "activitynet"
        if {"start", "end", "text"} <= set(first):
            return "howto100m"
    return None


def read_jsonl(text: str, path: Path) -> Rows:
    """Reads lines of `{"video", "start", "end", "text"}`."""
    for where, line in _lines(text, path):
        try:
            fields = json.loads(line)
            row = fields["video"], fields.get("start", 0.0), fields.get("end"), fields["text"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{where}: not a JSON object with at least video and text: correct it, or name your columns with "
                "--caption_columns, such as video=COLUMN text=COLUMN"
            ) from error
        yield where, *row


def _lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yields the place of each line that is not blank, for messages, and the line."""
    name = str(path)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{name}, line {number}", line


def read_howto100m(text: Text, path: Path) -> Rows:
    """Reads `{video: {"start": [], "end": [], "text": []}}`, or the CSV file of one video."""
    if isinstance(text, str) and suffix_of(path) == ".csv":
        yield from _read_csv(text, path)
        return
    for video, entry in _entries(text, path):
        where = f"{path}, video {video!r}"
        columns = [entry.get(name) for name in ("start", "end", "text")] if isinstance(entry, dict) else [None]
        if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
            raise ValueError(f"{where}: must hold the lists start, end and text of equal length")
        # The published file has NaN where nothing was recognized.
        texts = ["" if text is None or isinstance(text, float) else text for text in columns.pop()]
        yield from _numbered(zip(*columns, texts), video, where)


def _numbered(rows: Iterable[tuple[Any, Any, Any]], video: str, where: str) -> Rows:
    for number, row in enumerate(rows, 1):
        yield f"{where}, caption {number}", video, *row


def _read_csv(text: str, path: Path) -> Rows:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names = set(rows.fieldnames or ())
        if not {"start", "end", "text"} <= names or "video" in names:
            raise ValueError(
                f"{path}, line 1: must name the columns video, start, end and text, or, for captions of one video, "
                f"start, end and text, but names {rows.fieldnames}: say which columns these are with "
                "--caption_columns, such as video=COLUMN start=COLUMN end=COLUMN text=COLUMN"
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row.values():
                raise ValueError(f"{where}: has fewer columns than line 1")
            yield where, video_name(path), _number(row["start"]), _number(row["end"]), row["text"]
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: not CSV ({error})") from error


def _number(text: str) -> float | str:
    """The number in a field, or the field itself, which the check of the rows refuses."""
    try:
        return float(text)
    except ValueError:
        return text


def read_activitynet(text: Text, path: Path) -> Rows:
    """Reads `{video: {"timestamps": [[start, end]], "sentences": []}}`."""
    for video, entry in _entries(text, path):
        where = f"{path}, video {video!r}"
        try:
            times, sentences = entry["timestamps"], entry["sentences"]
            rows = [(start, end, sentence) for (start, end), sentence in zip(times, sentences, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: must hold timestamps and the same number of sentences ({error!r})") from error
        yield from _numbered(rows, video, where)


def read_youcook2(text: Text, path: Path) -> Rows:
    """Reads `{"database": {video: {"annotations": [{"segment": [start, end], "sentence"}]}}}`."""
    database = dict(_entries(text, path)).get("database")
    if not isinstance(database, dict):
        raise ValueError(f"{path}: must hold an object `database` of videos")
    for video, entry in database.items():
        where = f"{path}, video {video!r}"
        try:
            # Videos of the test set have no annotations.
            annotations = entry.get("annotations", [])
            rows = [(start, end, a["sentence"]) for a in annotations for start, end in [a["segment"]]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{where}: annotations must hold segment and sentence ({error!r})") from error
        yield from _numbered(rows, video, where)


def read_msvd(text: str, path: Path) -> Rows:
    """Reads lines of a video's id, a tab and a sentence."""
    for where, line in _lines(text, path):
        video, tab, sentence = line.partition("\t")
        if not tab:
            raise ValueError(f"{where}: must be a video's id, a tab and a sentence, but is {line[:80]!r}")
        yield where, video, 0.0, None, sentence


class DuplicateName(ValueError):
    """A name occurs twice in a JSON object."""


class NotEntries(ValueError):
    """A JSON file holds something other than an object with an entry for each video."""


def _entries(text: Text, path: Path) -> Iterator[tuple[str, Any]]:
    """Parses the entries of a JSON object one by one, since HowTo100M's file is several gigabytes."""
    source = _Source(text, path)
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _unique(pairs, path))
    names, begin, comma = set[str](), re.compile(r"\s*\{\s*"), re.compile(r"\s*,\s*")
    colon, end = re.compile(r"\s*:\s*"), re.compile(r"\s*\}\s*$")
    source.position = source.retry(lambda: (source.expect(begin, source.position), None))[0]
    while not source.ends_with(end):

        def entry() -> tuple[int, Any]:
            position = source.expect(comma, source.position) if names else source.position
            name, position = decoder.raw_decode(source.text, position)
            value, position = decoder.raw_decode(source.text, source.expect(colon, position))
            return position, (name, value)

        source.position, (name, value) = source.retry(entry)
        if name in names:
            raise DuplicateName(f"{path}: {name[:80]!r} occurs twice: keep one of the two")
        names.add(name)
        yield name, value


class _Source:
    """The text of a JSON file, of which only the part from `position` on is in memory.

    Args:
        text: The text, or its parts.
        path: The file, for messages.
    """

    def __init__(self, text: Text, path: Path):
        self.parts = iter(() if isinstance(text, str) else text)
        self.text = text if isinstance(text, str) else next(self.parts, "")
        self.path, self.position, self.lines, self.characters = path, 0, 0, 0  # the last two: before `text`

    def retry(self, parse: Callable[[], tuple[int, Any]]) -> tuple[int, Any]:
        """What `parse` returns, a position first; reads on while it fails, or ends where the text in memory ends."""
        while True:
            try:
                parsed = parse()
                if parsed[0] < len(self.text) or not self._read_on():
                    return parsed
            except DuplicateName:
                raise
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._read_on():
                    raise self._explained(error) from error

    def ends_with(self, end: re.Pattern) -> bool:
        """Whether only `end` is left."""
        while (found := end.match(self.text, self.position) is not None) and self._read_on():
            pass
        return found

    def expect(self, pattern: re.Pattern, position: int) -> int:
        match = pattern.match(self.text, position)
        if match is None:
            line = self.lines + self.text.count("\n", 0, position) + 1
            raise NotEntries(
                f"{self.path}, line {line}: must hold a JSON object with an entry for each video, but has "
                f"{self.text[position : position + 40]!r}"
            )
        return match.end()

    def _read_on(self) -> bool:
        """Adds at least as much as there is, so that long entries are not parsed often; false if nothing is left."""
        left = self.text[self.position :]
        if len(left) > MOST_ENTRY:
            return False
        found, size = [left], 0
        while size <= len(left) and (part := next(self.parts, None)) is not None:
            found.append(part)
            size += len(part)
        if size:
            self.lines += self.text.count("\n", 0, self.position)
            self.characters += self.position
            self.text, self.position = "".join(found), 0
        return size > 0

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, NotEntries):
            return error
        if isinstance(error, json.JSONDecodeError) and self.characters:
            return ValueError(f"{self.path} is not JSON: {error.msg}: char {self.characters + error.pos}")
        return ValueError(f"{self.path} is not JSON: {error}")


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """A JSON object with unique names; a parser would silently keep the last of two equal ones."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise DuplicateName(f"{path}: {twice[:80]!r} occurs twice: keep one of the two")
    return fields


READERS: dict[str, Callable[[str, Path], Rows]] = {
    "jsonl": read_jsonl,
    "srt": lambda text, path: read_srt(text, path, video_name(path)),
    "vtt": lambda text, path: read_webvtt(text, path, video_name(path)),
    "json3": lambda text, path: read_json3(text, path, video_name(path)),
    "srv3": lambda text, path: read_srv3(text, path, video_name(path)),
    "howto100m": read_howto100m,
    "sentencified_htm": read_howto100m,
    "activitynet": read_activitynet,
    "youcook2": read_youcook2,
    "msvd": read_msvd,
    "msrvtt": read_msrvtt,
    "vatex": read_vatex,
    "vatex_youtube": read_vatex_youtube,
    "ego4d": read_ego4d,
}
BY_ENTRY: dict[str, Callable[[Text, Path], Rows]] = {  # readers of .json that need not have all of it in memory
    "howto100m": read_howto100m,
    "sentencified_htm": read_howto100m,
    "activitynet": read_activitynet,
    "youcook2": read_youcook2,
}
FORMATS = (*READERS, *COLUMNS)  # COLUMNS are for tables; see caption_tables.py
