"""Files of text: which ones a folder holds, and where in a file something is wrong."""

import logging
from pathlib import Path

import fsspec

from ..utils.folders import files_below, listed
from ..utils.messages import number_of

logger = logging.getLogger(__name__)

_LOADERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")


def text_files(path: Path, split: str, quiet: bool = False) -> tuple[list[Path], str]:
    """The text files of a source, and their loader in `datasets`. The log names the other files, unless `quiet`.

    Raises:
        ValueError: There are none, they are empty, or of several kinds.
    """
    found = [path] if path.is_file() else files_below(path)
    files = [p for p in found if kind_of(p)]
    if not files:
        what = "is not a text file" if path.is_file() else "holds no text file"
        raise ValueError(f"{path} {what}: give {', '.join(_LOADERS)} files")
    of_split = [p for p in files if p.stem.startswith(split)]
    if not of_split and split != "train":
        raise ValueError(f"no file in {path} starts with {split!r}: it holds {', '.join(p.name for p in files)}")
    files = of_split or files
    others = [str(p) for p in found if p not in set(files)]
    if others and not quiet:
        logger.warning("%s: left out %s: %s", path, number_of(len(others), "file"), listed(others))
    if not any(p.stat().st_size for p in files):
        raise ValueError(f"{path} holds no text: its files are empty ({', '.join(p.name for p in files)})")
    kinds = {kind_of(p) or "" for p in files}
    if len(kinds) > 1:
        raise ValueError(f"{path} holds files of several kinds ({', '.join(sorted(kinds))}): keep one kind per folder")
    return files, kinds.pop()


def check_json_lines(path: Path) -> None:
    """Checks that every line of a .jsonl file is an object: a bare `null` makes Arrow's reader end the process."""
    lines = ".jsonl" in path.name.lower()
    with fsspec.open(path, "rb", compression="infer") as file:
        for number, line in enumerate(file, 1):
            begin = line.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            if begin and begin not in (b"{" if lines else b"{["):
                raise ValueError(f"{path}, line {number}: not a JSON object ({line[:40]!r}...)")
            if begin and not lines:
                return


def kind_of(path: Path) -> str | None:
    """The loader of `datasets` for a file, by its suffix without compression; None if there is none."""
    name = path.with_suffix("") if path.suffix.lower() in _COMPRESSIONS else path
    return _LOADERS.get(name.suffix.lower())


def not_utf8(path: Path) -> str | None:
    """The file and the line that is not UTF-8; None if there is none."""
    if kind_of(path) == "parquet":
        return None
    with fsspec.open(path, "rb", compression="infer") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"{path}, line {number} (byte {error.start} of it)"
    return None


def place_of(files: list[Path], row: int) -> str | None:
    """File and line of a row, counted from 0 over all files; None if the rows are in no files."""
    for path in files:
        if kind_of(path) == "parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.ParquetFile(path).metadata.num_rows
            if row < rows:
                return f"{path}, row {row + 1}"
            row -= rows
            continue
        with fsspec.open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, 1):
                if kind_of(path) == "json" and ".jsonl" not in path.name.lower():
                    return str(path)
                if kind_of(path) == "json" and not line.strip():
                    continue
                if row == 0:
                    return f"{path}, line {number}"
                row -= 1
    return None
