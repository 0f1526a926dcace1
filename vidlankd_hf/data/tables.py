"""Reads tables: CSV, TSV, Parquet, JSON lines and Hub data sets. Captions and tasks come from them."""

import io
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..utils.loading import loading
from .caption_formats import suffix_of
from .characters import marked_encoding
from .compressed import check_expansion, is_compressed, open_decompressed

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
BLOCK_BYTES = 2**24  # part of a CSV file that is in memory at a time; no row may be longer
_BATCH_ROWS = 1024
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[^:/]*){0,2}")


def is_hub_id(source: str | Path) -> bool:
    """Whether this is the id of a Hub data set, `owner/name:configuration:split`, and not a file or folder."""
    suffix = suffix_of(Path(str(source).partition(":")[0]))
    known = suffix in (*TABLE_SUFFIXES, ".json", ".txt", ".vtt", ".srt", ".json3", ".srv3")
    return not Path(source).exists() and not known and _HUB_ID.fullmatch(str(source)) is not None


def load_hub_table(source: str):
    """Loads `owner/name:configuration:split` (default: the split `train`); never runs code of the data set."""
    from datasets import load_dataset

    name, configuration, split = [*str(source).split(":"), "", ""][:3]
    with loading(name, "a file, a folder or a Hub data set such as owner/name:configuration:split"):
        return load_dataset(name, configuration or None, split=split or "train")


class Table:
    """A table whose rows are read in batches, so that memory holds one batch of them.

    Args:
        source: A file with one of `TABLE_SUFFIXES`, which may be compressed, or a Hub data set.
        encoding: Encoding of CSV, TSV and JSON lines; default: UTF-8, or what a byte order mark says.
        quoted: Whether fields of CSV and TSV may be in quotation marks. If not, the marks belong to the fields.

    Attributes:
        columns: Names of the columns; for JSON lines, those of the first line.

    Raises:
        ValueError: The file cannot be read.
    """

    def __init__(self, source: str | Path, encoding: str | None = None, quoted: bool = True):
        self.source, self.encoding, self.quoted = Path(source), encoding, quoted
        self.kind = "hub" if is_hub_id(source) else suffix_of(self.source)
        self._dataset = load_hub_table(str(source)) if self.kind == "hub" else None
        self.columns = self._column_names()

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """Yields each row as a dict of these columns; a row of JSON lines has all its columns."""
        import pyarrow as pa

        try:
            yield from chain.from_iterable(self._batches(columns))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.source} cannot be read: {error}") from error

    def _column_names(self) -> list[str]:
        if self._dataset is not None:
            return self._dataset.column_names
        if self.kind == ".parquet":
            return self._parquet().schema_arrow.names
        check_expansion(self.source)
        if self.kind == ".jsonl":
            return list(dict.fromkeys(next(self._json_lines(), {})))
        return self._open_csv().schema.names

    def _batches(self, columns: list[str]) -> Iterator[Iterator[dict] | list[dict]]:
        if self._dataset is not None:
            for batch in self._dataset.select_columns(columns).iter(_BATCH_ROWS):
                yield [dict(zip(batch, values)) for values in zip(*batch.values())]
        elif self.kind == ".jsonl":
            yield self._json_lines()
        elif self.kind == ".parquet":
            for batch in self._parquet().iter_batches(_BATCH_ROWS, columns=columns):
                yield batch.to_pylist()
        else:
            for batch in self._open_csv(columns):
                for begin in range(0, batch.num_rows, _BATCH_ROWS):
                    yield batch.slice(begin, _BATCH_ROWS).to_pylist()

    def _parquet(self):
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        if is_compressed(self.source):
            raise ValueError(f"{self.source}: a Parquet file must not be compressed again: decompress it")
        try:
            return ParquetFile(self.source)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.source} cannot be read: {error}") from error

    def _open_csv(self, columns: list[str] | None = None):
        import pyarrow as pa
        from pyarrow import csv

        types = {column: pa.string() for column in columns or ()}
        try:
            return csv.open_csv(
                open_decompressed(self.source),
                csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, encoding=self._encoding()),
                csv.ParseOptions(
                    delimiter="\t" if self.kind == ".tsv" else ",",
                    quote_char='"' if self.quoted else False,
                    newlines_in_values=self.quoted,
                ),
                csv.ConvertOptions(include_columns=columns, column_types=types, strings_can_be_null=False),
            )
        except (pa.ArrowException, OSError, LookupError, UnicodeError) as error:
            separator = "tabs" if self.kind == ".tsv" else "commas"
            raise ValueError(
                f"{self.source} cannot be read as {self.kind[1:]}, with {separator} between columns: {error}"
            ) from error

    def _encoding(self) -> str:
        if self.encoding:
            return self.encoding
        with open_decompressed(self.source) as content:
            return marked_encoding(content.read(4)) or "utf-8"

    def _json_lines(self) -> Iterator[dict[str, Any]]:
        with io.TextIOWrapper(open_decompressed(self.source), encoding=self._encoding(), newline="\n") as lines:
            number = 0
            try:
                for line in lines:
                    number += 1
                    record = json.loads(line) if line.strip() else None
                    if record is not None and not isinstance(record, dict):
                        raise ValueError(f"not a JSON object but {line[:80]!r}")
                    if record is not None:
                        yield record
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{self.source}, line {number}: cannot be read as a line of JSON: {error}") from error
