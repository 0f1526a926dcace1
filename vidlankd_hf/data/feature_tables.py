"""Reads features from the rows of a Parquet or Arrow file, one row at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
COLUMN = "a list of T lists of D floating point numbers"


class FeatureTable:
    """A file with a row for each video.

    Rows are read one after another within a row group of Parquet, so that memory holds one video.

    Args:
        path: The file.
        features, times: Names of the columns; times may be missing. So may `duration`, in seconds.
        id_column: Column of the ids.

    Raises:
        ValueError: The file is damaged or lacks a column.
    """

    def __init__(self, path: Path, features: str, times: str, id_column: str):
        self.path, self.id_column, self._features, self._times = path, id_column, features, times
        self._open()
        for name, remedy in ((id_column, "name the column of ids with --id_column"),
                             (features, "name the column of features, as in frame=SOURCE::COLUMN")):  # fmt: skip
            if name not in self.names:
                raise ValueError(f"{path} has the columns {self.names}, but not {name!r}: {remedy}")
        self._columns = [name for name in (features, times, "duration") if name in self.names]

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        path = self.path
        self._file: Any = None
        self._batches: list[Any] = []
        try:
            if path.suffix.lower() == ".parquet":
                self._file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
                self.names = self._file.schema_arrow.names
                self._sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
            else:
                mapped = pa.memory_map(str(path))
                try:
                    reader = pa.ipc.open_file(mapped)
                    self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
                except pa.ArrowInvalid:  # `datasets` writes streams
                    mapped.seek(0)
                    reader = pa.ipc.open_stream(mapped)
                    self._batches = list(reader)
                self.names = reader.schema.names
                self._sizes = [batch.num_rows for batch in self._batches]
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{path} is not a Parquet or Arrow file ({error}): fetch it again, or remove it"
            ) from error
        self._group, self._next, self._rows, self._is_open = -1, 0, iter(()), True

    def _close(self) -> None:
        """Closes the file after its last row: a folder may have more files than a process may open."""
        if self._file is not None:
            self._file.close()
        self._file, self._batches, self._rows, self._is_open = None, [], iter(()), False

    def rows(self) -> Iterator[tuple[str, int, float]]:
        """Yields (id, number of the row, estimated bytes) for each row.

        Raises:
            ValueError: An id is not a string.
        """
        num_rows = sum(self._sizes)
        batches: Any = self._file.iter_batches(columns=[self.id_column]) if self._file else self._batches
        row: int = 0
        num_bytes = self.path.stat().st_size / max(1, num_rows)
        for batch in batches:
            for video in batch.column(self.id_column).to_pylist():
                if not isinstance(video, str) or not video:
                    raise ValueError(
                        f"{self.where(row)}: {self.id_column} is {video!r}, but must be the id of a video, a string: "
                        "correct the row, or name another column with --id_column"
                    )
                yield video, row, num_bytes
                row += 1
        self._close()

    def where(self, row: int) -> str:
        """File and row, for messages."""
        return f"{self.path}, row {row}"

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray | None, float | None]:
        """Reads features `[T, D]`, times `[T]` and the duration of a row; times and duration may be None.

        Raises:
            ValueError: The row holds anything else.
        """
        if not self._is_open:
            self._open()
        batch = self._row(row)
        if row == sum(self._sizes) - 1:
            self._close()
        values = self._matrix(_storage(batch.column(self._features))[0], self.where(row))
        times = duration = None
        if self._times in self._columns:
            times = self._numbers(_storage(batch.column(self._times))[0].values, f"{self.where(row)}, {self._times}")
        if "duration" in self._columns:
            duration = batch.column("duration")[0].as_py()
            if duration is not None and not isinstance(duration, (int, float)):
                raise ValueError(f"{self.where(row)}: duration is {duration!r}, but must be a number of seconds")
        return values, times, None if duration is None else float(duration)

    def _row(self, row: int) -> Any:
        import pyarrow as pa

        group, first = 0, 0
        while row >= first + self._sizes[group]:
            group, first = group + 1, first + self._sizes[group]
        if self._file is None:
            return self._batches[group].slice(row - first, 1)
        if group != self._group or row < self._next:
            self._group, self._next = group, first
            self._rows = self._file.iter_batches(batch_size=1, row_groups=[group], columns=self._columns)
        try:
            while True:
                batch: pa.RecordBatch = next(self._rows)
                self._next += 1
                if self._next > row:
                    return batch
        except (pa.ArrowException, OSError) as error:
            self._group = -1
            raise ValueError(f"{self.where(row)} is damaged ({error}): fetch {self.path.name} again") from error

    def _matrix(self, cell: Any, where: str) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as compute

        where = f"{where}, {self._features}"
        rows = _storage(cell.values) if _is_list(cell.type) and cell.is_valid else None
        if rows is None or not _is_list(rows.type) or not len(rows) or rows.null_count:
            raise ValueError(f"{where} is {cell.type}{'' if cell.is_valid else ' and empty'}, but must be {COLUMN}")
        if pa.types.is_fixed_size_list(rows.type):
            lengths = [rows.type.list_size]
        else:
            lengths = compute.unique(compute.list_value_length(rows)).to_pylist()
        if len(lengths) > 1:
            raise ValueError(f"{where} has rows of {sorted(lengths)[:5]} values, but all must have the same width")
        return self._numbers(rows.flatten(), where).reshape(len(rows), lengths[0])

    def _numbers(self, values: Any, where: str) -> np.ndarray:
        import pyarrow as pa

        if values is None or not pa.types.is_floating(values.type) or values.null_count:
            what = "empty" if values is None else f"{values.type} with {values.null_count} empty values"
            raise ValueError(f"{where} is {what}, but must be floating point without empty values: cast the column")
        return values.to_numpy(zero_copy_only=False)


def _is_list(type: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type)


def _storage(column: Any) -> Any:
    """What an extension type, such as `Array2D` of `datasets`, is stored as."""
    return getattr(column, "storage", column)
