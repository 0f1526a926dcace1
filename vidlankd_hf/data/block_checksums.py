"""Checksums of the blocks of a feature shard, so that a window is verified without reading the rest.

`shard-00000.safetensors.xxh3` holds the 64-bit XXH3 of each 16 KiB of the shard, as little-endian integers. The
manifest of the folder holds the sha256 of this file. Folders of earlier versions have `.crc32` files instead, with
32-bit integers, which take longer to compute.
"""

import hashlib
import mmap
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..utils.io import atomic_write, sha256_of
from .checksums import READ_BYTES, DamagedData

BLOCK_BYTES = 2**14  # a few pages: a window of features is some tens of kilobytes
KIND = "xxh3"  # of new checksums
KINDS = {KIND: "<u8", "crc32": "<u4"}  # kind of checksum -> its type in the file
REMEDY = "extract it again with the same settings, which replaces only this shard; if it was converted, convert again"


def hash_function(kind: str) -> Callable:
    """The function that computes a checksum of one of the `KINDS` from bytes."""
    if kind == "crc32":
        return zlib.crc32
    import xxhash  # imported only here: models train without it

    return xxhash.xxh3_64_intdigest


class Checksums(NamedTuple):
    """Which file has the checksums of a shard.

    Args:
        kind: One of `KINDS`, which is the suffix of the file.
        sha256: Hexadecimal sha256 of the file.
    """

    kind: str
    sha256: str

    def path(self, shard: Path) -> Path:
        return shard.with_name(f"{shard.name}.{self.kind}")


def checksums_of(manifest: dict, shard: str) -> Checksums | None:
    """The checksums that the manifest of a folder lists for a shard; very old folders have none."""
    kinds = (kind for kind in KINDS if shard in manifest.get(kind, {}))
    return next((Checksums(kind, manifest[kind][shard]) for kind in kinds), None)


class BlockHasher:
    """Computes the checksums of a file that is written in parts of any size.

    Args:
        kind: One of `KINDS`.
    """

    def __init__(self, kind: str = KIND):
        self._hash, self._dtype = hash_function(kind), KINDS[kind]
        self._sums: list[int] = []
        self._rest = bytearray()  # the start of an incomplete block

    def update(self, part: bytes) -> None:
        view = memoryview(part)
        if self._rest:
            taken = BLOCK_BYTES - len(self._rest)
            self._rest += view[:taken]
            view = view[taken:]
            if len(self._rest) < BLOCK_BYTES:
                return
            self._sums.append(self._hash(self._rest))
        end = len(view) - len(view) % BLOCK_BYTES
        self._sums += [self._hash(view[at : at + BLOCK_BYTES]) for at in range(0, end, BLOCK_BYTES)]
        self._rest = bytearray(view[end:])

    def digest(self) -> bytes:
        """Content of the checksum file."""
        last = [self._hash(self._rest)] if self._rest else []
        return np.array([*self._sums, *last], self._dtype).tobytes()


def complete_checksums(shard: Path, checksums: Checksums) -> None:
    """Restores the checksum file of an intact shard if it is missing or damaged."""
    path = checksums.path(shard)
    if path.is_file() and sha256_of(path) == checksums.sha256:
        return
    blocks = BlockHasher(checksums.kind)
    with open(shard, "rb") as file:
        while part := file.read(READ_BYTES):
            blocks.update(part)
    atomic_write(path, blocks.digest())


class VerifiedBlocks:
    """Verifies each block of a mapped shard when it is first read.

    Args:
        path: The shard.
        content: The mapped shard.
        checksums: Its checksums.

    Raises:
        DamagedData: The checksum file is missing or damaged.
    """

    def __init__(self, path: Path, content: mmap.mmap, checksums: Checksums):
        self.path, self._content, self._view = path, content, memoryview(content)
        self._hash, dtype = hash_function(checksums.kind), KINDS[checksums.kind]
        sums = checksums.path(path)
        try:
            held = sums.read_bytes()
        except OSError as error:
            raise DamagedData(f"{sums} cannot be read ({error}): {REMEDY}") from error
        size = np.dtype(dtype).itemsize
        self._sums = np.frombuffer(held[: len(held) // size * size], dtype)
        if hashlib.sha256(held).hexdigest() != checksums.sha256 or len(self._sums) != -(-len(content) // BLOCK_BYTES):
            raise DamagedData(f"{sums} is damaged, or does not belong to {path.name}: {REMEDY}")
        self._seen = bytearray(len(self._sums))

    def check(self, first: int, last: int) -> bool:
        """Verifies the blocks that hold bytes `first` to `last` (exclusive); returns whether any had to be read.

        Raises:
            DamagedData: A block differs from what was written.
        """
        begin, end = first // BLOCK_BYTES, -(-last // BLOCK_BYTES)
        block = self._seen.find(0, begin, end)
        if block < 0:
            return False
        if hasattr(self._content, "madvise"):
            start = block * BLOCK_BYTES
            self._content.madvise(mmap.MADV_WILLNEED, start, min(end * BLOCK_BYTES, len(self._content)) - start)
        for number, expected in enumerate(self._sums[block:end].tolist(), block):
            if self._seen[number]:
                continue
            start = number * BLOCK_BYTES
            if self._hash(self._view[start : start + BLOCK_BYTES]) != expected:
                raise DamagedData(f"{self.path} is damaged at byte {start:,} (its checksum differs): {REMEDY}")
            self._seen[number] = 1
        return True
