"""Checksums of the blocks of a feature shard, so that what is read is verified without reading the rest.

`shard-00000.safetensors.crc32` holds the CRC-32 of each 16 KiB of the shard, as little-endian 32-bit integers. The
manifest of the folder holds the sha256 of this file.
"""

import hashlib
import mmap
import zlib
from pathlib import Path

import numpy as np

from ..utils.io import atomic_write, sha256_of
from .checksums import READ_BYTES, DamagedData

BLOCK_BYTES = 2**14  # a few pages: a window of features is some tens of kilobytes
SUFFIX = ".crc32"
REMEDY = "extract it again with the same settings, which replaces only this shard; if it was converted, convert again"


class BlockHasher:
    """Computes the checksums of a file that is written in parts of any size."""

    def __init__(self):
        self._sums: list[int] = []
        self._room = 0  # bytes that the last block still takes

    def update(self, part: bytes) -> None:
        view = memoryview(part)
        while len(view):
            if not self._room:
                self._sums.append(0)
                self._room = BLOCK_BYTES
            self._sums[-1] = zlib.crc32(view[: self._room], self._sums[-1])
            taken = min(self._room, len(view))
            self._room, view = self._room - taken, view[taken:]

    def digest(self) -> bytes:
        """Content of the file of checksums."""
        return np.array(self._sums, "<u4").tobytes()


def complete_checksums(shard: Path, sha256: str) -> None:
    """Writes the file of checksums of an intact shard again, unless it has the hexadecimal `sha256`."""
    sums = shard.with_name(shard.name + SUFFIX)
    if sums.is_file() and sha256_of(sums) == sha256:
        return
    blocks = BlockHasher()
    with open(shard, "rb") as file:
        while part := file.read(READ_BYTES):
            blocks.update(part)
    atomic_write(sums, blocks.digest())


class VerifiedBlocks:
    """Verifies each block of a mapped shard when it is first read.

    Args:
        path: The shard.
        content: The mapped shard.
        sha256: Hexadecimal sha256 of the file of checksums.

    Raises:
        DamagedData: The file of checksums is missing or damaged.
    """

    def __init__(self, path: Path, content: mmap.mmap, sha256: str):
        self.path, self._content = path, content
        sums = path.with_name(path.name + SUFFIX)
        try:
            held = sums.read_bytes()
        except OSError as error:
            raise DamagedData(f"{sums} cannot be read ({error}): {REMEDY}") from error
        self._sums = np.frombuffer(held[: len(held) // 4 * 4], "<u4")
        if hashlib.sha256(held).hexdigest() != sha256 or len(self._sums) != -(-len(content) // BLOCK_BYTES):
            raise DamagedData(f"{sums} is damaged, or does not belong to {path.name}: {REMEDY}")
        self._seen = bytearray(len(self._sums))

    def check(self, first: int, last: int) -> None:
        """Verifies the blocks of the bytes `first` to before `last`.

        Raises:
            DamagedData: A block differs from what was written.
        """
        begin, end = first // BLOCK_BYTES, -(-last // BLOCK_BYTES)
        block = self._seen.find(0, begin, end)
        if block >= 0 and hasattr(self._content, "madvise"):
            start = block * BLOCK_BYTES
            self._content.madvise(mmap.MADV_WILLNEED, start, min(end * BLOCK_BYTES, len(self._content)) - start)
        view = memoryview(self._content)
        while block >= 0:
            start = block * BLOCK_BYTES
            if zlib.crc32(view[start : start + BLOCK_BYTES]) != self._sums[block]:
                raise DamagedData(
                    f"{self.path} is damaged at byte {start:,}: its checksum differs from the one written. Please "
                    f"{REMEDY}"
                )
            self._seen[block] = 1
            block = self._seen.find(0, block + 1, end)
