"""Reads spans of one feature shard, fetching only the requested span from the disk.

A shard is memory-mapped, so that bytes in the page cache are copied once. By default, the system also reads the
surroundings of each missing page, eight times the bytes of a window. So `madvise` tells it in advance what is needed.
"""

import json
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .block_checksums import Checksums, VerifiedBlocks

DTYPES: dict[str, np.dtype] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


class OpenShard:
    """A shard opened for random access.

    Args:
        path: The safetensors file.
        checksums: Its checksums; by default, what is read is not verified.

    Raises:
        DamagedData: The shard or its checksums differ from what was written. Reading rows raises this too.
        ValueError: The file is not a safetensors file or is shorter than its header says, or a tensor is neither
            float16 nor float32.
    """

    def __init__(self, path: Path, checksums: Checksums | None = None):
        try:
            with safe_open(path, framework="numpy"):  # checks header, offsets and size
                with open(path, "rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): extract it again, or convert again") from error
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_RANDOM)
        self._blocks = None if checksums is None else VerifiedBlocks(path, self._map, checksums)
        size = int.from_bytes(self._map[:8], "little")
        if self._blocks is not None:
            self._blocks.check(0, 8 + size)
        header = json.loads(self._map[8 : 8 + size])
        header.pop("__metadata__", None)
        self._tensors: dict[str, np.ndarray] = {}
        self._first: dict[str, int] = {}  # first byte of each tensor in the file
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{path}: {name} is {entry['dtype']}, but shards hold {', '.join(DTYPES)}")
            first, dtype, shape = 8 + size + entry["data_offsets"][0], DTYPES[entry["dtype"]], entry["shape"]
            self._tensors[name] = np.ndarray(shape, dtype, self._map, first)
            self._first[name] = first

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start:stop` of a tensor, without a copy."""
        rows = self._tensors[name][start:stop]
        fetched = False
        if rows.nbytes and self._blocks is not None:
            first = self._first[name] + start * rows.strides[0]
            fetched = self._blocks.check(first, first + rows.nbytes)
        if rows.nbytes > mmap.PAGESIZE and not fetched:
            self._fetch(name, start, stop)
        return rows

    def _fetch(self, name: str, start: int, stop: int) -> None:
        """Asks the system to fetch rows from the disk, without waiting for them."""
        rows = self._tensors[name][start:stop]
        if rows.nbytes and hasattr(self._map, "madvise"):
            first = self._first[name] + start * rows.strides[0]
            page = first - first % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, page, first + rows.nbytes - page)

    def _fetch_likely(self, entry: dict, streams: Sequence[str], start: float, end: float) -> None:
        """Starts fetching features before their times are read. Finds the right rows if steps are evenly spaced."""
        for name in streams:
            offset, length = entry["streams"][name]
            first, last = (int(time / entry["duration"] * length) for time in (start, end))
            self._fetch(f"{name}.features", offset + first, offset + min(length, last + 1))

    def read_span(
        self, entry: dict, streams: Sequence[str], start: float, end: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads a span of a video.

        Args:
            entry: The video's entry in the index, from [`FeatureStore.entry`].
            streams: Names of the streams; the first one gives the time stamps.
            start, end: Seconds; an `end` of None is the end of the video.

        Returns:
            As [`FeatureStore.read`]: features `[T, F]` float16 and times `[T]` float32.

        Raises:
            ValueError: The span starts outside the video or is empty, or the index points outside the shard.
        """
        video = entry["video"]
        end = entry["duration"] if end is None else min(end, entry["duration"])
        if not (0 <= start < entry["duration"] and end > start):
            raise ValueError(
                f"Video {video!r} lasts {entry['duration']:.3f} s: the span from {start} to {end} s must start inside "
                "the video and end after its start. Correct or remove the caption."
            )
        self._fetch_likely(entry, streams, start, end)
        times = self._times(entry, streams[0])
        first = int(np.searchsorted(times, np.float32(start)))
        last = int(np.searchsorted(times, np.float32(end), "right"))
        if first == last:
            first = int(_nearest(times, np.array([(start + end) / 2], np.float32))[0])
            last = first + 1
        times = times[first:last]
        parts = [(self._features(entry, streams[0], first, last), slice(None))]
        for name in streams[1:]:
            nearest = _nearest(self._times(entry, name), times)
            parts.append((self._features(entry, name, nearest[0], nearest[-1] + 1), nearest - nearest[0]))
        features, column = np.empty((len(times), sum(part.shape[1] for part, _ in parts)), np.float16), 0
        for part, rows in parts:
            features[:, column : column + part.shape[1]] = part[rows]
            column += part.shape[1]
        return torch.from_numpy(features), torch.from_numpy(times.copy())

    def _times(self, entry: dict, stream: str) -> np.ndarray:
        offset, length = entry["streams"][stream]
        times = self.rows(f"{stream}.times", offset, offset + length)
        if len(times) != length:
            raise ValueError(
                f"the index gives {entry['video']!r} the steps {offset} to {offset + length} of {entry['shard']}, "
                f"which holds only {offset + len(times)}: the folder is damaged, extract it again"
            )
        return times

    def _features(self, entry: dict, stream: str, first: int, last: int) -> np.ndarray:
        offset, _ = entry["streams"][stream]
        return self.rows(f"{stream}.features", offset + int(first), offset + int(last))


def _nearest(times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`[M]` index of the nearest of the increasing times `[N]` for each of the targets `[M]`."""
    right = np.minimum(np.searchsorted(times, targets), len(times) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(targets - times[left] <= times[right] - targets, left, right)
