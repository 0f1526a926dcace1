"""Files and folders that appear complete or not at all, and checksums. No other module renames files."""

import hashlib
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yields a binary file for writing that is renamed to `path` when the block ends without an error.

    The content is on the disk (fsync) before the rename. After an error, `path` is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        sync(temporary)
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes `content` to `path` with [`atomic_file`]; text is encoded as UTF-8."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_dir(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `folder` when the block ends without an error.

    All its files are on the disk (fsync) before the rename. If another process has made `folder` in the meantime, its
    folder is kept and this one is removed. After an error nothing is left.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_tree(temporary)
        try:
            move(temporary, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move(source: str | Path, target: str | Path) -> None:
    """Renames `source` to `target` on the same file system, replacing a file or an empty folder, durably."""
    os.replace(source, target)
    sync(Path(target).parent)


def sync(path: str | Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: str | Path) -> None:
    """Waits until a folder and everything below it is on the disk."""
    for path in (*Path(folder).rglob("*"), folder):
        sync(path)


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
