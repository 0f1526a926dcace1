"""Reads SRT and WebVTT subtitles: which lines are speech, and which are structure.

Players are lenient, so files have faults: missing, repeated or decorated numbers, blank lines that are doubled or
inside the text, arrows with one dash, styles between cues. What can be recognized as structure is left out of
the text; what looks like structure inside the text is an error. Parsers on PyPI hide such faults: webvtt-py 0.6 drops
cues that it cannot read, text after a blank line and after a plain "<"; pysubs2 1.8 appends unreadable cues, comments
and styles to the text of the previous cue.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_CLOCK = r"(?:(\d{1,6}):)?(\d{1,3}):(\d{1,2})(?:[.,:](\d{1,3}))?"
_ARROW = r"(?:-\s?-{0,2}\s?>|[\u2013\u2014\u2212]{1,2}\s?>|={1,2}>|\u2192)"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*{_ARROW}\s*{_CLOCK}(?:\s.*)?")
_NUMBER = re.compile(r"[\s#.:()\[\]*-]*(\d{1,9})[\s#.:()\[\]*-]*")
_BLOCK = re.compile(r"(NOTE|WEBVTT)(\s.*)?|(STYLE|REGION)\s*")
_TIME_LIKE = re.compile(r"\d(?<![<\d:]\d)\d*:\d\d[.,:]")  # but no time of a word, which `<` precedes
_BLANK_LINE = re.compile(r"\n\s*\n")
_STAMP = re.compile(r"\d:\d\d:\d\d[.,]\d|\d:\d\d[.,]\d{3}\s*-")  # a time with hours, or the start of a span
_MAP = re.compile(r"X-TIMESTAMP-MAP=(?=.*LOCAL:(?:(\d{1,6}):)?(\d{1,3}):(\d{1,2})\.(\d{3}))(?=.*MPEGTS:(\d{1,20})).*")
_BREAKS = "br|p|div|li|ul|ol|tr|td|table|hr|h[1-6]|blockquote"
_NAMES = (
    "[abciqsuv]|abbr|big|bdi|bdo|center|cite|code|del|dfn|em|font|ins|kbd|lang|mark|pre|rb|rp|rt|rtc|ruby|samp|small|"
    "span|strike|strong|sub|sup|tt|var"
)
_BREAK = re.compile(rf"</?(?=[bdhloptu])(?:{_BREAKS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(
    rf"<[\d:.]+>|</?>|</?(?:{_NAMES})(?:[\s.][^<>]*)?/?>|\{{\\[^{{}}]*\}}|\{{[ycsfpo]:[^{{}}]*\}}", re.IGNORECASE
)
_WEBVTT_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)  # the specification drops tags that it does not know
_WORD_TIME = re.compile(r"<(?:\d+:)?\d\d:\d\d\.\d\d\d>")
_SSA_BREAK = re.compile(r"\\[Nh]")
WRAP = 2**33 / 90_000  # seconds after which the clock of MPEG-TS starts again

Rows = Iterator[tuple[str, Any, Any, Any, Any]]


class _Cue(NamedTuple):
    line: int  # of its times, counted from 1
    start: float
    end: float
    body: list[str]  # the lines up to the times of the next cue


def has_word_times(vtt: str) -> bool:
    """Whether a WebVTT file has times of single words, as YouTube's recognized speech has."""
    return _WORD_TIME.search(vtt) is not None


def read_webvtt(text: str, path: Path, video: str) -> Rows:
    """Reads WebVTT (https://www.w3.org/TR/webvtt1/) and segments of it that were joined.

    Args:
        text: Content of the file.
        path: The file, for messages.
        video: The video of its cues.

    Yields:
        `(where, video, start, end, text)` of each cue. Times of joined segments are moved by their X-TIMESTAMP-MAP,
        relative to that of the first one.

    Raises:
        ValueError: The file does not start with WEBVTT, a cue has wrong times, or structure is inside a text.
    """
    lines = _lines(text)
    if not re.fullmatch(r"WEBVTT([ \t].*)?", lines[0]):
        raise ValueError(f"{path}: line 1 must start with WEBVTT; if these are SRT subtitles, rename the file to .srt")
    first, cues = _cues(lines, path)
    numbered = any(_NUMBER.fullmatch(line) for line in lines[:first])
    clock: list[float] = []
    has_maps, name = "X-TIMESTAMP-MAP" in "\n".join(lines), str(path)
    shift = _shift(lines[:first], clock, 0.0)
    for cue in cues:
        where = f"{name}, line {cue.line}"
        is_last = cue is cues[-1]
        body = _without_number(cue.body) if numbered and not is_last else cue.body
        if not is_last and body is cue.body and len(body) > 1 and not body[-2] and body[-1]:
            body = body[:-1]  # the name of the next cue
        has_blank_line = "" in body[: _text_end(body)]
        content = _plain([*_without_blocks(body)] if has_blank_line else body, where, webvtt=True)
        start, end = (round(cue.start + shift, 3), round(cue.end + shift, 3)) if shift else (cue.start, cue.end)
        yield where, video, start, end, content
        shift = _shift(cue.body, clock, shift) if has_maps else shift


