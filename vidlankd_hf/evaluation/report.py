"""The report of an evaluation, made from the stored results: `report.md`, `report.json` and `report.png`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from ..utils.extras import requires_extra
from ..utils.io import atomic_write
from . import TASKS
from .card import title_with_data
from .significance import paired_test

METHODS = {"masked": "masked scoring", "probe": "linear probe"}


def best_recipe(runs: list[dict]) -> list[dict]:
    """Returns the runs of the learning rate with the best median score, sorted by seed."""
    rates = sorted({run["learning_rate"] for run in runs})
    best = max(rates, key=lambda rate: median(run["score"] for run in runs if run["learning_rate"] == rate))
    return sorted((run for run in runs if run["learning_rate"] == best), key=lambda run: run["seed"])


def summarize(tuned: dict, scored: dict, names: list[str]) -> dict:
    """Computes the rows of the report.

    Args:
        tuned: `{task: {model: runs}}` with the results of [`finetune`].
        scored: `{set: {model: result}}` with the results of [`evaluate_zero_shot`].
        names: Names of the models. The others are tested against the first.

    Returns:
        `{"models", "tasks", "zero_shot"}`: the names, one row per task and model, and one row per set, method and
        model.
    """
    tasks = [_task_row(task, name, by_model, names[0]) for task, by_model in tuned.items() for name in names]
    zero_shot = [
        _zero_shot_row(name, method, model, by_model, names[0])
        for name, by_model in scored.items()
        for method in METHODS
        for model in names
    ]
    return {"models": names, "tasks": tasks, "zero_shot": zero_shot}


def _task_row(task: str, name: str, by_model: dict, reference: str) -> dict:
    every, runs = by_model[name], best_recipe(by_model[name])
    first, scores, p = runs[0], [run["score"] for run in runs], None
    if name != reference:
        others = [run["examples"] for run in best_recipe(by_model[reference])]
        p = paired_test(first["metric"], others, [run["examples"] for run in runs])
    return {
        "task": task,
        "title": title_with_data(TASKS[task], first.get("data")),
        "model": name,
        **{key: first[key] for key in ("metric", "learning_rate", "constant_score", "train_size", "eval_size")},
        "median": median(scores),
        "min": min(scores),
        "max": max(scores),
        "seeds": [run["seed"] for run in runs],
        "scores": [run["scores"] for run in runs],
        "learning_rates": sorted({run["learning_rate"] for run in every}),
        "collapsed": [
            {"seed": run["seed"], "learning_rate": run["learning_rate"], "how": run["collapsed"]}
            for run in every
            if run["collapsed"]
        ],
        "runs": len(every),
        "seconds": sum(run["seconds"] for run in every),
        "p": p,
        **({"left_out": first["left_out"]} if "left_out" in first else {}),
    }


def _zero_shot_row(name: str, method: str, model: str, by_model: dict, reference: str) -> dict:
    result, other = by_model[model][method], by_model[reference][method]
    row = {"set": name, "title": TASKS[name].title, "method": method, "model": model}
    row |= {key: by_model[model][key] for key in ("size", "chance", "majority")}
    row |= {key: value for key, value in (result or {"accuracy": None}).items() if key != "right"}
    compared = model != reference and result and other
    if "left_out" in by_model[model]:
        row["left_out"] = by_model[model]["left_out"]
    row["p"] = paired_test("right", *([{"scores": one["right"]}] for one in (other, result))) if compared else None
    return row


def write_report(summary: dict, folder: str | Path) -> Path:
    """Writes the report into `folder` and returns the path of `report.md`.

    Raises:
        ImportError: The extra `downstream` is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "report.json", json.dumps(summary, indent=1) + "\n")
    atomic_write(folder / "report.md", _markdown(summary))
    _figure(summary, folder / "report.png")
    return folder / "report.md"


def _markdown(summary: dict) -> str:
    lines = ["# Downstream evaluation", ""]
    if summary["tasks"]:
        header = ("Task", "Model", "Metric", "Median", "Min - max", "Best constant answer", "Collapsed runs")
        header += ("Learning rate", "p", "Train / eval rows", "Minutes")
        lines += [
            "## Fine-tuned",
            "",
            "Scores of the main metric over seeds, from 0 to 100. `Best constant answer`: the best score with one",
            "answer to all examples. A run has collapsed if its answers are constant or its score is hardly better",
            "than that; the median includes such runs. `p`: paired randomization test over the examples, against",
            f"{summary['models'][0]}.",
            "",
            *_table(header, map(_task_cells, summary["tasks"])),
        ]
    if any(row["learning_rate"] is None for row in summary["tasks"]):
        lines += ["", "Learning rate `none`: the model was scored as it is, without training on the task."]
    others = list(_other_splits(summary["tasks"]))
    if others:
        header = ("Task", "Other split", "Model", "Metric", "Median", "Min - max")
        lines += ["", "Scores of the same models on the other splits of these tasks:", "", *_table(header, others)]
    if any(len(row["learning_rates"]) > 1 for row in summary["tasks"]):
        lines += ["", "The learning rate was chosen on the evaluation data."]
    if summary["zero_shot"]:
        header = ("Set", "Items", "Chance", "Most frequent answer", "Model", "Masked scoring", "p", "Other scores")
        lines += [
            "",
            "## Without fine-tuning",
            "",
            "Accuracy from 0 to 100. Masked scoring averages over all templates; the lowest and highest accuracy of a",
            "single template are in brackets. Linear probes read frozen states and are scored on unseen objects.",
            "",
            *_table((*header, "Linear probe", "p"), _zero_shot_cells(summary)),
        ]
    rows = [*summary["tasks"], *summary["zero_shot"]]
    dropped = {row["title"]: row["left_out"] for row in rows if "left_out" in row}
    if dropped:
        lines += ["", "## Rows that were left out", ""]
        lines += [f"- {title}, {text}" for title, texts in dropped.items() for text in texts]
    return "\n".join([*lines, "", "![Scores of all models](report.png)", ""])


