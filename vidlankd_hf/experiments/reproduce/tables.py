"""Fills the paper's tables from stored results: `tables.md`, `tables.json` and `tables.csv`."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from ...utils.io import atomic_write
from ..ablations.report import ATTRIBUTES, LEGEND, rows_of, score_cell
from ..ablations.tables import ROWS
from .paper import DIAGNOSTICS, MODELS, PUBLISHED, TABLES, PaperTable

# Columns of our rows besides tasks: key in a row -> title.
PROBE = {**{name: f"probe: {name}" for name in ATTRIBUTES}, "mean": "probe: mean"}
COST = {"mlm_loss": "MLM loss", "steps": "steps", "tflop": "TFLOP"}


def fill_table(number: int, results: dict[int, dict[str, dict]], scores: dict, on_world: bool) -> dict[str, Any]:
    """Fills a table of the paper.

    Args:
        number: Number of the table.
        results: For each seed the stored results by row name.
        scores: For each seed the stored scores by row name and task.
        on_world: Whether the results are of the grounded world.

    Returns:
        `{"number", "title", "columns", "rows", "published", "missing", "reason"}`. `columns` maps names to titles,
        `rows` are those of [`rows_of`], `published` are rows of the paper for these columns, and `missing` are labels
        of rows without results. `reason` says why a table has no meaning for these data; it then has no rows.
    """
    table = TABLES[number]
    rows = rows_of(list(table.rows), f"the paper's table {number}", results, scores)
    columns = _columns(table, rows)
    reason = _reason(table, columns, rows, on_world)
    known = PUBLISHED.get(number, {})
    published = {label: {c: v for c, v in values.items() if c in columns} for label, values in known.items()}
    here = [row["student"] for row in rows]
    return {
        "number": number,
        "title": table.title,
        "reason": reason,
        "columns": {} if reason else columns,
        "rows": [] if reason else rows,
        "published": {} if reason else {label: values for label, values in published.items() if values},
        "missing": [] if reason else [ROWS[name].label for name in table.rows if name not in here],
    }


def _columns(table: PaperTable, rows: list[dict]) -> dict[str, str]:
    """The columns of tasks that belong to a table: name -> title."""
    found = {column: value["title"] for row in rows for column, value in row.get("tasks", {}).items()}
    if table.columns:  # of the diagnostics, the four main categories
        of_table = [column for column in found if column.startswith(table.columns) and ": " not in column]
        return {c: found[c] for c in of_table if c.count("/") < 2 or c.startswith(DIAGNOSTICS)}
    published = {column for values in PUBLISHED.get(1, {}).values() for column in values}
    return {column: title for column, title in found.items() if column.count("/") < 2 or column in published}


def _reason(table: PaperTable, columns: dict[str, str], rows: list[dict], on_world: bool) -> str | None:
    if table.columns and not columns:
        where = "; the grounded world has no such questions" if on_world else ""
        return f"its tasks were not scored: it needs {table.needs}{where}"
    if not rows:
        return "none of its students has a result"
    if not columns and not any(row["mean"] for row in rows):
        return "the paper compares scores on tasks, and no task is given: give --tasks or --task_file"
    return None


def write_tables(
    numbers: list[int], results: dict[int, dict[str, dict]], scores: dict, on_world: bool, folder: Path
) -> Path:
    """Writes tables of the paper into `folder` and returns the path of `tables.md`; see [`fill_table`]."""
    tables = [fill_table(number, results, scores, on_world) for number in numbers]
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "tables.json", json.dumps(tables, indent=1) + "\n")
    atomic_write(folder / "tables.csv", _csv(tables))
    atomic_write(folder / "tables.md", _markdown(tables, sorted(results)))
    return folder / "tables.md"


def _markdown(tables: list[dict], seeds: list[int]) -> str:
    lines = ["# The paper's tables, filled from these runs", ""]
    lines += [f"Seeds of training: {', '.join(map(str, seeds))}. Values are means ± standard deviations.", "", LEGEND]
    for table in tables:
        lines += ["", f"## Table {table['number']}: {table['title']}", ""]
        if table["reason"]:
            lines.append(f"No meaning for these data: {table['reason']}.")
            continue
        more = {k: title for k, title in {**PROBE, **COST}.items() if any(row[k] for row in table["rows"])}
        head = ["student", *table["columns"].values(), *more.values()]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for row in table["rows"]:
            cells = [row["what"], *(score_cell(row["tasks"].get(column)) for column in table["columns"])]
            cells += [_value(row[key], 0 if key == "steps" else 1 if key == "tflop" else 2) for key in more]
            lines.append(f"| {' | '.join(cells)} |")
        for label, values in table["published"].items():
            cells = [f"*{label}*", *(f"{values[c]:.1f}" if c in values else "" for c in table["columns"])]
            lines.append(f"| {' | '.join(cells)} |{' |' * len(more)}")
        if table["published"]:
            lines += ["", f"Rows in italics are published results of models with {MODELS}."]
        if table["missing"]:
            lines += ["", f"Without a result: {'; '.join(table['missing'])}."]
    return "\n".join(lines) + "\n"


def _value(value: dict | None, digits: int) -> str:
    if value is None:
        return ""
    spread = "" if value["std"] is None or digits == 0 else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"


def _csv(tables: list[dict]) -> str:
    """One line per value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "title", "source", "row", "column", "mean", "std", "runs", "collapsed", "p"])
    for table in tables:
        start = [table["number"], table["title"]]
        for row in table["rows"]:
            about = [*start, "ours", row["what"]]
            for column in table["columns"]:
                if value := row["tasks"].get(column):
                    writer.writerow(
                        [*about, column, *(value[key] for key in ("mean", "std", "runs", "collapsed", "p"))]
                    )
            for key in (*PROBE, *COST):
                if row[key]:
                    writer.writerow([*about, key, row[key]["mean"], row[key]["std"], len(row["seeds"]), "", ""])
        for label, values in table["published"].items():
            for column, value in values.items():
                writer.writerow([*start, "published", label, column, value, "", "", "", ""])
    return text.getvalue()
