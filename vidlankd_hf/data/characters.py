"""Decodes text, and tells which characters are visible."""

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# Invisible characters of other categories: combining grapheme joiner, fillers, Braille blank.
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_SAMPLE = 200_000  # bytes that are used to guess an encoding


def has_text(text: str) -> bool:
    """Whether a text has a visible character. Blanks, format and zero-width characters are invisible."""
    return "!" <= text[:1] <= "~" or any(map(_is_seen, text))


def without_margins(text: str) -> str:
    """The text without invisible characters at its ends; empty if none is visible."""
    text = text.strip()
    if text and "!" <= text[0] <= "~" and "!" <= text[-1] <= "~":
        return text
    first = next((i for i, character in enumerate(text) if _is_seen(character)), len(text))
    last = next((i for i in range(len(text), first, -1) if _is_seen(text[i - 1]) or _is_mark(text[i - 1])), first)
    return text[first:last]


def _is_seen(character: str) -> bool:
    if "!" <= character <= "~":
        return True
    return unicodedata.category(character) not in _UNSEEN and character not in _BLANKS and not _is_mark(character)


def _is_mark(character: str) -> bool:
    """Whether this is a variation selector: it is invisible, but belongs to the character before it."""
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def marked_encoding(content: bytes) -> str | None:
    """The encoding that a byte order mark at the start of a text indicates, or None."""
    return next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)


def decode(content: bytes, path: Path, encoding: str | None = None) -> str:
    """Decodes a file in UTF-8, in UTF-16 or UTF-32 with a byte order mark, or in a given encoding.

    Args:
        content: Content of the file.
        path: The file, for messages.
        encoding: Name of the encoding, as Python knows it.

    Raises:
        ValueError: The encoding is unknown, or the content is not in it. The message suggests one.
    """
    if encoding is not None:
        try:
            return content.decode(encoding).removeprefix("\ufeff")
        except LookupError as error:
            raise ValueError(f"the encoding {encoding!r} is unknown: give one of Python's, such as cp1252") from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not {encoding} (byte {error.start}; probably {_guess(content)}): give another "
                "--caption_encoding, or convert it, for example with iconv"
            ) from error
    known = marked_encoding(content) or "utf-8"
    try:
        text, wrong = content.decode(known), None
    except UnicodeDecodeError as error:
        text, wrong = "", error.start
    if wrong is None and known == "utf-8" and "\0" in text[:_SAMPLE]:  # UTF-16 of a Latin script also decodes as UTF-8
        wrong = content.index(0)
    if wrong is None:
        return text
    guess = _guess(content)
    raise ValueError(
        f"{path} is not {known.upper().removesuffix('-SIG')} (byte {wrong}), but probably {guess}: if so, give "
        f"--caption_encoding {guess} (encoding= in read_captions), or convert it, for example with iconv"
    )


def decoded_parts(parts: Iterable[bytes], whole: Callable[[], bytes], path: Path) -> Iterator[str]:
    """Decodes a file by parts, as [`decode`] does; `whole` returns its content, for other encodings and errors."""
    decoder, first = codecs.getincrementaldecoder("utf-8")(), True
    for part in parts:
        if first and (marked_encoding(part) or 0 in part[:_SAMPLE]):
            yield decode(whole(), path)
            return
        first = False
        try:
            yield decoder.decode(part)
        except UnicodeDecodeError:
            decode(whole(), path)  # raises an error that says what is wrong
            raise
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        decode(whole(), path)
        raise


def _guess(content: bytes) -> str:
    """The encoding that a text without a byte order mark is probably in."""
    sample = content[:_SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) > len(sample) / 8:
        return "utf-16-be" if even > odd else "utf-16-le"
    letters, foreign = len(re.findall(rb"[A-Za-z]", sample)), len(re.findall(rb"[\x80-\xff]", sample))
    if foreign <= letters / 2:
        return "cp1252"
    if len(re.findall(rb"[\xe0-\xff]", sample)) > 0.6 * foreign:  # lowercase letters
        return "cp1251"
    pairs = re.findall(rb"[\xb0-\xfe][\xa1-\xfe]", sample)
    is_korean = pairs and all(pair[0] <= 0xC8 for pair in pairs) and _decodes(sample, "euc_kr")
    has_low_bytes = re.search(rb"[\x80-\x9f]", sample) is not None
    candidates = ("shift_jis", "gb18030", "big5") if has_low_bytes else ("gb18030", "big5", "shift_jis")
    return "euc_kr" if is_korean else next((name for name in candidates if _decodes(sample, name)), "cp1251")


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True
