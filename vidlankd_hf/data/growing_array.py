"""An array file that grows piece by piece, so that an interrupted run continues after its last complete piece."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np


class GrowingArray:
    """A `.npy` file whose rows are written in pieces, each on the disk before the next one begins.

    First [`read`] and [`keep`] the complete pieces of an interrupted run and call [`start`]; then [`append`] rows and
    call [`finish_piece`] for each piece; at the end, [`finish`] and [`close`].

    Args:
        path: The file; it may hold pieces already.
        dtype: Type of the values.
        row_shape: Shape of a row.
    """

    def __init__(self, path: Path, dtype: np.dtype, row_shape: tuple[int, ...] = ()):
        self._dtype, self._row_shape = dtype, row_shape
        self._file: BinaryIO = open(path, "r+b" if path.exists() else "w+b")
        self._total = hashlib.sha256()
        self._pending: list[bytes] = []
        self._begin = self._end = self._write_header(0)

    def read(self, piece: dict) -> bytes | None:
        """Returns the next piece's bytes, or `None` if they do not match its entry `{"bytes", "sha256"}`."""
        self._file.seek(self._end)
        content = self._file.read(piece["bytes"])
        return content if hashlib.sha256(content).hexdigest() == piece["sha256"] else None

    def keep(self, content: bytes) -> None:
        """Keeps the piece whose bytes [`read`] returned."""
        self._total.update(content)
        self._end += len(content)

    def start(self) -> None:
        """Removes what follows the last complete piece; afterwards rows can be appended."""
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def append(self, rows: np.ndarray) -> None:
        """Adds rows to the current piece."""
        self._pending.append(rows.tobytes())
        self._total.update(self._pending[-1])

    @property
    def pending_bytes(self) -> int:
        """Size of the current piece."""
        return sum(map(len, self._pending))

    def finish_piece(self) -> dict:
        """Writes the current piece to disk; returns its entry `{"bytes", "sha256"}`."""
        content = b"".join(self._pending)
        self._pending.clear()
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._end += len(content)
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    @property
    def rows(self) -> int:
        """Number of rows in complete pieces."""
        return (self._end - self._begin) // (self._dtype.itemsize * int(np.prod(self._row_shape)))

    @property
    def sha256(self) -> str:
        """Hexadecimal sha256 of all rows."""
        return self._total.hexdigest()

    def finish(self) -> None:
        """Writes the number of rows into the header."""
        self._file.seek(0)
        if self._write_header(self.rows) != self._begin:
            raise RuntimeError(
                f"the header of {self._file.name} grew, because NumPy {np.__version__} leaves no room in it: use "
                "another version of NumPy"
            )

    def close(self) -> None:
        self._file.close()

    def _write_header(self, rows: int) -> int:
        """Writes the header of a .npy file, whose length does not depend on `rows`; returns where the data start."""
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()
