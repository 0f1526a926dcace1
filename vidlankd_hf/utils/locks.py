"""Locks on open files and folders. The system releases a lock when its process ends, however it ends."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"  # in a folder that is being made
_IN_USE = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def take_lock(descriptor: int, wait: bool) -> bool | None:
    """Takes the lock of an open file or folder.

    Args:
        descriptor: The open file or folder; the lock lasts until it is closed in this process and all its children.
        wait: Whether to wait for another process that holds the lock.

    Returns:
        `True` if the lock was taken, `False` if another process holds it, `None` if the file system has no locks.

    Raises:
        OSError: The file system failed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _IN_USE:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def open_folder(path: str | Path) -> int:
    """Opens a folder, to lock it or to flush it to the disk."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def open_lock(folder: Path) -> int:
    """Opens the lock file of a folder on which one process at a time works.

    A folder itself cannot be locked for all machines: network file systems pass on the locks of files only.
    """
    return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def remove_locked(folder: Path) -> None:
    """Removes a folder whose lock this process holds, the lock last, so that no process finds it half empty."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)
        (folder / LOCK).unlink()
        folder.rmdir()


def remove_if_abandoned(folder: Path) -> None:
    """Removes a folder if the process that created and locked it has ended."""
    try:
        descriptor = open_lock(folder)
    except OSError:
        return
    try:
        with suppress(OSError):
            if take_lock(descriptor, wait=False) and is_same_file(descriptor, folder / LOCK):
                remove_locked(folder)
    finally:
        os.close(descriptor)


@contextmanager
def lock_file(path: Path) -> Iterator[int]:
    """Locks a file during the block; other processes wait. The file is created before the block and removed after it.

    Yields:
        The file's descriptor. A child process that inherits it also holds the lock, until the child ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if take_lock(held, wait=False) is False:
            print(f"Another process holds {path}: waiting for it.", flush=True)
            take_lock(held, wait=True)
        if is_same_file(held, path):
            break
        os.close(held)
    try:
        yield held
    finally:
        path.unlink(missing_ok=True)
        os.close(held)


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the open file or folder, and was neither moved nor removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
