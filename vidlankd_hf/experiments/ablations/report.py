"""The table of an ablation, made from the stored results: `table.md`, `table.json` and `figure.png`."""

import json
from pathlib import Path
from statistics import mean, stdev

from ...utils.extras import requires_extra
from ...utils.figures import COLORS, score_legend, score_rows
from ...utils.io import atomic_write
from ...utils.json_files import read_json
from ...utils.messages import name_seeds
from .scores import column_values
from .tables import ROWS, TABLES

ATTRIBUTES = ("colour", "shape", "motion")
TEXT_ONLY = tuple(name for name, row in ROWS.items() if not row.objectives and not row.continues_teacher)
LEGEND = """
Tasks: scores from 0 to 100, mean ± standard deviation over the runs (seeds of training times seeds of fine-tuning).
`*`: differs from text only at p < 0.05 by a paired randomization test over the examples. Collapsed: the answers are
constant, or hardly better than the best constant answer; the mean includes such runs.""".strip()


def read_kept(folder: str | Path) -> dict[int, dict[str, dict]]:
    """Reads the stored results below `folder`: `{seed: {row name: result}}`."""
    return {
        int(path.name.partition("-")[2]): {
            file.stem: read_json(file, dict, "remove it to train again") for file in path.glob("*.json")
        }
        for path in sorted(Path(folder).glob("seed-*"))
    }


def write_table(name: str, results: dict[int, dict[str, dict]], folder: Path, scores: dict | None = None) -> Path:
    """Writes a table of `TABLES` into `folder`.

    Args:
        name: Name of the table.
        results: For each seed the stored results by row name. Rows without any result are left out.
        folder: Output folder; it is created.
        scores: For each seed the stored scores by row name and task.

    Returns:
        The path of `table.md`.

    Raises:
        ValueError: The runs used different numbers of sequences per step, so equal steps are not comparable.
    """
    rows = table_rows(name, results, scores)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "table.json", json.dumps({"title": TABLES[name][0], "rows": rows}, indent=1) + "\n")
    atomic_write(folder / "table.md", markdown_table(name, rows, results) + "\n")
    draw(name, rows, results, folder / "figure.png")
    return folder / "table.md"


def table_rows(name: str, results: dict[int, dict[str, dict]], scores: dict | None = None) -> list[dict]:
    """Computes the rows of a table: mean and standard deviation over seeds of every value.

    Rows have `tasks`, from [`column_values`], if any student has scores. Arguments and errors are those of
    [`write_table`].
    """
    return rows_of(TABLES[name][1], f"table {name}", results, scores)


def rows_of(students: list[str], what: str, results: dict[int, dict[str, dict]], scores: dict | None) -> list[dict]:
    """Computes the rows of any table of students; see [`table_rows`]."""
    sizes = {kept[s]["sequences_per_step"] for kept in results.values() for s in students if s in kept}
    if len(sizes) > 1:
        raise ValueError(
            f"the runs of {what} used {' and '.join(map(str, sorted(sizes)))} sequences per step: run all of "
            "them on the same number of processes"
        )
    rows = [row for row in (row_of(student, results) for student in students) if row["seeds"]]
    if any(scores.values() if scores else ()):
        rows = [{**row, "tasks": column_values(scores, row["student"], TEXT_ONLY[0])} for row in rows]
    return rows


def row_of(student: str, results: dict[int, dict[str, dict]]) -> dict:
    """Computes mean and standard deviation over seeds of every value of one student."""
    runs = {seed: kept[student] for seed, kept in results.items() if student in kept}
    row = {"student": student, "what": ROWS[student].label, "seeds": sorted(runs)}
    names = ("mlm_loss", "mlm_accuracy", "steps", "tflop", "mean", "teacher", "gap_closed", *ATTRIBUTES)
    values: dict[str, list[float]] = {name: [] for name in names}
    for seed, run in runs.items():
        for key in ("mlm_loss", "mlm_accuracy", "steps", "tflop"):
            values[key] += [run[key]] if key in run else []
        if "probe" not in run:
            continue
        for score in run["probe"]:
            values[score["attribute"]].append(score["accuracy"])
        values["mean"].append(accuracy(run["probe"]))
        values["teacher"].append(accuracy(run["teacher_probe"]))
        gap = _gap(results[seed])
        if gap is not None:
            values["gap_closed"].append((accuracy(run["probe"]) - gap[0]) / (gap[1] - gap[0]))
    for key, several in values.items():
        row[key] = {"mean": mean(several), "std": stdev(several) if len(several) > 1 else None} if several else None
    return row


def accuracy(probe: list[dict]) -> float:
    """Mean accuracy over the attributes."""
    return mean(score["accuracy"] for score in probe)


def _gap(kept: dict[str, dict]) -> tuple[float, float] | None:
    """Scores of the text-only student and of the default teacher, for one seed."""
    by_default = [run for run in kept.values() if run["teacher"] == {}]
    if "text_only" not in kept or not by_default:
        return None
    bottom, top = accuracy(kept["text_only"]["probe"]), accuracy(by_default[0]["teacher_probe"])
    return (bottom, top) if top > bottom else None


