"""Tiny task files and their tables, in the vocabulary of `downstream_data`."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml


def write_table(path: Path, rows: list[dict]) -> Path:
    """Writes rows in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        mark = {".csv": ",", ".tsv": "\t"}[path.suffix]
        path.write_text("\n".join(mark.join(map(str, line)) for line in [rows[0], *(row.values() for row in rows)]))
    return path


def write_task(path: Path, **content) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