def _table(header: Sequence[str], rows: Iterable[Sequence]) -> list[str]:
    return [f"| {' | '.join(map(str, cells))} |" for cells in (header, ["---"] * len(header), *rows)]


def _task_cells(row: dict) -> list:
    scale = 1 if TASKS[row["task"]].percent else 100
    middle, low, high, constant = (f"{scale * row[key]:.1f}" for key in ("median", "min", "max", "constant_score"))
    several = len(row["learning_rates"]) > 1
    chosen = "none" if row["learning_rate"] is None else f"{row['learning_rate']:g}"
    collapsed = f"{len(row['collapsed'])} of {row['runs']}"
    if row["collapsed"]:
        rates = [f" at {run['learning_rate']:g}" if several else "" for run in row["collapsed"]]
        runs = [f"seed {run['seed']}{rate}: {run['how']}" for run, rate in zip(row["collapsed"], rates)]
        runs = [text.removeprefix("seed None: ") for text in runs]  # of a model that was not trained
        collapsed = f"**{collapsed}** ({', '.join(runs)})"
    if several:
        chosen += f" (best of {', '.join(f'{value:g}' for value in row['learning_rates'])})"
    cells = [row["title"], row["model"], row["metric"], middle, f"{low} - {high}", constant, collapsed, chosen]
    return [*cells, format_p(row["p"]), f"{row['train_size']} / {row['eval_size']}", f"{row['seconds'] / 60:.1f}"]


def _other_splits(rows: list[dict]) -> Iterator[list]:
    """Yields a line for each split but the first: its scores over the seeds at the reported learning rate."""
    for row in rows:
        scale = 1 if TASKS[row["task"]].percent else 100
        for split in list(row["scores"][0])[1:]:
            metric = row["metric"] if row["metric"] in row["scores"][0][split] else next(iter(row["scores"][0][split]))
            values = [scale * (scores[split][metric] or 0.0) for scores in row["scores"]]
            cells = [row["title"], split, row["model"], metric, f"{median(values):.1f}"]
            yield [*cells, f"{min(values):.1f} - {max(values):.1f}"]


def _zero_shot_cells(summary: dict) -> Iterable[list]:
    rows = {(row["set"], row["model"], row["method"]): row for row in summary["zero_shot"]}
    for name in dict.fromkeys(row["set"] for row in summary["zero_shot"]):
        for model in summary["models"]:
            masked, probe = (rows[name, model, method] for method in METHODS)
            cell = "no language-model head"
            if masked["accuracy"] is not None:
                one = masked["by_template"]
                cell = f"{_percent(masked['accuracy'])} ({_percent(min(one))} - {_percent(max(one))})"
            others = ", ".join(f"{key} {masked[key]:.2f}" for key in ("spearman", "contrast") if key in masked)
            constants = (_percent(masked[key]) for key in ("chance", "majority"))
            cells = [masked["title"], masked["size"], *constants, model, cell, format_p(masked["p"]), others]
            yield [*cells, _percent(probe["accuracy"]), format_p(probe["p"])]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def format_p(value: float | None) -> str:
    """Formats the p value of a test for a table; `None` gives an empty cell."""
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _figure(summary: dict, path: Path) -> None:
    with requires_extra("downstream"):
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

    # Panel title -> the baseline, and for each model the (score, collapsed) of every seed.
    panels: dict[str, tuple[float, list[list[tuple[float, bool]]]]] = {}
    for row in summary["tasks"]:
        scale = 1 if TASKS[row["task"]].percent else 100
        values = [next(iter(scores.values()))[row["metric"]] or 0.0 for scores in row["scores"]]
        collapsed = {run["seed"] for run in row["collapsed"] if run["learning_rate"] == row["learning_rate"]}
        title, baseline = f"{row['title']}\n{row['metric'].replace('_', ' ')}", scale * row["constant_score"]
        points = [(scale * value, seed in collapsed) for value, seed in zip(values, row["seeds"])]
        panels.setdefault(title, (baseline, []))[1].append(points)
    for row in summary["zero_shot"]:
        title, points = f"{row['title']}\n{METHODS[row['method']]}", [(100 * (row["accuracy"] or 0.0), False)]
        panels.setdefault(title, (100 * row["chance"], []))[1].append([] if row["accuracy"] is None else points)
    models, columns = summary["models"], min(5, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((2.6 * columns + 1, (0.3 * len(models) + 1.1) * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis, (title, (baseline, by_model)) in zip(axes.flat, panels.items()):
        axis.axvline(baseline, color="#d64545", lw=1)
        for place, points in enumerate(by_model):
            for value, hollow in points:
                axis.plot(value, place, "o", color="#2f6fab", mfc="white" if hollow else "#2f6fab", ms=6)
            label = f"{median(value for value, _ in points):.1f}" if points else "no head"
            axis.text(1.02, place, label, fontsize=8, va="center", transform=axis.get_yaxis_transform())
        lowest = min((value for points in by_model for value, _ in points), default=0)
        axis.set(xlim=(min(-3, lowest - 3), 103), xticks=[0, 50, 100], yticks=range(len(models)), yticklabels=models)
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes.flat[0].set_ylim(len(models) - 0.5, -0.5)
    dot = {"color": "#2f6fab", "marker": "o", "ls": ""}
    handles = [
        Line2D([], [], **dot, label="a seed (number: median)"),
        Line2D([], [], **dot, mfc="white", label="a collapsed seed"),
        Line2D([], [], color="#d64545", label="best constant answer, or chance"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
