"""Opens text: files, folders and Hub data sets become batches of texts."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.addresses import public_address
from ..utils.loading import loading
from ..utils.messages import nearest
from .compressed import check_expansion
from .source_files import combined_hash, content_hashes
from .text_files import check_json_lines, kind_of, not_utf8, place_of, text_files
from .token_tasks import TextError

if TYPE_CHECKING:  # stored blocks are read without `datasets`
    from datasets import Dataset, IterableDataset

BATCH_TEXTS = 1000  # tokenized at a time


def load_text(
    source: str, split: str = "train", text_column: str = "text", streaming: bool = False
) -> "Dataset | IterableDataset":
    """Opens a text source as a data set with the single column `text`.

    Args:
        source: A file or a folder, with its subfolders, of `.txt`, `.jsonl`, `.json` or `.parquet` files, also
            compressed (`.gz`, `.xz`, ...), or a Hub id, with the configuration after a colon if it has several
            (`"Salesforce/wikitext:wikitext-103-raw-v1"`).
        split: Split of a Hub data set. In a folder, the files whose names start with it (all files if none starts with
            `train`).
        text_column: Column that holds the text.
        streaming: Read or download the files while iterating, without a copy on disk.

    Returns:
        A `datasets.Dataset`, or a `datasets.IterableDataset` with `streaming`.

    Raises:
        ValueError: The source does not exist, is damaged, has no such column or holds no text.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    path, files = Path(source), list[Path]()
    if path.exists():
        files, kind = text_files(path, split)
        for file in files:
            check_expansion(file)
            if kind == "json":
                check_json_lines(file)
        # `datasets` identifies files by their names and times only.
        name = None if streaming else f"content-{combined_hash(content_hashes(files))[:16]}"
        try:
            names = [glob.escape(str(p)) for p in files]  # load_dataset takes them as patterns
            dataset = load_dataset(kind, name, data_files=names, split="train", streaming=streaming)
        except (DatasetGenerationError, StopIteration, ValueError) as error:  # without rows: the last two
            reason = error.__cause__ or str(error) or "it is empty"
            where = next(filter(None, map(not_utf8, files)), source)
            raise ValueError(f"{where} cannot be read as text: {reason}") from error
    elif path.is_absolute() or source.startswith(".") or kind_of(path) or source.count("/") > 1:
        raise ValueError(f"{public_address(source)} does not exist: give a file, a folder or a Hub data set id")
    else:
        name, _, configuration = source.partition(":")
        with loading(name, "a file, a folder or a Hub data set id"):
            dataset = load_dataset(name, configuration or None, split=split, streaming=streaming)
    columns = dataset.column_names or list(_first_row(dataset, source, files))  # a stream may not know them yet
    if text_column not in columns:
        near = nearest(text_column, columns)
        raise ValueError(f"{source} has no column {text_column!r}: it has {', '.join(columns) or 'none'}{near}")
    dataset = dataset.select_columns(text_column)
    return dataset if text_column == "text" else dataset.rename_column(text_column, "text")


def _first_row(dataset: "IterableDataset", source: str, files: list[Path]) -> dict:
    try:
        return next(iter(dataset), {})
    except ValueError as error:  # of the encoding, or of rows of different types
        where = next(filter(None, map(not_utf8, files)), source)
        raise ValueError(f"{where} cannot be read as text: {error}") from error


def batches_of(dataset: "Dataset | IterableDataset", source: str, files: list[Path]) -> Iterator[list]:
    """Yields the texts of a data set, `BATCH_TEXTS` at a time; an error of its files names them."""
    from datasets.exceptions import DatasetGenerationError

    try:
        for batch in dataset.iter(batch_size=BATCH_TEXTS):
            yield batch["text"]
    except (ValueError, KeyError, DatasetGenerationError) as error:
        where = next(filter(None, map(not_utf8, files)), source)
        raise ValueError(f"{where} cannot be read as text: {error.__cause__ or error}") from error


@contextmanager
def naming_the_row(files: list[Path]) -> Iterator[None]:
    """Adds file and line, or the row, to a [`TextError`]."""
    try:
        yield
    except TextError as error:
        raise ValueError(f"{place_of(files, error.row) or f'row {error.row + 1}'}: {error}") from error