def _chance(results: dict[int, dict[str, dict]]) -> dict[str, float]:
    return {s["attribute"]: s["chance"] for kept in results.values() for run in kept.values() for s in run["probe"]}


def _cell(value: dict | None, digits: int = 2) -> str:
    if value is None:
        return ""
    spread = "" if value["std"] is None else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"


def score_cell(value: dict | None) -> str:
    """Formats a score on a task, with a mark if it differs from the text-only student's and with collapsed runs."""
    if value is None:
        return ""
    collapsed = f" ({value['collapsed']} of {value['runs']} collapsed)" if value["collapsed"] else ""
    return f"{_cell(value, 1)}{'*' if value['p'] is not None and value['p'] < 0.05 else ''}{collapsed}"


def task_columns(rows: list[dict]) -> dict[str, str]:
    """Returns the columns of the tasks' main scores: name -> title."""
    found = {column: value["title"] for row in rows for column, value in row.get("tasks", {}).items()}
    return {column: title for column, title in found.items() if column.count("/") < 2}


def markdown_table(name: str, rows: list[dict], results: dict[int, dict[str, dict]], costs: bool = True) -> str:
    """Formats the rows of [`table_rows`] as a table with its title; `costs` adds steps and TFLOP."""
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    probed = any(row["mean"] for row in rows)
    spread = "; mean ± standard deviation" if len(seeds) > 1 else ""
    tasks = task_columns(rows)
    head = ["student"] + ([*ATTRIBUTES, "mean", "gap closed", "its teacher"] if probed else [])
    scored = any(row["mlm_accuracy"] for row in rows)
    head += [*tasks.values(), "MLM loss"] + ["MLM accuracy"] * scored + ["steps", "TFLOP"] * costs
    lines = [f"**{TABLES[name][0]}.** {name_seeds(seeds).capitalize()}{spread}.", ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    if probed:
        chance = _chance(results)
        cells = [f"{chance[a]:.2f}" for a in ATTRIBUTES] + [f"{mean(chance.values()):.2f}"]
        lines.append(f"| chance | {' | '.join(cells)} |{' |' * (len(head) - 5)}")
    for row in rows:
        cells = [row["what"]]
        if row["seeds"] != seeds:
            cells[0] += f" ({name_seeds(row['seeds'])})"
        if probed:
            gap = row["gap_closed"]
            cells += [_cell(row[key]) for key in (*ATTRIBUTES, "mean")]
            cells += [f"{round(100 * gap['mean'])} %" if gap and row["student"] != "text_only" else ""]
            cells += ["" if row["student"] in TEXT_ONLY else _cell(row["teacher"])]
        cells += [score_cell(row["tasks"].get(column)) for column in tasks]
        cells += [_cell(row["mlm_loss"])] + [_cell(row["mlm_accuracy"])] * scored
        cells += cost_cells(row) * costs
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", LEGEND] if tasks else lines)


def cost_cells(row: dict) -> list[str]:
    """Steps and TFLOP of a row."""
    return [f"{row['steps']['mean']:.0f}", f"{row['tflop']['mean']:.1f}"]


def draw(name: str, rows: list[dict], results: dict[int, dict[str, dict]], path: Path) -> None:
    """Draws one marker per seed for each student: probe accuracy, or the MLM loss where there is no probe."""
    with requires_extra("world"):
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

    probed = any(row["mean"] for row in rows)

    def score(run: dict) -> float:
        return accuracy(run["probe"]) if probed else run["mlm_loss"]

    scores = [{seed: score(results[seed][row["student"]]) for seed in row["seeds"]} for row in rows]
    taught = [bool(ROWS[row["student"]].objectives) for row in rows]
    colors = [COLORS["student" if has_teacher else "control"] for has_teacher in taught]
    figure = Figure(figsize=(8.5, 0.4 * len(rows) + 2), layout="constrained")
    axis = figure.subplots()
    score_rows(axis, [row["what"] for row in rows], scores, colors)
    lines = []
    if probed:
        for i, row in enumerate(rows):  # the line of a teacher runs through its consecutive rows
            if row["student"] not in TEXT_ONLY:
                axis.plot([row["teacher"]["mean"]] * 2, [i - 0.5, i + 0.5], color=COLORS["teacher"], lw=1.5, zorder=1)
        text_only = next((row["mean"]["mean"] for row in rows if row["student"] == "text_only"), None)
        lines.append(Line2D([], [], color=COLORS["teacher"], label="the row's teacher"))
        if text_only is not None:
            axis.axvline(text_only, color=COLORS["control"], ls="--", lw=1.5, zorder=1)
            lines.append(Line2D([], [], color=COLORS["control"], ls="--", label="text only"))
        axis.axvline(mean(_chance(results).values()), color=COLORS["chance"], lw=1.5, zorder=1)
        lines.append(Line2D([], [], color=COLORS["chance"], label="chance"))
        axis.set(xlim=(0, 1), xlabel="mean probe accuracy on unseen nouns")
    else:
        axis.set_xlabel("masked-language-model loss on held-out text")
    score_legend(figure, sorted({seed for row in rows for seed in row["seeds"]}), lines)
    axis.set_title(TABLES[name][0], fontsize=11)
    figure.savefig(path, dpi=120)
