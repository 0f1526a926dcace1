"""Damages and interruptions of prepared data, for tests."""

import os
from pathlib import Path

from vidlankd_hf.data import checksums

OLD = 315532800  # the time of files in a reproducible archive


class Killed(BaseException):
    """Stands for a signal: nothing handles it."""


def new_run():
    """Forgets what this process has verified, as the next run would."""
    checksums._verified.clear()


def zero(path: Path, at: int, count: int = 4096) -> None:
    """Pages of zeros, as after a power cut, with the times of the file unchanged."""
    stat = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes(count))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new_run()


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
