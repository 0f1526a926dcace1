"""Locks on open files and folders. The system releases a lock when its process ends, however it ends."""

import errno
import fcntl
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"  # in a folder that is being made
_IN_USE = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
POLL_SECONDS, FIRST_SECONDS, SAY_SECONDS = 0.2, 2.0, 60.0


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


def release_lock(descriptor: int) -> None:
    """Releases a lock and closes its file; child processes that inherited the descriptor do not hold it any longer."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def sign(descriptor: int) -> None:
    """Writes host and process id into a lock file that this process holds, for [`holder_of`]."""
    with suppress(OSError):  # a full disk: the lock itself takes no space
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)


def holder_of(path: Path) -> str:
    """The process that signed a lock file last, for messages."""
    try:
        with open(path, errors="replace") as file:
            return file.read(1000).strip() or "a process that could not write its name"
    except OSError:
        return "another process"


def is_first_process() -> bool:
    """Whether this process may work without locks: it is alone, or the first one of its launch."""
    return os.environ.get("RANK", "0") == "0"


class Waiting:
    """A wait for something that another process does; one process of each machine says so every minute."""

    def __init__(self) -> None:
        self._next = time.monotonic() + FIRST_SECONDS

    def pause(self, what: str) -> None:
        """Sleeps for a moment.

        Args:
            what: What is missing, and which process makes it.
        """
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SAY_SECONDS
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print(f"Waiting: {what}.", flush=True)
        time.sleep(POLL_SECONDS)


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
    waiting = Waiting()
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        while take_lock(held, wait=False) is False:
            waiting.pause(f"{holder_of(path)} holds {path}")
        if is_same_file(held, path):
            break
        os.close(held)
    sign(held)
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
