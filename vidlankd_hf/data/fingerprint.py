"""A fingerprint of training data, so that a run is resumed on the data it began with."""

import hashlib
from typing import Any

import numpy as np

SAMPLES = 64


def data_fingerprint(dataset: Any) -> str | None:
    """Hexadecimal sha256 of a map-style data set's length and at most 64 of its samples, evenly chosen."""
    if dataset is None:
        return None
    size = len(dataset)
    digest = hashlib.sha256(str(size).encode())
    for index in sorted({round(i * (size - 1) / (SAMPLES - 1)) for i in range(SAMPLES)}) if size else ():
        for name, value in sorted(dataset[index].items()):
            if isinstance(value, (str, bytes, int, float, type(None))):
                content = repr(value).encode()
            else:
                array = np.asarray(value)
                content = f"{array.dtype.kind}{array.shape}".encode() + array.tobytes()
            digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()
