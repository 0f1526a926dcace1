"""A table of runs, from what is kept of them and nothing else: `table.md`, `table.json`, `figure.png`."""

import json
from pathlib import Path
from statistics import mean, stdev

from ...utils.io import atomic_write
from .tables import ROWS, TABLES

ATTRIBUTES = ("colour", "shape", "motion")


def write_table(name: str, results: dict[int, dict[str, dict]], folder: Path) -> Path:
    """Writes a table of `TABLES` into `folder`.

    Args:
        name: Of the table.
        results: For each seed, by student, what is kept of its run. Students without any run have no row.
        folder: Is made.

    Returns:
        The path of `table.md`.

    Raises:
        ValueError: Runs with different numbers of sequences a step, which cannot be compared at equal steps.
    """
    title, students = TABLES[name]
    sizes = {kept[s]["sequences_per_step"] for kept in results.values() for s in students if s in kept}
    if len(sizes) > 1:
        raise ValueError(
            f"the runs of table {name} took {' and '.join(map(str, sorted(sizes)))} sequences a step: run all of them "
            "on as many processes"
        )
    rows = [row for row in (_row(student, results) for student in students) if row["seeds"]]
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "table.json", json.dumps({"title": title, "rows": rows}, indent=1) + "\n")
    atomic_write(folder / "table.md", _markdown(title, rows, results))
    _figure(title, rows, results, folder / "figure.png")
    return folder / "table.md"


def _row(student: str, results: dict[int, dict[str, dict]]) -> dict:
    """Mean and standard deviation over the seeds that were run, of every value of a row."""
    runs = {seed: kept[student] for seed, kept in results.items() if student in kept}
    row = {"student": student, "what": ROWS[student].what, "seeds": sorted(runs)}
    values = {"mlm_loss": [], "steps": [], "tflop": [], "mean": [], "teacher": [], "gap_closed": []}
    values |= {attribute: [] for attribute in ATTRIBUTES}
    for seed, run in runs.items():
        for key in ("mlm_loss", "steps", "tflop"):
            values[key].append(run[key])
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
    """What text alone and the default teacher score, of one seed."""
    by_default = [run for run in kept.values() if run["teacher"] == {}]
    if "text_only" not in kept or not by_default:
        return None
    bottom, top = accuracy(kept["text_only"]["probe"]), accuracy(by_default[0]["teacher_probe"])
    return (bottom, top) if top > bottom else None


def _cell(value: dict | None, digits: int = 2) -> str:
    if value is None:
        return ""
    spread = "" if value["std"] is None else f" ± {value['std']:.{digits}f}"
    return f"{value['mean']:.{digits}f}{spread}"


def _markdown(title: str, rows: list[dict], results: dict) -> str:
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    probed = any(row["mean"] for row in rows)
    lines = [
        f"**{title}.** Seeds {', '.join(map(str, seeds))}{'; mean ± standard deviation' if len(seeds) > 1 else ''}."
    ]
    head = ["student"] + ([*ATTRIBUTES, "mean", "gap closed", "its teacher"] if probed else []) + ["MLM loss", "steps"]
    head += ["TFLOP", "seeds"]
    lines += ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    if probed:
        chance = {
            s["attribute"]: s["chance"] for kept in results.values() for run in kept.values() for s in run["probe"]
        }
        cells = [f"{chance[a]:.2f}" for a in ATTRIBUTES] + [f"{mean(chance.values()):.2f}"]
        lines.append(f"| chance | {' | '.join(cells)} |{' |' * (len(head) - 5)}")
    for row in rows:
        cells = [row["what"]]
        if probed:
            taught = row["student"] not in ("text_only", "text_only_equal_compute")
            gap, cells = row["gap_closed"], cells + [_cell(row[key]) for key in (*ATTRIBUTES, "mean")]
            cells += [f"{100 * gap['mean']:.0f} %" if gap and row["student"] != "text_only" else ""]
            cells += [_cell(row["teacher"]) if taught else ""]
        cells += [_cell(row["mlm_loss"]), f"{row['steps']['mean']:.0f}", f"{row['tflop']['mean']:.1f}"]
        lines.append(f"| {' | '.join(cells)} | {len(row['seeds'])} |")
    return "\n".join(lines) + "\n"


def _figure(title: str, rows: list[dict], results: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    key = "mean" if any(row["mean"] for row in rows) else "mlm_loss"
    figure, axis = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.4), layout="constrained")
    values = [row[key]["mean"] for row in rows]
    spread = [row[key]["std"] or 0 for row in rows]
    colours = ["#9aa5b1" if not ROWS[row["student"]].objectives else "#2f6fab" for row in rows]
    bars = axis.barh([row["what"] for row in rows], values, xerr=spread, height=0.7, color=colours)
    axis.bar_label(bars, [f" {value:.2f}" for value in values], padding=2, fontsize=9)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    if key == "mean":
        axis.set_xlim(0, 1.1)
        run = next(run for kept in results.values() for run in kept.values())
        axis.axvline(mean(score["chance"] for score in run["probe"]), color="#d64545", lw=1)
        axis.set_xlabel("probe accuracy on nouns it never saw, mean of three attributes; red: chance")
    else:
        axis.set_xlabel("masked-language-model loss on held-out text")
    axis.set_title(title, fontsize=11)
    figure.savefig(path, dpi=120)
    plt.close(figure)
