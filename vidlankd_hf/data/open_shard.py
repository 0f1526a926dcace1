"""Reads of spans of one shard: what is asked for is fetched from the disk, and no more.

A shard is read and not mapped. Where a page of a mapped file is missing, the system fetches what lies around it, too:
8 times the bytes of a window, in more and smaller requests.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


class OpenShard:
    """A shard, opened to be read at random. Reads share no position: processes that inherit it may read at once.

    Raises:
        safetensors.SafetensorError: The file is no safetensors file, or shorter than its header says.
        ValueError: It holds something else than float16 and float32.
    """

    def __init__(self, path: Path):
        with safe_open(path, framework="numpy"):  # which checks header, offsets and size
            self._file = open(path, "rb", buffering=0)
        size = int.from_bytes(self._file.read(8), "little")
        header = json.loads(self._file.read(size))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{path}: {name} is {entry['dtype']}, and shards hold {', '.join(DTYPES)}")
        self._tensors = {
            name: (8 + size + entry["data_offsets"][0], entry["shape"], DTYPES[entry["dtype"]])
            for name, entry in header.items()
        }
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, without the latter, of a tensor; fewer, where it has fewer."""
        offset, (length, *shape), dtype = self._tensors[name]
        start, stop = min(start, length), min(stop, length)
        rows = np.empty((stop - start, *shape), dtype)
        left = memoryview(rows).cast("B") if rows.size else memoryview(b"")
        offset += start * dtype.itemsize * math.prod(shape)
        while left:
            count = os.preadv(self._file.fileno(), [left], offset)
            if not count:
                raise OSError(f"{self._file.name} was cut short while it was open: the folder is damaged")
            left, offset = left[count:], offset + count
        return rows

    def read_span(
        self, entry: dict, streams: Sequence[str], start: float, end: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What [`FeatureStore.read`] gives, of a video's entry in the index."""
        video = entry["video"]
        end = entry["duration"] if end is None else min(end, entry["duration"])
        if not 0 <= start < entry["duration"] or end <= start:
            raise ValueError(
                f"Video {video!r} lasts {entry['duration']:.3f} s: the span from {start} to {end} s must start inside "
                "it and end after its start. Correct or drop the caption that asks for it."
            )
        times = self._times(entry, streams[0])
        first, last = np.searchsorted(times, np.float32(start)), np.searchsorted(times, np.float32(end), "right")
        if first == last:
            first = int(_nearest(times, np.float32([(start + end) / 2]))[0])
            last = first + 1
        times = times[first:last]
        parts = [self._features(entry, streams[0], first, last)]
        chosen = [slice(None)]
        for name in streams[1:]:
            nearest = _nearest(self._times(entry, name), times)
            parts.append(self._features(entry, name, nearest[0], nearest[-1] + 1))
            chosen.append(nearest - nearest[0])
        if len(parts) == 1:
            return torch.from_numpy(parts[0]), torch.from_numpy(times)
        features = np.empty((len(times), sum(part.shape[1] for part in parts)), np.float16)
        column = 0
        for part, rows in zip(parts, chosen):
            features[:, column : column + part.shape[1]] = part[rows]
            column += part.shape[1]
        return torch.from_numpy(features), torch.from_numpy(times)

    def _times(self, entry: dict, stream: str) -> np.ndarray:
        offset, length = entry["streams"][stream]
        times = self.rows(f"{stream}.times", offset, offset + length)
        if len(times) != length:
            raise ValueError(
                f"the shard {entry['shard']} ends before the steps {offset} to {offset + length} that the index gives "
                f"{entry['video']!r}: the folder is damaged, extract it again"
            )
        return times

    def _features(self, entry: dict, stream: str, first: int, last: int) -> np.ndarray:
        offset, _ = entry["streams"][stream]
        return self.rows(f"{stream}.features", offset + int(first), offset + int(last))


def _nearest(times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each of the targets [M] the index [M] of the nearest of the increasing times [N]."""
    right = np.searchsorted(times, targets).clip(max=len(times) - 1)
    left = (right - 1).clip(min=0)
    return np.where(targets - times[left] <= times[right] - targets, left, right)
