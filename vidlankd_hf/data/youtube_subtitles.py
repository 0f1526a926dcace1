"""YouTube's own subtitle files, json3 and srv3, as yt-dlp saves them."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .subtitles import Rows

MAX_SRV3_CHARACTERS = 64 * 2**20  # the tree of a file needs many times its size; a day of speech has about 10 MiB
_DECLARATION = re.compile(r"<!(?:DOCTYPE|ENTITY)")


def read_json3(text: str, path: Path, video: str) -> Rows:
    """Reads `{"events": [{"tStartMs", "dDurationMs", "segs": [{"utf8"}]}]}`.

    Args:
        text: Content of the file.
        path: The file, for messages.
        video: The video of its events.

    Yields:
        `(where, video, start, end, text)` of each event with text. Events without `segs` only place windows on the
        screen, and those of a line break alone scroll them.

    Raises:
        ValueError: The file does not follow this format.
    """
    try:
        events = json.loads(text)["events"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not json3: it must hold a JSON object with a list `events` ({error!r})"
        ) from error
    for number, event in enumerate(_list(events, f"{path}: events"), 1):
        where = f"{path}, event {number}"
        if not isinstance(event, dict):
            raise ValueError(f"{where}: {str(event)[:80]!r} must be a JSON object")
        segments = _list(event.get("segs", []), f"{where}: segs")
        words = [segment.get("utf8", "") if isinstance(segment, dict) else None for segment in segments]
        if not all(isinstance(word, str) for word in words):
            raise ValueError(f"{where}: each of segs must be an object whose utf8 is a string")
        yield from _row(where, video, event.get("tStartMs", 0), event.get("dDurationMs"), "".join(words))


def read_srv3(text: str, path: Path, video: str) -> Rows:
    """Reads `<timedtext format="3"><body><p t="0" d="1500">a <s>word</s></p></body></timedtext>`.

    Args:
        text: Content of the file.
        path: The file, for messages.
        video: The video of its paragraphs.

    Yields:
        `(where, video, start, end, text)` of each paragraph with text.

    Raises:
        ValueError: The file does not follow this format, is too large, or declares a document type or entities,
            which YouTube does not write and which can expand to fill the memory.
    """
    if len(text) > MAX_SRV3_CHARACTERS:
        raise ValueError(f"{path} has {len(text):,} characters, but srv3 may have at most {MAX_SRV3_CHARACTERS:,}")
    if _DECLARATION.search(text):
        raise ValueError(f"{path} declares a document type or an entity, which no srv3 file has: remove it")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"{path} is not srv3: {error}") from error
    if root.tag != "timedtext" or root.get("format") != "3":
        raise ValueError(
            f'{path} is not srv3: it must start with <timedtext format="3">, but starts with <{root.tag}>'
        )
    for number, paragraph in enumerate(root.findall("body/p"), 1):
        where = f"{path}, paragraph {number}"
        start, duration = (_milliseconds(paragraph.get(name), where) for name in ("t", "d"))
        words = [paragraph.text, *(part for s in paragraph for part in (s.text, s.tail))]
        yield from _row(where, video, start, duration, "".join(filter(None, words)))


def _row(where: str, video: str, start: Any, duration: Any, text: str) -> Rows:
    text = " ".join(text.split())
    if not text:
        return
    if any(isinstance(t, bool) or not isinstance(t, (int, float)) for t in (start, duration)):
        raise ValueError(
            f"{where}: the text {text[:80]!r} must have a start and a duration in milliseconds, but has {start!r} and "
            f"{duration!r}"
        )
    yield where, video, start / 1000, (start + duration) / 1000, text


def _milliseconds(value: str | None, where: str) -> int | None:
    if value is not None and not re.fullmatch(r"-?[0-9]{1,15}", value):
        raise ValueError(f"{where}: {value[:80]!r} must be a whole number of milliseconds")
    return None if value is None else int(value)


def _list(value: Any, where: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, but is {str(value)[:80]!r}")
    return value
