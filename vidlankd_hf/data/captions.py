"""Captions: what is said, in which video, from when to when."""

import json
import math
from pathlib import Path
from typing import NamedTuple


class Caption(NamedTuple):
    """One line of speech or description; `start` and `end` in seconds, `end` is None for "to the end of the video"."""

    video: str
    start: float
    end: float | None
    text: str


def read_captions(path: str | Path) -> list[Caption]:
    """Reads captions from a jsonl file of `{"video", "start", "end", "text"}`.

    `video` is the file name of the video, as in the features' index. `start` may be left out (0), `end` may be null or
    left out (to the end of the video).

    Raises:
        ValueError: No such file, not UTF-8, no captions in it, or a line that is not such an object, whose text is
            empty or whose times are not 0 <= start < end; it names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"captions {path} not found: give a .jsonl file with video, start, end and text on each line")
    captions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): convert it, with iconv for example") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            captions.append(_parse(line, f"{path}, line {number}"))
    if not captions:
        raise ValueError(f"{path} holds no caption: give video, start, end and text on each line")
    return captions


def _parse(line: str, where: str) -> Caption:
    try:
        fields = json.loads(line)
        video, text = fields["video"], fields["text"]
        start, end = fields.get("start", 0.0), fields.get("end")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: not a JSON object with at least video and text ({error!r})") from error
    if not isinstance(video, str) or not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: video {video!r} and text {text!r} must be non-empty strings")
    times = [start] if end is None else [start, end]
    if not all(isinstance(t, (int, float)) and not isinstance(t, bool) and math.isfinite(t) for t in times):
        raise ValueError(f"{where}: start {start!r} and end {end!r} must be seconds")
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"{where}: start {start} and end {end} must satisfy 0 <= start < end")
    return Caption(video, float(start), None if end is None else float(end), text.strip())
