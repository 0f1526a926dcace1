"""What each source of features holds for a video, and the reader of `.npy` files.

Every source holds up to three things for a video: an array `[T, D]`, and optionally times `[T]` and a duration.
Their names depend on the name of the array, if one is given:

| source | without a name | with the name `clip` |
|---|---|---|
| files, members of a tar | `ID.npy`, `ID.times.npy`, `ID.duration.npy` | `ID.clip.npy`, `ID.clip_times.npy`, ... |
| `.npz`, group of HDF5 | `features` or the only array, `times`, `duration` | `clip`, `clip_times`, `duration` |
| columns of a table | `features`, `times`, `duration` | `clip`, `clip_times`, `duration` |

Nothing is unpickled: the headers of NumPy files are parsed here, before their content is read.
"""

import io
import math
from typing import Any, NamedTuple

import numpy as np

MOST_BYTES = 2**33  # of one video, so that a forged header does not fill the memory
ALLOWED = "it must be floating point (16, 32 or 64 bits) [T, D] with T >= 1"


class RawFeatures(NamedTuple):
    """Features of one video as another tool wrote them.

    Args:
        where: File and member, data set or row, for messages.
        values: `[T, D]`.
        times: `[T]` in seconds, if there are any.
        duration: Seconds, if known.
    """

    where: str
    values: np.ndarray
    times: np.ndarray | None
    duration: float | None


class Place(NamedTuple):
    """Where the features of a video are: the source that reads them, its key there, and about how many bytes."""

    source: Any
    key: Any
    num_bytes: float


def times_of(array: str | None) -> str:
    """Name of the times that belong to an array."""
    return f"{array}_times" if array else "times"


def from_arrays(arrays: Any, array: str | None, where: str) -> RawFeatures:
    """Chooses features, times and duration among named arrays."""
    names, times = list(arrays.keys()), times_of(array)
    others = [name for name in names if name not in (times, "duration")]
    name = array or ("features" if "features" in names else others[0] if len(others) == 1 else None)
    if name is None or name not in names:
        raise ValueError(
            f"{where} holds the arrays {names}, but {f'not {array!r}' if array else 'none is named features'}: name "
            "one, as in frame=SOURCE::ARRAY"
        )
    duration = arrays["duration"] if "duration" in names else None
    return RawFeatures(where, arrays[name], arrays[times] if times in names else None, number(duration, where))


def number(array: np.ndarray | None, where: str) -> float | None:
    """The only value of an array."""
    if array is None:
        return None
    if array.size != 1:
        raise ValueError(f"{where}: its duration has {array.size} values, but must be one number of seconds")
    return float(array.reshape(-1)[0])


def read_npy(content: bytes, where: str) -> np.ndarray:
    """Reads a `.npy` file of floating point numbers.

    Raises:
        ValueError: It holds anything else, such as pickled objects, or is truncated.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, by_column, dtype = header(stream)
    except Exception as error:  # NumPy parses the header as Python, so any error may occur
        raise ValueError(f"{where} is not a .npy file ({error}): write it with numpy.save") from error
    check_kind(dtype, shape, where)
    count, left = math.prod(shape), len(content) - stream.tell()
    if left != count * dtype.itemsize:
        raise ValueError(
            f"{where} is truncated or damaged: {dtype} {list(shape)} takes {count * dtype.itemsize:,} bytes, but "
            f"there are {left:,}. Fetch it again"
        )
    array = np.frombuffer(content, dtype, count, stream.tell())
    return array.reshape(shape[::-1]).T if by_column else array.reshape(shape)


def check_kind(dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
    """Raises a `ValueError` unless an array holds floating point numbers and fits into `MOST_BYTES`."""
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        remedy = "convert it with array.astype('float32')" if dtype.kind in "iub" else "save numbers, not objects"
        raise ValueError(f"{where} is {dtype} {list(shape)}, but {ALLOWED}: {remedy}")
    if math.prod(shape) * dtype.itemsize > MOST_BYTES:
        raise ValueError(f"{where} is {dtype} {list(shape)}, more than {MOST_BYTES:,} bytes for a video: split it")
