"""Reads a task's data: a Hub data set, or a folder in the official layout."""

import csv
import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from datasets import load_dataset
from transformers.utils import logging

from ..utils.loading import loading
from ..utils.messages import number_of

logger = logging.get_logger(__name__)


def read_rows(task, source: str | None, split: str, limit: int | None = None, labelled: bool = False) -> list[dict]:
    """Reads the rows of one split.

    Args:
        task: A [`Task`].
        source: Folder of the task, or a folder that contains it under its official name; files may end in `.xz`.
            `None` reads from the Hub.
        split: One of `task.files`.
        limit: Maximum number of rows, drawn at random with a fixed seed.
        labelled: Whether every row must have a label.

    Raises:
        FileNotFoundError: The folder or file does not exist.
        ValueError: The task has no such split, the file has another layout or no rows, or labels are missing.
    """
    if split not in task.files:
        raise ValueError(f"{task.title} has no split {split!r}: choose one of {', '.join(task.files)}")
    if task.own is not None:
        if source is not None:
            raise ValueError(f"--data {source}: {task.own.path} names the files of {task.title}: leave out --data")
        rows = task.own.rows[split]
    elif source is None:
        if task.data is None:
            raise ValueError(f"{task.title} is not on the Hub: give --data, the folder with its files")
        name, configuration = task.data
        with loading(name, "--data, the folder of the task's official files"):
            rows = [task.row(row) for row in load_dataset(name, configuration, split=split)]
    else:
        path = find_file(task, source, split)
        with official_layout(path):
            rows = task.parse(path, split)
        if not rows:
            raise ValueError(f"{path} holds no rows: give the official file")
    rows = [{"id": i, **row} for i, row in enumerate(rows)]
    if limit is not None and limit < len(rows):
        kept = np.random.default_rng(0).permutation(len(rows))[:limit]
        rows = [rows[i] for i in sorted(kept)]
    missing = sum(row["label"] is None for row in rows)
    if labelled and missing:
        raise ValueError(
            f"{missing} of {len(rows)} rows of {task.title}'s {split} split ({source or 'the Hub'}) have no label, so "
            "it cannot be used for training or scoring; --submission true writes the official submission file for it"
        )
    return rows


def find_file(task, source: str | Path, split: str) -> Path:
    """Returns the path of a split's official file.

    Args:
        task: A [`Task`] or [`ZeroShot`].
        source: Folder of the task, or a folder that contains it under its official name.
        split: One of `task.files`.

    Raises:
        FileNotFoundError: The folder or file does not exist; the message says what the folder contains.
    """
    source = Path(source)
    or_hub = ", or omit --data to read from the Hub" if getattr(task, "data", None) else ""
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder: give the folder of {task.title}{or_hub}")
    parts = Path(task.folder).parts
    folders = [source, *(source.joinpath(*parts[i:]) for i in range(len(parts) - 1, -1, -1))]
    for folder in folders:
        if path := _existing(folder / task.files[split]):
            return path
    deepest = next(folder for folder in reversed(folders) if folder.is_dir())
    content = sorted(p.name for p in deepest.iterdir() if not p.name.startswith("."))
    raise FileNotFoundError(
        f"{task.title}'s {split} split is in {task.files[split]}, but {deepest} contains only "
        f"{', '.join(content[:8]) or 'nothing'}: put the file there{or_hub}"
    )


def companion_file(path: Path, name: str, what: str) -> Path:
    """Returns the file `name` in the folder of `path`, or `name.xz`.

    Args:
        path: File of the task.
        name: Name of the file that belongs to it.
        what: What that file contains, for the message.

    Raises:
        FileNotFoundError: There is no such file.
    """
    found = _existing(path.with_name(name))
    if found is None:
        raise FileNotFoundError(f"{path.with_name(name)} is missing: put the file with {what} of {path.name} there")
    return found


def _existing(path: Path) -> Path | None:
    """The file itself or its compressed form."""
    return next((file for file in (path, path.with_name(f"{path.name}.xz")) if file.is_file()), None)


@contextmanager
def official_layout(path: Path) -> Iterator[None]:
    """Turns errors from reading a file with another layout into a `ValueError` that names the file."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, csv.Error, lzma.LZMAError, EOFError, RecursionError) as error:
        raise ValueError(
            f"{path} is not in the official layout ({type(error).__name__}: {error}): give the official file"
        ) from error


def open_text(path: Path) -> TextIO:
    """Opens a UTF-8 file, which may be compressed (`.xz`)."""
    opened = lzma.open if path.suffix == ".xz" else open
    return opened(path, "rt", encoding="utf-8-sig", newline="")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number, from 1, of each line that is not blank, and its text without white space around it."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.strip()


def read_table(
    path: Path, columns: Iterable[str] = (), delimiter: str = "\t", quoted: bool = False, skip_ragged: bool = False
) -> list[dict]:
    """Reads a table with a header line.

    Args:
        path: The file; it may be compressed (`.xz`).
        columns: Columns that must exist.
        delimiter: Separator of the fields.
        quoted: Whether fields may be in quotation marks.
        skip_ragged: Skip lines that do not have as many fields as the header, with a warning, instead of raising.

    Raises:
        ValueError: A column is missing, or a line does not have as many fields as the header.
    """
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
        header = next(reader, [])
        check_fields(path, header, columns)
        rows, ragged = [], []
        for number, fields in enumerate(reader, 2):
            if len(fields) == len(header):
                rows.append(dict(zip(header, fields)))
                continue
            ragged.append(
                f"line {number} of {path} has {number_of(len(fields), 'field')}, but the header has {len(header)}"
            )
            if not skip_ragged:
                raise ValueError(ragged[0])
    if ragged:
        logger.warning(f"Skipped {number_of(len(ragged), 'broken line')}, the first because {ragged[0]}.")
    return rows


def read_json_lines(path: Path, columns: Iterable[str] = ()) -> list[dict]:
    """Reads one JSON object per line.

    Raises:
        ValueError: A line is not a JSON object, or one of the `columns` is missing.
    """
    rows = []
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} of {path} is not a JSON object: {error}") from error
        check_fields(f"line {number} of {path}", row, columns)
        rows.append(row)
    return rows


def check_fields(where, found: Iterable[str], needed: Iterable[str]) -> None:
    """Raises a `ValueError` if `found` lacks one of the `needed` fields."""
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(
            f"{where} is not in the official layout: it has no {' and no '.join(map(repr, missing))}, only "
            f"{', '.join(map(repr, found)) or 'nothing'}"
        )


def class_of(labels: tuple[str, ...], path: Path) -> Callable[[str], int]:
    """Returns a function from a label, given by name or number, to its class index.

    The function raises a `ValueError` that names the file `path` if there is no such label.
    """
    known = {name: i for i, name in enumerate(labels)} | {str(i): i for i in range(len(labels))}

    def find(label: str) -> int:
        if label not in known:
            raise ValueError(f"{path} has the label {label!r}, but only {', '.join(labels)} are allowed")
        return known[label]

    return find
