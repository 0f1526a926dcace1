"""Layouts of published captions: the columns of tables, and readers of nested JSON.

docs/data.md links each layout. A reader yields unchecked rows of (where, video, start, end, text).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .subtitles import Rows

COLUMNS = {
    "webvid": ("video=videoid", "text=name"),
    "internvid": ("video=YoutubeID", "start=Start_timestamp", "end=End_timestamp", "text=Caption"),
    "panda70m": ("video=videoID", "times=timestamp", "text=caption"),
    "htm_aa": ("video=vid", "middle=timestamp", "text=text"),
}
_VATEX_ID = re.compile(r"(.+)_(\d{6})_(\d{6})")


def read_msrvtt(text: str, path: Path) -> Rows:
    """Reads `{"sentences": [{"video_id", "caption"}]}`; a caption describes the complete clip."""
    sentences = _field(_parsed(text, path), "sentences", str(path))
    for number, sentence in enumerate(_list(sentences, f"{path}: sentences"), 1):
        where = f"{path}, sentence {number}"
        yield where, _field(sentence, "video_id", where), 0.0, None, _field(sentence, "caption", where)


def read_vatex(text: str, path: Path) -> Rows:
    """Reads `[{"videoID", "enCap": []}]`, for clips in files that are named after their videoID."""
    for where, video, caption in _vatex(text, path):
        yield where, video, 0.0, None, caption


def read_vatex_youtube(text: str, path: Path) -> Rows:
    """Reads the same for complete YouTube videos: `ID_000010_000020` is from 10 to 20 s of the video `ID`."""
    for where, video, caption in _vatex(text, path):
        parts = _VATEX_ID.fullmatch(video) if isinstance(video, str) else None
        if parts is None:
            raise ValueError(f"{where}: videoID {video!r} must be an id and two times, as in ID_000010_000020")
        yield where, parts[1], float(parts[2]), float(parts[3]), caption


def read_ego4d(text: str, path: Path) -> Rows:
    """Reads `{video: {"narration_pass_1": {"narrations": [{"timestamp_sec", "narration_text"}]}}}`.

    A narration has one time: it lasts until the next one of its pass, and the last until the end of the video.
    """
    for video, passes in _object(_parsed(text, path), str(path)).items():
        for name in ("narration_pass_1", "narration_pass_2"):
            where = f"{path}, video {video!r}, {name}"
            narrations = _object(_object(passes, where).get(name, {}), where).get("narrations", [])
            said = [
                (_field(narration, "timestamp_sec", where), _field(narration, "narration_text", where))
                for narration in _list(narrations, f"{where}: narrations")
            ]
            if not all(isinstance(time, (int, float)) and not isinstance(time, bool) for time, _ in said):
                raise ValueError(f"{where}: each timestamp_sec must be a number of seconds")
            said.sort(key=lambda narration: narration[0])
            end = None
            rows: list[tuple[Any, Any, Any]] = []
            for i in reversed(range(len(said))):
                if i + 1 < len(said) and said[i + 1][0] > said[i][0]:
                    end = said[i + 1][0]
                rows.append((said[i][0], end, said[i][1]))
            for number, row in enumerate(reversed(rows), 1):
                yield f"{where}, narration {number}", video, *row


def _vatex(text: str, path: Path) -> Iterator[tuple[str, Any, Any]]:
    for number, entry in enumerate(_list(_parsed(text, path), str(path)), 1):
        where = f"{path}, entry {number}"
        for caption in _list(_field(entry, "enCap", where), f"{where}: enCap"):
            yield where, _field(entry, "videoID", where), caption


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _field(value: Any, name: str, where: str) -> Any:
    fields = _object(value, where)
    if name not in fields:
        raise ValueError(f"{where}: has no {name!r}, only {', '.join(fields) or 'an empty object'}")
    return fields[name]


def _object(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be a JSON object, but is {str(value)[:80]!r}")
    return value


def _list(value: Any, where: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, but is {str(value)[:80]!r}")
    return value