def read_srt(text: str, path: Path, video: str) -> Rows:
    """Reads SRT as players do.

    Args:
        text: Content of the file.
        path: The file, for messages.
        video: The video of its cues.

    Yields:
        `(where, video, start, end, text)` of each cue.

    Raises:
        ValueError: Text precedes the first times, a cue has wrong times, or structure is inside a text.
    """
    lines = _lines(text)
    first, cues = _cues(lines, path)
    numbered = False
    for number, line in enumerate(lines[:first], 1):
        numbered = numbered or bool(line.strip())
        if line.strip() and not _NUMBER.fullmatch(line):
            raise ValueError(f"{path}, line {number}: {line[:80]!r} precedes the first times, so this is not SRT")
    name = str(path)
    for cue in cues:
        where = f"{name}, line {cue.line}"
        body = _without_number(cue.body) if numbered and cue is not cues[-1] else cue.body
        yield where, video, cue.start, cue.end, _plain(body, where, webvtt=False)


def _lines(text: str) -> list[str]:
    """The lines of a file. Byte order marks, which joined files have inside, are removed."""
    for end in ("\r\r\n", "\r\n", "\r"):
        text = text.replace(end, "\n")
    return text.replace("\ufeff", "").split("\n")


def _cues(lines: list[str], path: Path) -> tuple[int, list[_Cue]]:
    """Finds the lines with times; returns the index of the first one, and the cues."""
    timings = []
    for i, line in enumerate(lines):
        if ">" not in line and "\u2192" not in line:
            continue
        times = _TIMING.fullmatch(line)
        if times is not None and ("-->" in line or None not in (times[4], times[8])):  # "10:00 -> 12:00" is speech
            timings.append((i, times.groups()))
        elif "-->" in line:
            raise ValueError(
                f"{path}, line {i + 1}: {line[:80]!r} must be times such as 00:01:02.500 --> 00:01:04.000"
            )
    ends = [i for i, _ in timings[1:]] + [len(lines)]
    cues = [
        _Cue(i + 1, _seconds(*times[:4]), _seconds(*times[4:]), lines[i + 1 : end])
        for (i, times), end in zip(timings, ends)
    ]
    return timings[0][0] if timings else len(lines), cues


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return (whole * 1000 + int(fraction.ljust(3, "0"))) / 1000 if fraction else float(whole)


def _without_number(body: list[str]) -> list[str]:
    """The lines of a cue without the number of the next one, which may be repeated or followed by blank lines."""
    end = _text_end(body)
    number = _NUMBER.fullmatch(body[end - 1]) if end else None
    if number is None or (end < len(body) and end > 1 and body[end - 2].strip()):
        return body  # a number that belongs to the text: with a blank line after it, but none before
    body = body[: end - 1]
    end = _text_end(body)
    repeated = _NUMBER.fullmatch(body[end - 1]) if end else None
    if repeated is not None and repeated[1] == number[1] and (end > 1 or end == len(body)):
        body = body[: end - 1]
    return body


def _text_end(body: list[str]) -> int:
    """The number of lines without the blank ones at the end."""
    end = len(body)
    while end and not body[end - 1].strip():
        end -= 1
    return end


def _without_blocks(body: list[str]) -> Iterator[str]:
    """The lines of a cue without the comments, styles, regions and headers that follow it."""
    in_block = False
    for before, line in zip([None, *body], body):
        if before == "":
            in_block = _BLOCK.fullmatch(line) is not None
        if not in_block:
            yield line


def _shift(lines: list[str], clock: list[float], shift: float) -> float:
    """The seconds by which the following cues are moved, after a header with an X-TIMESTAMP-MAP in these lines.

    Args:
        lines: The lines.
        clock: Holds the offset of the first segment, once it is known.
        shift: The seconds so far.
    """
    for line in lines:
        found = _MAP.fullmatch(line.strip()) if line.startswith("X-") else None
        if found:
            offset = int(found[5]) % 2**33 / 90_000 - _seconds(*found.groups()[:4])
            clock.append(offset)
            shift = (offset - clock[0] + WRAP / 2) % WRAP - WRAP / 2
    return shift


def _plain(lines: list[str], where: str, webvtt: bool) -> str:
    """The text of a cue in one line, without tags.

    Raises:
        ValueError: A line looks like structure, or an entity is damaged.
    """
    content = "\n".join(lines).rstrip("\n")
    if _is_suspect(content):
        _check_lines(lines, where)
    if "<" in content or "{" in content:
        content = _TAG.sub("", _BREAK.sub(" ", content))
        content = _WEBVTT_TAG.sub("", content) if webvtt and "<" in content else content
    if "\\" in content and not webvtt:
        content = _SSA_BREAK.sub(" ", content)
    try:
        return " ".join((html.unescape(content) if "&" in content else content).split())
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{where}: {error}") from error


def _is_suspect(content: str) -> bool:
    """Whether the text of a cue may hold structure. This is fast, so that only few texts need the exact check."""
    if ":" in content and (_TIME_LIKE.search(content) or "::cue" in content):
        return True
    is_header = "WEBVTT" in content and (content.startswith("WEBVTT") or "\nWEBVTT" in content)
    return is_header or "X-TIMESTAMP" in content or _BLANK_LINE.search(content) is not None


def _check_lines(lines: list[str], where: str) -> None:
    has_text = False
    for before, line in zip(["", *lines], lines):
        problem = None
        if _STAMP.search(_WORD_TIME.sub("", line)):
            problem = "a time stamp"
        elif re.match(r"WEBVTT([ \t]|$)|X-TIMESTAMP-MAP=", line):
            problem = "the header of another file"
        elif line.lstrip().startswith("::cue"):
            problem = "a style"
        elif has_text and not before.strip() and _NUMBER.fullmatch(line):
            problem = "a number after a blank line"
        if problem:
            raise ValueError(
                f"{where}: the text of this cue has {problem} ({line.strip()[:80]!r}), so this cue or the next one is "
                "damaged. Correct it, or remove that line"
            )
        has_text = has_text or bool(line.strip())
