"""A fingerprint of training data, so that a run is resumed on the data it began with."""

import hashlib
from typing import Any

import numpy as np

SAMPLES = 64


def data_fingerprint(dataset: Any) -> str | None:
    """Hexadecimal sha256 of a map-style data set's length and at most 64 of its samples, evenly chosen.

    `None` where there are no data, or where a sample is not the same when it is read again.
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
