"""Divides captions into parts that are read independently: some files, a range of lines of one file, or all tables."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .caption_formats import suffix_of
from .caption_tables import is_table, read_table
from .captions import TABLE, Caption, Reading, caption_files, checked_captions, iterate_captions, open_file, read_file
from .characters import decode, marked_encoding
from .compressed import is_compressed

PART_BYTES = 2**26  # about 600,000 captions, which take a process a minute
READ_BYTES = 2**20  # of a part, in memory at a time


class CaptionPart(NamedTuple):
    """Some files, or the lines of one file that begin in a range of bytes; without files all tables."""

    files: tuple[Path, ...]
    begin: int = 0
    end: int | None = None


class CaptionSource(NamedTuple):
    """Captions and how to read them; see [`read_captions`]."""

    path: Path
    format: str | None = None
    remove_overlap: bool | None = None
    encoding: str | None = None
    columns: Sequence[str] | None = None

    def parts(self) -> list[CaptionPart]:
        """Divides the captions; read one after another, the parts give what [`iterate_captions`] gives."""
        if is_table(self.path, self.format, self.columns, self.encoding):
            return [CaptionPart(())]
        parts, group, size = list[CaptionPart](), list[Path](), 0
        for file in caption_files(self.path):
            bytes_of_file = file.stat().st_size
            if self._has_independent_lines(file):
                begins = range(0, max(1, bytes_of_file), PART_BYTES)
                parts += [CaptionPart((file,), begin, begin + PART_BYTES) for begin in begins]
                continue
            group.append(file)
            size += bytes_of_file
            if size >= PART_BYTES:
                parts.append(CaptionPart(tuple(group)))
                group, size = [], 0
        return [*parts, CaptionPart(tuple(group))] if group else parts

    def _has_independent_lines(self, file: Path) -> bool:
        if self.format not in (None, "jsonl") or suffix_of(file) != ".jsonl" or is_compressed(file):
            return False
        if self.remove_overlap or self.encoding:  # a range could begin inside a video, or a character
            return False
        with open(file, "rb") as content:
            return marked_encoding(content.read(4)) is None

    def read(self, part: CaptionPart, corrections: Counter) -> Iterator[Caption]:
        """Yields the captions of a part; counts in `corrections` what was corrected or left out.

        Raises:
            ValueError: As [`read_captions`] does.
        """
        try:
            yield from checked_captions(self._readings(part), self.remove_overlap, corrections)
        except ValueError:
            if part.end is not None:  # the message must name the line in the file, not the one in the part
                for _ in iterate_captions(self.path, self.format, self.remove_overlap):
                    pass
            raise

    def _readings(self, part: CaptionPart) -> Iterator[Reading]:
        if not part.files:
            yield TABLE, read_table(self.path, self.format, self.columns, self.encoding), False
        elif part.end is not None:
            (file,) = part.files
            for begin in range(part.begin, part.end, READ_BYTES):
                lines = _lines(file, begin, min(part.end, begin + READ_BYTES))
                yield read_file(file, decode(lines, file, None), "jsonl")
        else:
            for file in part.files:
                yield open_file(file, self.encoding, self.format)


def _lines(file: Path, begin: int, end: int) -> bytes:
    """The lines of a file that begin in a range of bytes."""
    with open(file, "rb") as content:
        if begin:
            content.seek(begin - 1)
            content.readline()
        size = end - content.tell()
        lines = content.read(size) if size > 0 else b""
        return lines if not lines or lines.endswith(b"\n") else lines + content.readline()
