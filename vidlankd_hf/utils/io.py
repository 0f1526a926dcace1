"""Files and folders that appear complete or not at all, and checksums. No other module renames files."""

import errno
import glob
import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .locks import (
    LOCK,
    Waiting,
    holder_of,
    is_first_process,
    is_same_file,
    open_lock,
    remove_if_abandoned,
    remove_locked,
    sign,
    take_lock,
)

MADE_OF = "made_of"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yields a binary file for writing that is renamed to `path` when the block ends without an error.

    The content is on the disk (fsync) before the rename. After an error, `path` is unchanged. Leftovers of killed
    processes are removed, on whichever machine they ran.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        _remove_if_abandoned(left)
    with naming_if_full(path), _new_locked_file(path) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            move(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes `content` to `path` with [`atomic_file`]; text is encoded as UTF-8."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_dir(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `folder` when the block ends without an error.

    All its files are on the disk (fsync) before the rename. If another process has created `folder` in the meantime,
    that folder is kept and this one is removed. After an error nothing is left. Leftovers of killed processes next to
    `folder` are removed.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_dir(folder.parent, folder.name) as temporary:
        yield temporary
        sync_tree(temporary)
        try:
            move(temporary, folder)
        except OSError:
            if not folder.is_dir():
                raise
        else:
            (folder / LOCK).unlink(missing_ok=True)


@contextmanager
def temporary_dir(parent: Path | None = None, name: str = "vidlankd") -> Iterator[Path]:
    """Yields a new hidden folder that is removed at the end of the block.

    The folder is locked while this process runs. Folders of killed processes are removed first.

    Args:
        parent: Where to create it; default: the system's folder for temporary files.
        name: Part of the folder's name.
    """
    mode = 0o700 if parent is None else 0o777
    parent = Path(tempfile.gettempdir() if parent is None else parent)
    for path in parent.glob(".*.making"):
        remove_if_abandoned(path)
    while True:
        temporary = parent / f".{name}-{uuid.uuid4().hex}.making"
        temporary.mkdir(mode)
        held = _lock(temporary)
        if held is not None:  # otherwise another process removed it as abandoned before it was locked
            break
    try:
        with naming_if_full(parent):
            yield temporary
    finally:
        remove_locked(temporary)
        os.close(held)


@contextmanager
def resumable_dir(folder: str | Path, of: str, help_in: Callable[[Path], bool] | None = None) -> Iterator[Path | None]:
    """Yields a hidden folder that is renamed to `folder` when the block ends without an error.

    An interrupted process leaves the hidden folder, and the next process continues with its contents. One process at a
    time is responsible for the folder; the others help or wait, and one of them continues if it ends. In a file system
    without locks it is the first process of a launch. A `ValueError` means that the input is wrong: then nothing is
    left.

    Args:
        folder: Final path. Its name ends with a dash and a hash of everything that determines the contents.
        of: Description of what determines the contents, except for the contents of the source files. Leftovers with
            this description and another hash are removed: the source files have changed since.
        help_in: Called with the hidden folder while another process is responsible for it; does a part of the work and
            returns whether there was any.

    Yields:
        The hidden folder, or `None` if `folder` exists, for example because another process has made it.
    """
    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_responsible(part, folder.exists, help_in) as responsible:
        if not responsible:
            yield None
            return
        if folder.exists():
            remove_locked(part)
            yield None
            return
        for other in folder.parent.glob(f".{folder.name.rpartition('-')[0]}-*.part/{MADE_OF}"):
            if other.parent != part and other.read_text(encoding="utf-8", errors="replace") == of:
                remove_if_abandoned(other.parent)
        (part / MADE_OF).write_text(of, encoding="utf-8")
        try:
            with naming_if_full(part):
                yield part
        except ValueError:
            remove_locked(part)
            raise
        (part / MADE_OF).unlink()
        sync_tree(part)
        move(part, folder)
        (folder / LOCK).unlink(missing_ok=True)  # not before: another process would lock a new one and work here


@contextmanager
def one_responsible(
    folder: Path, is_finished: Callable[[], bool], help_in: Callable[[Path], bool] | None = None
) -> Iterator[bool]:
    """Lets one process at a time be responsible for a folder during the block; the others help or wait.

    Args:
        folder: The folder; it is created. It holds a lock file during the block.
        is_finished: Whether there is nothing left to do; asked while another process is responsible.
        help_in: See [`resumable_dir`].

    Yields:
        Whether this process is responsible; if not, another one has finished.
    """
    held, waiting = None, Waiting()
    while held is None:
        folder.mkdir(parents=True, exist_ok=True)
        held = _lock(folder, needs_locks=not is_first_process())
        if held is None:
            if is_finished():
                yield False
                return
            if help_in is None or not help_in(folder):
                waiting.pause(f"{holder_of(folder / LOCK)} prepares {folder}")
    sign(held)
    try:
        yield True
    finally:
        if is_same_file(held, folder / LOCK):
            (folder / LOCK).unlink()
        os.close(held)


@contextmanager
def naming_if_full(path: Path) -> Iterator[None]:
    """Adds a file or folder, and what to do, to the error of a full disk, which names neither."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        problem = f"{error.strerror}; free space and start the same command again"
        raise OSError(error.errno, problem, str(path)) from error


def discard(folder: Path, inode: int) -> None:
    """Removes a folder in one step. A folder with another inode is kept: another process has replaced it."""
    with temporary_dir(folder.parent, folder.name) as temporary, suppress(FileNotFoundError):
        if folder.stat().st_ino == inode:
            move(folder, temporary / folder.name)


def _lock(folder: Path, needs_locks: bool = False) -> int | None:
    """Opens and locks a folder; returns `None` if another process holds it, or has renamed or removed it.

    Args:
        folder: The folder.
        needs_locks: Whether to return `None` too if the file system has no locks.
    """
    try:
        held = open_lock(folder)
    except FileNotFoundError:
        return None
    taken = take_lock(held, wait=False)
    if taken is not False and not (taken is None and needs_locks) and is_same_file(held, folder / LOCK):
        return held
    os.close(held)
    return None


def _new_locked_file(path: Path) -> BinaryIO:
    """Opens a new hidden file next to `path`, locked until it is closed.

    Its name does not depend on the process: containers may share both a folder and their host's name.
    """
    while True:
        file = open(path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp"), "xb")
        if take_lock(file.fileno(), wait=False) is not False and is_same_file(file.fileno(), Path(file.name)):
            return file
        file.close()  # another process took it for abandoned before it was locked


def _remove_if_abandoned(file: Path) -> None:
    """Removes a file if the process that created and locked it has ended."""
    with suppress(OSError), open(file, "r+b") as held:
        if take_lock(held.fileno(), wait=False):
            file.unlink(missing_ok=True)


def move(source: str | Path, target: str | Path) -> None:
    """Renames `source` to `target` on the same file system, durably (fsync); replaces a file or an empty folder."""
    os.replace(source, target)
    sync(Path(target).parent)


def sync(path: str | Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not Path(path).is_dir():  # some shared folders cannot flush folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: str | Path) -> None:
    """Waits until a folder and everything below it is on the disk; a link is on the disk with its folder."""
    for path in Path(folder).rglob("*"):
        if not path.is_symlink():
            sync(path)
    sync(folder)


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
