"""Reads features that another tool extracted, one video at a time: NumPy, HDF5, WebDataset tars, Parquet and Arrow.

Nothing is unpickled: headers of NumPy files are parsed before their content is read. For names see [`feature_arrays`].
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..utils.extras import requires_extra
from ..utils.folders import files_below
from ..utils.tars import tar_members
from .feature_arrays import MOST_BYTES, Place, RawFeatures, check_kind, from_arrays, number, read_npy, times_of
from .feature_tables import TABLE_SUFFIXES, FeatureTable

HDF5_SUFFIXES = (".h5", ".hdf5")
NUMPY_SUFFIXES = (".npy", ".npz")
SUFFIXES = (*NUMPY_SUFFIXES, *HDF5_SUFFIXES, ".tar", *TABLE_SUFFIXES)


def find_features(
    source: str | Path, array: str | None, id_column: str, left_out: list[tuple[str, str]]
) -> dict[str, Place]:
    """Lists the videos in a file, or in all files of a folder and its subfolders, in the order of the files.

    Args:
        source: The file or folder.
        array: Name of the array, data set or column; see [`feature_arrays`].
        id_column: Column of tables with the ids of the videos.
        left_out: Files and members that hold no features are added to it, with the reason.

    Raises:
        ValueError: There are no features, or two of one video.
        ImportError: h5py is not installed.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a file ({', '.join(SUFFIXES)}) or a folder of them")
    found: dict[str, Place] = {}

    def add(video: str, place: Place) -> None:
        if video in found:
            here, there = (one.source.where(one.key) for one in (found[video], place))
            raise ValueError(f"{here} and {there} both hold video {video!r}: rename or remove one of them")
        found[video] = place

    blobs = []
    for file in files_below(path) if path.is_dir() else [path]:
        suffix = file.suffix.lower()
        if suffix in NUMPY_SUFFIXES:
            blobs.append(_Blob(file, file.name, 0, file.stat().st_size))
        elif suffix == ".tar":
            members = _NumpyFiles(_tar_members(file, left_out), array, left_out)
            for video, place in members.places():
                add(video, place)
        elif suffix in HDF5_SUFFIXES:
            for video, place in _Hdf5File(file, array, left_out).places():
                add(video, place)
        elif suffix in TABLE_SUFFIXES:
            table = FeatureTable(file, array or "features", times_of(array), id_column)
            for video, row, num_bytes in table.rows():
                add(video, Place(_Rows(table), row, num_bytes))
        else:
            left_out.append((str(file), f"no features: its name does not end with {', '.join(SUFFIXES)}"))
    for video, place in _NumpyFiles(blobs, array, left_out).places():
        add(video, place)
    if not found:
        wanted = f" named {array!r}" if array else ""
        raise ValueError(f"{path} holds no features{wanted}: give files that end with {', '.join(SUFFIXES)}")
    return found


class _Rows(NamedTuple):
    """The rows of a table as a source."""

    table: FeatureTable

    def where(self, row: int) -> str:
        return self.table.where(row)

    def read(self, row: int) -> RawFeatures:
        return RawFeatures(self.where(row), *self.table.read(row))


class _Blob(NamedTuple):
    """A file, or a member of a tar, which is not unpacked."""

    path: Path
    name: str
    offset: int
    size: int

    @property
    def where(self) -> str:
        return str(self.path) if self.path.name == self.name else f"{self.path}::{self.name}"

    def read(self) -> bytes:
        if self.size > MOST_BYTES:
            raise ValueError(
                f"{self.where} has {self.size:,} bytes, but a video may have at most {MOST_BYTES:,}: split it"
            )
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def _tar_members(path: Path, left_out: list[tuple[str, str]]) -> list[_Blob]:
    """The NumPy files in a tar."""
    blobs = []
    for member in tar_members(path):
        if member.offset is not None and member.name.lower().endswith(NUMPY_SUFFIXES):
            blobs.append(_Blob(path, member.name, member.offset, member.size))
        else:
            left_out.append((f"{path}::{member.name}", f"no features: only {' and '.join(NUMPY_SUFFIXES)} are read"))
    return blobs


