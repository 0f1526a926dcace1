"""The values in a row of a table of captions: times in several forms, lists, and what is missing."""

import ast
import json
import math
import re
from typing import Any, NamedTuple

from ..utils.messages import number_of
from .subtitles import Rows

MIDDLE_SECONDS = 3.2  # length of a caption that has only one time, its middle; 16 frames at 5 Hz, as for HTM-AA
MAX_LIST_CHARACTERS = 2**24  # longest list in a field
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,3}):(\d{1,2})(?:[.,](\d{1,9}))?")


class Columns(NamedTuple):
    """The column that plays each role, and the unit of its times."""

    names: dict[str, str]
    units: dict[str, float]


def captions_of_row(record: dict[str, Any], columns: Columns, folders: dict[str, str], where: str) -> Rows:
    """The captions of one row: one, several of one clip, or one for each interval.

    Args:
        record: The row.
        columns: Its columns.
        folders: Path of each video so far; that of the row is added.
        where: File and row, for messages.
    """
    value = {role: record.get(column) for role, column in columns.names.items()}
    video = str(value["video"]) if type(value["video"]) is int else value["video"]
    if isinstance(video, str) and "/" in video:  # a video's id is the name of its file
        path, video = video, video.rpartition("/")[2]
        if folders.setdefault(video, path) != path:
            raise ValueError(
                f"{where}: the videos {folders[video]!r} and {path!r} have the same file name: rename one"
            )
    intervals = _intervals(value, columns.units, where)
    if isinstance(intervals, list):
        texts = _texts(value["text"], True)
        if len(texts) != len(intervals):
            raise ValueError(
                f"{where}: has {number_of(len(intervals), 'time')} but {number_of(len(texts), 'text')}: give one text "
                "for each"
            )
        pairs = [(*interval, text) for interval, text in zip(intervals, texts)]
    else:
        pairs = [(*intervals, text) for text in _texts(value["text"], False) or [""]]
    for number, (start, end, text) in enumerate(pairs, 1):
        place = f"{where}, caption {number}" if len(pairs) > 1 else where
        yield place, video, start, end, "" if _is_missing(text) else text


def _intervals(value: dict[str, Any], units: dict[str, float], where: str) -> tuple | list[tuple]:
    """(start, end) of a row, or a list of them; (None, None) if it has none."""
    if "times" in value:
        times = _parsed_list(value["times"])
        if _is_missing(times):
            return None, None
        pairs = times if isinstance(times, list) else []
        flat = len(pairs) == 2 and not any(isinstance(pair, list) for pair in pairs)
        if not flat and not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs) or not pairs:
            raise ValueError(f"{where}: times {_short(value['times'])} must be [start, end] or a list of these")
        spans = [tuple(seconds(t, units["times"], where) for t in pair) for pair in ([pairs] if flat else pairs)]
        return spans[0] if flat else spans
    if "middle" in value:
        middle = seconds(value["middle"], units["middle"], where)
        return (None, None) if middle is None else (max(0.0, middle - MIDDLE_SECONDS / 2), middle + MIDDLE_SECONDS / 2)
    if "start" not in value:
        return 0.0, None
    start, end = _parsed_list(value["start"]), _parsed_list(value.get("end"))
    if isinstance(start, list):
        if not isinstance(end, list) or len(end) != len(start):
            raise ValueError(
                f"{where}: start holds {number_of(len(start), 'time')}, so end must hold as many, not {_short(end)}"
            )
        times = zip(start, end)
        return [(seconds(s, units["start"], where), seconds(e, units["end"], where)) for s, e in times]
    start = seconds(start, units["start"], where)
    if "end" not in value:
        return start, None
    end = seconds(end, units["end"], where)
    return (None, None) if end is None else (start, end)


def seconds(value: Any, units: float, where: str) -> float | None:
    """A time in seconds; None if it is missing (None, NaN or blank).

    Args:
        value: A number, its text, or `HH:MM:SS.mmm`.
        units: Number of units in a second.
        where: File and row, for messages.

    Raises:
        ValueError: The value is none of these.
    """
    if _is_missing(value):
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12:
        return value / units
    if isinstance(value, str):
        clock = _CLOCK.fullmatch(value.strip())
        if clock and units == 1:
            return int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(f"{clock[3]}.{clock[4] or 0}")
        if re.fullmatch(r"\s*[+-]?(\d{1,12}(\.\d*)?|\.\d+)(e[+-]?\d{1,2})?\s*", value, re.IGNORECASE):
            return float(value) / units
    raise ValueError(
        f"{where}: the time {_short(value)} must be a number of seconds, HH:MM:SS.mmm, or a number of milliseconds if "
        "its column is named with :ms, such as start=COLUMN:ms"
    )


def _texts(value: Any, several: bool) -> list:
    if isinstance(value, str) and (several or value.lstrip().startswith(("['", '["'))):
        value = _parsed_list(value)
    return value if isinstance(value, list) else [value]


def _parsed_list(value: Any) -> Any:
    """The list in a string, in JSON or as Python writes it; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("[") or len(value) > MAX_LIST_CHARACTERS:
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return parsed if isinstance(parsed, list) else value
    return value


def _is_missing(value: Any) -> bool:
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or (isinstance(value, str) and not value.strip())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
