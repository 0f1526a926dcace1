"""Captions from tables: CSV, TSV, Parquet, JSON lines and Hub data sets with columns of any names."""

from collections.abc import Sequence
from pathlib import Path

from ..utils.folders import files_below, listed
from ..utils.messages import nearest
from .account import Account
from .caption_formats import suffix_of
from .caption_presets import COLUMNS
from .caption_values import Columns, captions_of_row
from .subtitles import Rows
from .tables import TABLE_SUFFIXES, Table, is_hub_id

ROLES = ("video", "start", "end", "times", "middle", "text")
UNITS = {"s": 1.0, "ms": 1000.0}  # number of these units in a second


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
                f"caption_columns has {word!r}{nearest(role, ROLES)}: give each of {', '.join(ROLES)} at most once, "
                "as NAME=COLUMN, or "
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


def is_table(
    source: str | Path, format: str | None, columns: Sequence[str] | None, encoding: str | None = None
) -> bool:
    """Whether captions are read as a table, because of the arguments or because of the source itself."""
    suffix = suffix_of(Path(source))
    if columns or format in COLUMNS or suffix in (".tsv", ".parquet") or is_hub_id(source):
        return True
    return format is None and suffix == ".csv" and _names_videos(Path(source), encoding)


def _names_videos(file: Path, encoding: str | None) -> bool:
    """Whether a CSV file has captions of many videos; HowTo100M's files are named after their only video."""
    try:
        return file.is_file() and {"video", "text"} <= set(Table(file, encoding).columns)
    except ValueError:  # the reader of one video's file says what is wrong
        return False


def table_files(path: Path, account: Account | None = None) -> list[Path]:
    """The file itself, or the sorted tables in a folder; none for a Hub data set. `account` gets all other files.

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
        raise ValueError(f"{path} holds no table, only {given or 'nothing'}: give {', '.join(TABLE_SUFFIXES)} files")
    if account is not None and path.is_dir():
        account.read["caption files"] += len(found)
        account.used["caption files"] += len(files)
        for file in sorted(set(found) - set(files)):
            account.leave_out("caption files", "is not a table", str(file))
    return files


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
        raise ValueError(f"caption_format {format!r} is not a format of tables: leave it out, or caption_columns")
    asked = parse_columns(columns or COLUMNS[format]) if columns or format else None
    files = table_files(source, account)
    folders: dict[str, str] = {}
    for file in files or [source]:
        table = Table(file, encoding)
        chosen = asked or parse_columns([f"{r}={r}" for r in ROLES if r in table.columns or r in ("video", "text")])
        _check_columns(chosen, table.columns, str(file))
        for number, record in enumerate(table.rows(list(dict.fromkeys(chosen.names.values()))), 1):
            yield from captions_of_row(record, chosen, folders, f"{file}, row {number}")


def _check_columns(chosen: Columns, available: Sequence[str], name: str) -> None:
    missing = [column for column in chosen.names.values() if column not in available]
    twice = [column for column in chosen.names.values() if list(available).count(column) > 1]
    if twice:
        raise ValueError(f"{name} has the column {twice[0]!r} twice: rename one of the two")
    if missing:
        fitting = [f for f, c in COLUMNS.items() if set(parse_columns(c).names.values()) <= set(available)]
        remedy = f"They are {fitting[0]}'s: give --caption_format {fitting[0]}, or name" if fitting else "Name"
        raise ValueError(
            f"{name} has no column {', '.join(map(repr, missing))}, only {', '.join(map(repr, available)) or 'none'}"
            f"{nearest(missing[0], available) or '.'} {remedy} them with --caption_columns, such as video=COLUMN "
            "start=COLUMN end=COLUMN text=COLUMN"
        )
