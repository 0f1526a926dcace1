"""Hashes that are the same in every process and run."""

import copyreg
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

SAMPLES = 256


def hash64(text: str) -> int:
    """64-bit hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def data_fingerprint(dataset: Any) -> str | None:
    """Fingerprint of data, so that a run resumes on the data it started with.

    Returns:
        If the data set has a `content_fingerprint` (those of this package do), or is a `datasets.Dataset` whose
        transform has one: a hash of all its content. Otherwise the hexadecimal sha256 of the length of a map-style
        data set and up to 256 evenly spaced samples. None if there is no data set, or if reading a sample twice gives
        different values.
    """
    if dataset is None:
        return None
    complete = getattr(dataset, "content_fingerprint", None)
    if isinstance(complete, str):
        return complete
    layout = getattr(dataset, "format", None)  # of a datasets.Dataset
    transform = layout["format_kwargs"].get("transform") if isinstance(layout, dict) else None
    if hasattr(transform, "content_fingerprint"):
        return _digest_of_rows(dataset.with_format(None), transform.content_fingerprint)
    first, second = _digest(dataset), _digest(dataset)
    return first if first == second else None


def _digest_of_rows(rows: Any, transform: str) -> str:
    digest = hashlib.sha256(f"{len(rows)} {transform}".encode())
    for batch in rows.iter(batch_size=1000):
        digest.update(json.dumps(batch, sort_keys=True, default=stable_hash).encode())
    return digest.hexdigest()


def _digest(dataset: Any) -> str:
    size = len(dataset)
    digest = hashlib.sha256(str(size).encode())
    count = min(size, SAMPLES)
    for index in sorted({round(i * (size - 1) / max(1, count - 1)) for i in range(count)}):
        _add(digest.update, dataset[index], ())
    return digest.hexdigest()


def stable_hash(value: Any) -> str:
    """Hexadecimal sha256 of any value: of its content, never of its address or of the order of a set."""
    digest = hashlib.sha256()
    _add(digest.update, value, ())
    return digest.hexdigest()


def _add(update: Callable[[bytes], Any], value: Any, inside: tuple[int, ...]) -> None:
    """Adds an unambiguous encoding of `value`; `inside` holds the ids of the objects around it."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"

    def add(what: str, content: bytes) -> None:
        update(f"{what}:{len(content)}:".encode() + content)

    if id(value) in inside:
        add("cycle", str(inside.index(id(value))).encode())
    elif value is None or type(value) in (bool, int):
        add(kind, b"" if value is None else hex(value).encode())
    elif type(value) is float:
        add("nan" if value != value else "float", b"" if value != value else struct.pack("<d", value))
    elif type(value) is str:
        add("str", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        add("bytes", bytes(value))
    elif isinstance(value, type) or callable(value) and hasattr(value, "__qualname__"):
        add("name", f"{value.__module__}.{value.__qualname__}".encode())
    elif isinstance(value, dict):
        _add_unordered(update, "dict", value.items(), (*inside, id(value)))
    elif isinstance(value, (set, frozenset)):
        _add_unordered(update, "set", value, (*inside, id(value)))
    elif isinstance(value, (list, tuple)):
        add("list", str(len(value)).encode())
        for item in value:
            _add(update, item, (*inside, id(value)))
    elif (array := _as_array(value)) is not None:
        add(f"{array.dtype.str}{array.shape}", np.ascontiguousarray(array).tobytes())
    else:
        add("object", kind.encode())
        _add(update, _state_of(value), (*inside, id(value)))


def _add_unordered(update: Callable[[bytes], Any], kind: str, items: Any, inside: tuple[int, ...]) -> None:
    hashes = []
    for item in items:
        digest = hashlib.sha256()
        _add(digest.update, item, inside)
        hashes.append(digest.digest())
    update(f"{kind}:{len(hashes)}:".encode() + b"".join(sorted(hashes)))


def _as_array(value: Any) -> np.ndarray | None:
    """Numbers of an array or tensor; NaN has one encoding."""
    if not hasattr(value, "__array__"):
        return None
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    if array.dtype.hasobject:
        return None
    if array.dtype.kind == "f" and np.isnan(array).any():
        array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array


def _state_of(value: Any) -> Any:
    """What pickle would keep of an object, without running any of it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        reduced: Any = reduce(value) if reduce else value.__reduce_ex__(2)
    except (TypeError, ValueError, AttributeError, RecursionError):  # an open file, for example
        return None
    if isinstance(reduced, str):
        return reduced
    return [list(part) if hasattr(part, "__next__") else part for part in reduced]
