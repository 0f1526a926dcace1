"""Reads compressed files, and refuses those that expand so much that they would fill memory or disk."""

import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec

_NAMES = {".gz": "gzip", ".xz": "xz", ".bz2": "bz2", ".zst": "zstd"}  # as fsspec calls them
FREE_BYTES, MOST_RATIO = 2**26, 200  # text shrinks to a fifth, and repeated lines of it to a fiftieth
READ_BYTES = 2**20


def is_compressed(path: Path) -> bool:
    return path.suffix.lower() in _NAMES


def read_bytes(path: Path) -> bytes:
    """The content of a file, which may be compressed.

    Raises:
        ValueError: The file cannot be read, is damaged, or expands to more than 200 times its size (and 64 MiB).
    """
    return b"".join(read_parts(path))


def check_expansion(path: Path) -> None:
    """Reads a compressed file to its end, or until it has expanded too much; raises as [`read_bytes`] does."""
    for _ in read_parts(path) if is_compressed(path) else ():
        pass


def read_parts(path: Path) -> Iterator[bytes]:
    """The content of a file, as [`read_bytes`] reads it, in parts of 1 MiB."""
    try:
        most, size = FREE_BYTES + MOST_RATIO * path.stat().st_size, 0
        with open_decompressed(path) as file:
            while part := file.read(READ_BYTES):
                size += len(part)
                if size > most and is_compressed(path):
                    raise ValueError(
                        f"{path} has {path.stat().st_size:,} bytes and expands to more than {most:,}, which no text "
                        "does: check where it comes from, or decompress it yourself"
                    )
                yield part
    except (lzma.LZMAError, zlib.error, EOFError, OSError, ImportError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def open_decompressed(path: Path) -> BinaryIO:
    """Opens a file for reading, decompressed; [`check_expansion`] refuses those that expand too much."""
    if not is_compressed(path):
        return open(path, "rb")
    return fsspec.open(path, "rb", compression=_NAMES[path.suffix.lower()]).open()
