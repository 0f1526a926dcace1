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

logger = logging.get_logger(__name__)


def read_rows(task, source: str | None, split: str, limit: int | None = None) -> list[dict]:
    """Rows of one split.

    Args:
        task: A [`Task`].
        source: A folder: the task's own, or one that holds it under its official name; files may end in `.xz`.
            `None` reads the Hub.
        split: Of the task.
        limit: At most so many rows, the same for every seed.

    Raises:
        FileNotFoundError: No such folder or file.
        ValueError: The file's layout is another, or rows to train on or to score have no label.
    """
    if split not in task.files:
        raise ValueError(f"{task.title} has no split {split!r}: it has {', '.join(task.files)}")
    if source is None:
        rows = _from_hub(task, split)
    else:
        path = find_file(task, source, split)
        with official_layout(path):
            rows = task.parse(path, split)
        if not rows:
            raise ValueError(f"{path} holds no rows")
    if limit is not None and limit < len(rows):
        kept = np.random.default_rng(0).permutation(len(rows))[:limit]
        rows = [rows[i] for i in sorted(kept)]
    return rows


def find_file(task, source: str | Path, split: str) -> Path:
    """The official file of a split.

    Raises:
        FileNotFoundError: It names the places that were tried and what the folder holds.
    """
    source = Path(source)
    or_hub = ", or leave --data out for the Hub" if getattr(task, "data", None) else ""
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is no folder: give the folder of {task.title}{or_hub}")
    parts = Path(task.folder).parts
    folders = [source, *(source.joinpath(*parts[i:]) for i in range(len(parts) - 1, -1, -1))]
    for folder in folders:
        if path := _perhaps_compressed(folder / task.files[split]):
            return path
    there = next(folder for folder in reversed(folders) if folder.is_dir())
    held = sorted(p.name for p in there.iterdir() if not p.name.startswith("."))
    raise FileNotFoundError(
        f"{task.title} has its {split} split in {task.files[split]}, which is not in {there} "
        f"(it holds {', '.join(held[:8]) or 'nothing'}): put it there{or_hub}"
    )


def beside(path: Path, name: str, what: str) -> Path:
    """The file `name`, which holds `what`, in the folder of `path`; it may end in `.xz`, too."""
    found = _perhaps_compressed(path.with_name(name))
    if found is None:
        raise FileNotFoundError(f"{path.with_name(name)} is missing: it holds {what} of {path.name}")
    return found


def _perhaps_compressed(path: Path) -> Path | None:
    return next((file for file in (path, path.with_name(f"{path.name}.xz")) if file.is_file()), None)


def _from_hub(task, split: str) -> list[dict]:
    if task.data is None:
        raise ValueError(f"{task.title} is not on the Hub: give --data, the folder that holds it")
    name, configuration = task.data
    dataset = load_dataset(name, configuration, split=split)
    return [{"id": i, **task.row(row)} for i, row in enumerate(dataset)]


def require_labels(task, rows: list[dict], split: str, source: str | None) -> None:
    """Raises a `ValueError` if a row has no label."""
    missing = sum(row["label"] is None for row in rows)
    if missing:
        raise ValueError(
            f"{missing} of {len(rows)} rows of {task.title}'s {split} split ({source or 'the Hub'}) have no label: it "
            "cannot be trained on or scored; --submission true writes the official submission file for it"
        )


@contextmanager
def official_layout(path: Path) -> Iterator[None]:
    """What a reader stumbles over in a file of another layout becomes a `ValueError` that names the file."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, csv.Error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path} is not in the official layout: {type(error).__name__} {error}") from error


def open_text(path: Path) -> TextIO:
    """Opens a UTF-8 file, also one that ends in `.xz`."""
    opened = lzma.open if path.suffix == ".xz" else open
    return opened(path, "rt", encoding="utf-8-sig", newline="")


def read_table(
    path: Path,
    columns: Iterable[str] = (),
    delimiter: str = "\t",
    quoted: bool = False,
    leave_out_ragged: bool = False,
) -> list[dict]:
    """Rows of a table with a header line.

    Args:
        leave_out_ragged: Lines with another number of fields than the header are counted in a warning, no error.

    Raises:
        ValueError: A column is missing, or a line has another number of fields than the header.
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
            ragged.append(f"line {number} of {path} has {len(fields)} fields, but the header has {len(header)}")
            if not leave_out_ragged:
                raise ValueError(ragged[0])
    if ragged:
        logger.warning(f"{len(ragged)} lines are left out: the first, {ragged[0]}.")
    return rows


def read_json_lines(path: Path, columns: Iterable[str] = ()) -> list[dict]:
    """One JSON object a line.

    Raises:
        ValueError: A line is none, or lacks a field.
    """
    rows = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {path} is no JSON object: {error}") from error
            check_fields(f"line {number} of {path}", row, columns)
            rows.append(row)
    return rows


def check_fields(where, found: Iterable[str], needed: Iterable[str]) -> None:
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(
            f"{where} is not in the official layout: it has no {' and no '.join(map(repr, missing))}, but "
            f"{', '.join(map(repr, found)) or 'nothing'}"
        )


def class_of(labels: tuple[str, ...], path: Path) -> Callable[[str], int]:
    """Label as the file has it -> class; names as well as numbers are known."""
    known = {name: i for i, name in enumerate(labels)} | {str(i): i for i in range(len(labels))}

    def find(label: str) -> int:
        if label not in known:
            raise ValueError(f"{path} has the label {label!r}, which is none of {', '.join(labels)}")
        return known[label]

    return find
