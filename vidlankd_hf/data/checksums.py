"""Verifies prepared data when a run first uses them: once per machine, in parallel, with a progress bar."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from tqdm.auto import tqdm

from ..utils.locks import open_folder, take_lock

READ_BYTES = 2**20
_verified: set[str] = set()  # by this process


class DamagedData(ValueError):
    """Prepared data differ from what was written."""


class Piece(NamedTuple):
    """Bytes of a file and their hexadecimal sha256."""

    path: Path
    begin: int
    size: int
    sha256: str


def verify_once(folder: Path, pieces: Sequence[Piece]) -> None:
    """Compares pieces of the files in a folder with their checksums, if this run has not done so on this machine.

    Args:
        folder: The folder. The first of several processes leaves a note there, in `.verified-<machine>`.
        pieces: What to compare.

    Raises:
        DamagedData: A piece differs, or cannot be read.
    """
    content = [[piece.path.name, piece.begin, piece.size, piece.sha256] for piece in pieces]
    try:
        stats = {piece.path.name: _identity(piece.path) for piece in pieces}
    except OSError as error:
        raise DamagedData(f"{folder} cannot be read: {error}") from error
    key = hashlib.sha256(json.dumps([str(folder.absolute()), content, stats]).encode()).hexdigest()
    if key in _verified:
        return
    with _first_on_this_machine(folder, key) as first:
        if first:
            _verify(folder, pieces)
    _verified.add(key)


def complete_file(path: Path, entry: dict) -> Piece:
    """The piece that covers a complete file, from its entry `{"bytes", "sha256"}`.

    Raises:
        DamagedData: The file is missing or has another size.
    """
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        raise DamagedData(f"{path} is damaged: it is missing or has another size")
    return Piece(path, 0, entry["bytes"], entry["sha256"])


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


@contextmanager
def _first_on_this_machine(folder: Path, key: str) -> Iterator[bool]:
    """Yields whether this is the first process of the launch to verify the folder; the others wait for the block."""
    if "LOCAL_RANK" not in os.environ:  # a single process
        yield True
        return
    launcher = psutil.Process().parent()
    note = f"{key} {launcher and (launcher.pid, launcher.create_time())}"
    path, held = folder / f".verified-{os.uname().nodename}", open_folder(folder)
    try:
        take_lock(held, wait=True)
        done = ""
        with suppress(OSError, ValueError):
            done = path.read_text()
        yield done != note
        with suppress(OSError):  # the folder may be read-only
            path.write_text(note)
    finally:
        os.close(held)


def _verify(folder: Path, pieces: Sequence[Piece]) -> None:
    total = sum(piece.size for piece in pieces)
    progress = tqdm(desc=f"verifying {folder.name}", total=total, unit="B", unit_scale=True, delay=1.0, leave=False)
    with progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for piece, sha256 in zip(pieces, pool.map(_sha256, pieces)):
            progress.update(piece.size)
            if sha256 != piece.sha256:
                pool.shutdown(cancel_futures=True)
                raise DamagedData(f"{piece.path} is damaged: its checksum differs")


def _sha256(piece: Piece) -> str:
    digest, left = hashlib.sha256(), piece.size
    try:
        with open(piece.path, "rb", buffering=0) as file:
            file.seek(piece.begin)
            while left and (part := file.read(min(left, READ_BYTES))):
                digest.update(part)
                left -= len(part)
    except OSError as error:  # EIO of a failing disk is damage too
        return str(error)
    return digest.hexdigest() if not left else "too short"
