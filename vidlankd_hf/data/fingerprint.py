"""Hashes that are the same in every process and run."""

import hashlib
from typing import Any

import numpy as np

SAMPLES = 64


def hash64(text: str) -> int:
    """64-bit hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def data_fingerprint(dataset: Any) -> str | None:
    """Fingerprint of training data, so that a run resumes on the data it started with.

    Returns:
        Hexadecimal sha256 of the length of a map-style data set and up to 64 evenly spaced samples. None if there is
        no data set, or if reading a sample twice gives different values.
    """
    if dataset is None:
        return None
    first, second = _digest(dataset), _digest(dataset)
    return first if first == second else None


def _digest(dataset: Any) -> str:
    size = len(dataset)
    digest = hashlib.sha256(str(size).encode())
    for index in sorted({round(i * (size - 1) / (SAMPLES - 1)) for i in range(SAMPLES)}) if size else ():
        for name, value in sorted(dataset[index].items()):
            if hasattr(value, "__array__"):
                array = np.asarray(value)
                content = f"{array.dtype.kind}{array.shape}".encode() + array.tobytes()
            else:
                content = repr(value).encode()
            digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()