class _NumpyFiles:
    """`.npy` and `.npz` files, in a folder or in a tar."""

    def __init__(self, blobs: list[_Blob], array: str | None, left_out: list[tuple[str, str]]):
        self.blobs, self.array, self.left_out = blobs, array, left_out
        self._sides = {(blob.path.parent, blob.name): blob for blob in blobs}

    def places(self) -> Iterator[tuple[str, Place]]:
        side = (f".{times_of(self.array)}.npy", ".duration.npy")
        wanted = f".{self.array}.npy" if self.array else ".npy"
        for blob in self.blobs:
            name = Path(blob.name).name
            if name.endswith(side):
                continue
            if name.lower().endswith(".npz"):
                yield name[:-4], Place(self, blob, blob.size)
            elif name.endswith(wanted):
                yield name.removesuffix(wanted), Place(self, blob, blob.size)
            else:
                self.left_out.append((blob.where, f"its name does not end with {wanted}"))

    def where(self, blob: _Blob) -> str:
        return blob.where

    def read(self, blob: _Blob) -> RawFeatures:
        if blob.name.lower().endswith(".npz"):
            return from_arrays(_Npz(blob), self.array, blob.where)
        stem = blob.name.removesuffix(f".{self.array}.npy" if self.array else ".npy")
        times, duration = (
            None if side is None else read_npy(side.read(), side.where)
            for side in (self._sides.get((blob.path.parent, f"{stem}.{end}.npy"))
                         for end in (times_of(self.array), "duration"))
        )  # fmt: skip
        return RawFeatures(blob.where, read_npy(blob.read(), blob.where), times, number(duration, blob.where))


class _Npz:
    """The arrays of a `.npz` file by name."""

    def __init__(self, blob: _Blob):
        self.where = blob.where
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(blob.read()))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{blob.where} is not a .npz file ({error}): write it with numpy.savez") from error

    def keys(self) -> list[str]:
        return [name.removesuffix(".npy") for name in self.zip.namelist()]

    def __getitem__(self, name: str) -> np.ndarray:
        where = f"{self.where}::{name}"
        info = self.zip.getinfo(f"{name}.npy")
        if info.file_size > MOST_BYTES:
            raise ValueError(
                f"{where} has {info.file_size:,} bytes, but a video may have at most {MOST_BYTES:,}: split it"
            )
        try:
            return read_npy(self.zip.read(info), where)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, zlib.error) as error:
            raise ValueError(f"{where} cannot be unpacked ({error}): write it with numpy.savez") from error


class _Hdf5File:
    """A data set for each video, or a group with `features` and `times`, at any depth."""

    def __init__(self, path: Path, array: str | None, left_out: list[tuple[str, str]]):
        with requires_extra("hdf5"):
            import h5py
        self.h5py, self.path, self.array, self.left_out = h5py, path, array, left_out

    def _open(self) -> Any:
        """Opens the file; done for each video, because a folder may have more files than a process may open."""
        try:
            return self.h5py.File(self.path, "r")
        except OSError as error:
            raise ValueError(f"{self.path} is not an HDF5 file ({error}): fetch it again, or remove it") from error

    def places(self) -> Iterator[tuple[str, Place]]:
        found: dict[str, float] = {}
        others: list[str] = []

        def visit(name: str, item: Any) -> None:  # links to other files are not followed
            if not isinstance(item, self.h5py.Dataset):
                return
            parent, _, own = name.rpartition("/")
            if own == (self.array or "features") and parent:
                found[parent] = item.nbytes
            elif self.array is None and (not parent or "features" not in file[parent]):
                found[name] = item.nbytes
            elif own not in (times_of(self.array), "duration"):
                others.append(name)

        with self._open() as file:
            file.visititems(visit)
        self.left_out += [(f"{self.path}::{name}", f"it is not named {self.array or 'features'}") for name in others]
        for name, num_bytes in found.items():
            yield name.rpartition("/")[2], Place(self, name, num_bytes)

    def where(self, name: str) -> str:
        return f"{self.path}::{name}"

    def read(self, name: str) -> RawFeatures:
        where = self.where(name)
        with self._open() as file:
            item = file[name]
            if isinstance(item, self.h5py.Dataset):
                return RawFeatures(where, self._read(item, where), None, None)
            arrays = _Lazy({key: item.get(key) for key in item if not self._is_link(item, key)}, where, self._read)
            return from_arrays(arrays, self.array, where)

    def _is_link(self, group: Any, key: str) -> bool:
        return not isinstance(group.get(key, getlink=True), self.h5py.HardLink)

    def _read(self, item: Any, where: str) -> np.ndarray:
        if not isinstance(item, self.h5py.Dataset) or item.external or item.is_virtual:
            raise ValueError(f"{where} is a group or refers to other files: copy its data into this file")
        check_kind(item.dtype, item.shape, where)
        try:
            return item[()]
        except OSError as error:
            raise ValueError(f"{where} is damaged ({error}): fetch {self.path.name} again") from error


class _Lazy(dict):
    """Arrays of a group, each of which is read when it is requested."""

    def __init__(self, items: dict[str, Any], where: str, read: Any):
        super().__init__(items)
        self._where, self._read = where, read

    def __getitem__(self, name: str) -> np.ndarray:
        return self._read(super().__getitem__(name), f"{self._where}/{name}")
