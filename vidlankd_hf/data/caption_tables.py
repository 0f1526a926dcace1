"""Captions from tables: CSV, TSV, Parquet, JSON lines and Hub data sets with columns of any names."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..utils.folders import files_below, listed
from ..utils.loading import loading
from .account import Account
from .caption_formats import suffix_of
from .caption_presets import COLUMNS
from .caption_values import Columns, captions_of_row
from .characters import marked_encoding
from .compressed import check_expansion, is_compressed, open_decompressed
from .subtitles import Rows

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
ROLES = ("video", "start", "end", "times", "middle", "text")
UNITS = {"s": 1.0, "ms": 1000.0}  # of them in a second
BLOCK_BYTES = 2**24  # of a CSV file in memory; no row may be longer
_BATCH_ROWS = 1024
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[^:/]*){0,2}")


def parse_columns(columns: Sequence[str]) -> Columns:
    """Parses `video=COLUMN`, `start=COLUMN:ms` and so on.

    Raises:
        ValueError: A word has another form, or the roles do not make up a caption.
    """
    names: dict[str, str] = {}
    units: dict[str, float] = {}
    for word in columns:
        role, equals, column = word.partition("=")
        name, colon, unit = column.rpartition(":")
        if role in ("start", "end", "times", "middle"):
            units[role] = UNITS.get(unit, 1.0) if colon else 1.0
            column = name if colon and unit in UNITS else column
        if not equals or role not in ROLES or not column or role in names:
            raise ValueError(
                f"caption_columns has {word!r}: give each of {', '.join(ROLES)} at most once, as NAME=COLUMN, or "
                "NAME=COLUMN:ms for times in milliseconds"
            )
        names[role] = column
    timed = {"start", "end", "times", "middle"} & set(names)
    if not {"video", "text"} <= set(names) or timed not in (set(), {"start", "end"}, {"start"}, {"times"}, {"middle"}):
        raise ValueError(
            f"caption_columns names {', '.join(names) or 'nothing'}: give video and text, and start and end, or times "
            "(a column of [start, end]), or middle; without times a caption describes the complete video"
        )
    return Columns(names, units)


def is_hub_id(source: str | Path) -> bool:
    """Whether this is the id of a Hub data set, `owner/name:configuration:split`, and no file or folder."""
    suffix = suffix_of(Path(str(source).partition(":")[0]))
    known = suffix in (*TABLE_SUFFIXES, ".json", ".txt", ".vtt", ".srt", ".json3", ".srv3")
    return not Path(source).exists() and not known and _HUB_ID.fullmatch(str(source)) is not None


def is_table(source: str | Path, format: str | None, columns: Sequence[str] | None) -> bool:
    """Whether captions are read as a table, because of what was asked for or of what it is."""
    suffix = suffix_of(Path(source))
    return bool(columns) or format in COLUMNS or suffix in (".tsv", ".parquet") or is_hub_id(source)


def table_files(path: Path, account: Account | None = None) -> list[Path]:
    """The file itself, or the sorted tables in a folder; none for a Hub data set. All others are accounted for.

    Raises:
        ValueError: There is no such file, or the folder holds no table.
    """
    if is_hub_id(path):
        return []
    if not path.exists():
        raise ValueError(
            f"captions {path} not found: give a {', '.join(TABLE_SUFFIXES)} file, a folder of them, or a Hub data set "
            "such as owner/name:configuration:split"
        )
    found = files_below(path) if path.is_dir() else [path]
    files = [file for file in found if suffix_of(file) in TABLE_SUFFIXES]
    if not files:
        given = listed([str(file) for file in found])
        raise ValueError(f"{path} holds no table: give {', '.join(TABLE_SUFFIXES)} files, not {given or 'nothing'}")
    if account is not None and path.is_dir():
        account.read["caption files"] += len(found)
        account.used["caption files"] += len(files)
        for file in sorted(set(found) - set(files)):
            account.leave_out("caption files", "is no table", str(file))
    return files


def load_hub_captions(source: str):
    """Loads `owner/name:configuration:split` (default: the split `train`); never runs code of the data set."""
    from datasets import load_dataset

    name, configuration, split = [*str(source).split(":"), "", ""][:3]
    with loading(name, "a file, a folder or a Hub data set such as owner/name:configuration:split"):
        return load_dataset(name, configuration or None, split=split or "train")


def read_table(
    source: Path,
    format: str | None,
    columns: Sequence[str] | None,
    encoding: str | None,
    account: Account | None = None,
) -> Rows:
    """Reads the rows of one or many tables; memory holds one batch of them.

    Args:
        source: A file, a folder of tables, or a Hub data set.
        format: A name in [`COLUMNS`], if `columns` is None.
        columns: See [`parse_columns`]; default: columns of these names.
        encoding: Encoding of CSV, TSV and JSON lines; default: UTF-8, or what a byte order mark says.
        account: Counts the files of a folder.

    Yields:
        `(where, video, start, end, text)` of each caption. `start` is None where a row has no time, and `text` is
        empty where it has no text.

    Raises:
        ValueError: A column is missing, or a value cannot be read. The message names file and row.
    """
    if columns and format in COLUMNS:
        raise ValueError(f"caption_format {format!r} and caption_columns both name columns: give one of the two")
    if format not in (None, *COLUMNS):
        raise ValueError(f"caption_format {format!r} has no table of columns: leave it or caption_columns out")
    asked = parse_columns(columns or COLUMNS[format]) if columns or format else None
    files = table_files(source, account)
    folders: dict[str, str] = {}
    for file in files or [source]:
        name = str(file)
        kind = suffix_of(file) if files else "hub"
        dataset = load_hub_captions(str(source)) if kind == "hub" else None
        available = dataset.column_names if dataset is not None else _column_names(file, kind, encoding)
        chosen = asked or parse_columns([f"{r}={r}" for r in ROLES if r in available or r in ("video", "text")])
        _check_columns(chosen, available, name)
        wanted = list(dict.fromkeys(chosen.names.values()))
        batches: Iterator[list[dict[str, Any]]]
        if dataset is not None:
            batches = map(_rows, dataset.select_columns(wanted).iter(_BATCH_ROWS))
        else:
            batches = _batches(file, kind, wanted, encoding)
        number = 0
        for batch in batches:
            for record in batch:
                number += 1
                yield from captions_of_row(record, chosen, folders, f"{name}, row {number}")


def _check_columns(chosen: Columns, available: Sequence[str], name: str) -> None:
    missing = [column for column in chosen.names.values() if column not in available]
    twice = [column for column in chosen.names.values() if list(available).count(column) > 1]
    if twice:
        raise ValueError(f"{name} has the column {twice[0]!r} twice: rename one of the two")
    if missing:
        fitting = [f for f, c in COLUMNS.items() if set(parse_columns(c).names.values()) <= set(available)]
        hint = f" These are the columns of {fitting[0]}: give --caption_format {fitting[0]}." if fitting else ""
        raise ValueError(
            f"{name} has no column {', '.join(map(repr, missing))}, but {', '.join(map(repr, available)) or 'none'}."
            f"{hint} Name them with --caption_columns, such as video=COLUMN start=COLUMN end=COLUMN text=COLUMN"
        )


def _rows(batch: dict[str, list]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values)) for values in zip(*batch.values())]


def _column_names(file: Path, kind: str, encoding: str | None) -> list[str]:
    if kind == ".parquet":
        return _parquet(file).schema_arrow.names
    check_expansion(file)
    if kind == ".jsonl":
        return list(dict.fromkeys(next(_json_lines(file, encoding), [{}])[0]))
    return _open_csv(file, kind, encoding).schema.names


def _batches(file: Path, kind: str, wanted: list[str], encoding: str | None) -> Iterator[list[dict[str, Any]]]:
    import pyarrow as pa

    try:
        if kind == ".jsonl":
            yield from _json_lines(file, encoding)
        elif kind == ".parquet":
            for batch in _parquet(file).iter_batches(_BATCH_ROWS, columns=wanted):
                yield batch.to_pylist()
        else:
            for batch in _open_csv(file, kind, encoding, wanted):
                for begin in range(0, batch.num_rows, _BATCH_ROWS):
                    yield batch.slice(begin, _BATCH_ROWS).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _parquet(file: Path):
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    if is_compressed(file):
        raise ValueError(f"{file}: a Parquet file is compressed inside: decompress the file around it")
    try:
        return ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _open_csv(file: Path, kind: str, encoding: str | None, wanted: list[str] | None = None):
    import pyarrow as pa
    from pyarrow import csv

    types = {column: pa.string() for column in wanted or ()}
    try:
        return csv.open_csv(
            open_decompressed(file),
            csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, encoding=encoding or _encoding(file)),
            csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ",", newlines_in_values=True),
            csv.ConvertOptions(include_columns=wanted, column_types=types, strings_can_be_null=False),
        )
    except (pa.ArrowException, OSError, LookupError, UnicodeError) as error:
        raise ValueError(f"{file} cannot be read as {kind[1:]}: {error}") from error


def _encoding(file: Path) -> str:
    with open_decompressed(file) as content:
        return marked_encoding(content.read(4)) or "utf-8"


def _json_lines(file: Path, encoding: str | None) -> Iterator[list[dict[str, Any]]]:
    with io.TextIOWrapper(open_decompressed(file), encoding=encoding or _encoding(file), newline="\n") as lines:
        number = 0
        try:
            for line in lines:
                number += 1
                record = json.loads(line) if line.strip() else None
                if record is not None and not isinstance(record, dict):
                    raise ValueError(f"not a JSON object but {line[:80]!r}")
                if record is not None:
                    yield [record]
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number}: cannot be read as a line of JSON: {error}") from error
