"""The report of an evaluation, from the results alone: `report.md`, `report.json`, `report.png`."""

import json
from pathlib import Path
from statistics import median

from ..utils.io import atomic_write
from . import TASKS
from .significance import paired_test

WAYS = ("masked", "probe")


def best_recipe(runs: list[dict]) -> list[dict]:
    """The runs of the learning rate with the best median, by seed."""
    rates = sorted({run["learning_rate"] for run in runs})
    best = max(rates, key=lambda rate: median(run["score"] for run in runs if run["learning_rate"] == rate))
    return sorted((run for run in runs if run["learning_rate"] == best), key=lambda run: run["seed"])


def summarize(tuned: dict, scored: dict, names: list[str]) -> dict:
    """Rows of the report.

    Args:
        tuned: `{task: {model: runs}}`: results of [`finetune`].
        scored: `{set: {model: result}}`: results of [`evaluate_zero_shot`].
        names: Of the models; the first is what the others are tested against.

    Returns:
        `{"models", "tasks": [...], "zero_shot": [...]}`.
    """
    tasks = []
    for task, by_model in tuned.items():
        chosen = {name: best_recipe(by_model[name]) for name in names}
        for name in names:
            runs = chosen[name]
            scores = [run["score"] for run in runs]
            against = None
            if name != names[0]:
                pairs = [[run["examples"] for run in chosen[other]] for other in (names[0], name)]
                against = paired_test(runs[0]["metric"], *pairs)
            tasks.append(
                {
                    "task": task,
                    "title": TASKS[task].title,
                    "model": name,
                    "metric": runs[0]["metric"],
                    "median": median(scores),
                    "least": min(scores),
                    "greatest": max(scores),
                    "seeds": [run["seed"] for run in runs],
                    "scores": [run["scores"] for run in runs],
                    "learning_rate": runs[0]["learning_rate"],
                    "learning_rates": sorted({run["learning_rate"] for run in by_model[name]}),
                    "collapsed": [
                        {"seed": run["seed"], "learning_rate": run["learning_rate"], "how": run["collapsed"]}
                        for run in by_model[name]
                        if run["collapsed"]
                    ],
                    "runs": len(by_model[name]),
                    "constant_score": runs[0]["constant_score"],
                    "train_size": runs[0]["train_size"],
                    "eval_size": runs[0]["eval_size"],
                    "seconds": sum(run["seconds"] for run in by_model[name]),
                    "p": against,
                }
            )
    rows = []
    for task, by_model in scored.items():
        for way in WAYS:
            for name in names:
                result = by_model[name][way]
                row = {
                    "set": task,
                    "title": TASKS[task].title,
                    "way": way,
                    "model": name,
                    "size": by_model[name]["size"],
                    "chance": by_model[name]["chance"],
                    "majority": by_model[name]["majority"],
                }
                row |= {key: value for key, value in (result or {"accuracy": None}).items() if key != "right"}
                first = by_model[names[0]][way]
                row["p"] = None
                if name != names[0] and result and first:
                    row["p"] = paired_test("right", [{"scores": first["right"]}], [{"scores": result["right"]}])
                rows.append(row)
    return {"models": names, "tasks": tasks, "zero_shot": rows}


def write_report(summary: dict, folder: str | Path) -> Path:
    """Writes the report into `folder`; returns the path of `report.md`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "report.json", json.dumps(summary, indent=1) + "\n")
    _figure(summary, folder / "report.png")
    atomic_write(folder / "report.md", _markdown(summary))
    return folder / "report.md"


def _percent(value: float, row: dict | None = None) -> str:
    """To 100, with a digit."""
    scale = 1 if row and TASKS[row["task"]].percent else 100
    return f"{scale * value:.1f}"


def _one_collapse(run: dict, several_rates: bool) -> str:
    rate = f" at {run['learning_rate']:g}" if several_rates else ""
    return f"seed {run['seed']}{rate}: {run['how']}"


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _markdown(summary: dict) -> str:
    first = summary["models"][0]
    lines = ["# Downstream", ""]
    if summary["tasks"]:
        lines += [
            "## Fine-tuned",
            "",
            "Main score, to 100: median over seeds, least and greatest. `constant` is the best that one and the same",
            "answer reaches; a run has collapsed if its answers are constant or its score is hardly above that. It",
            f"counts in the median. `p`: paired randomisation test over the examples against {first}.",
            "",
            "| task | model | score | median | spread | constant | collapsed | lr | p | train / eval | minutes |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
    for row in summary["tasks"]:
        several = len(row["learning_rates"]) > 1
        collapsed = f"{len(row['collapsed'])} of {row['runs']}"
        if row["collapsed"]:
            which = [_one_collapse(run, several) for run in row["collapsed"]]
            collapsed = f"**{collapsed}** ({', '.join(which)})"
        rate = f"{row['learning_rate']:g}"
        rate += f" (best of {', '.join(f'{r:g}' for r in row['learning_rates'])})" if several else ""
        spread = f"{_percent(row['least'], row)} - {_percent(row['greatest'], row)}"
        lines.append(
            f"| {row['title']} | {row['model']} | {row['metric']} | {_percent(row['median'], row)} | {spread} | "
            f"{_percent(row['constant_score'], row)} | {collapsed} | {rate} | {_p(row['p'])} | "
            f"{row['train_size']} / {row['eval_size']} | {row['seconds'] / 60:.1f} |"
        )
    if any(len(row["learning_rates"]) > 1 for row in summary["tasks"]):
        lines += ["", "The learning rate was chosen on the data that are scored."]
    if summary["zero_shot"]:
        lines += [
            "",
            "## Without fine-tuning",
            "",
            "Accuracy to 100. Masked scoring: over all templates (in brackets: least and greatest of one template).",
            "Probe: a linear probe of frozen states, on objects it was not fitted to.",
            "",
            "| set | size | chance | majority | model | masked scoring | p | more | probe | p |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
    rows = {(row["set"], row["model"], row["way"]): row for row in summary["zero_shot"]}
    for name in dict.fromkeys(row["set"] for row in summary["zero_shot"]):
        for model in summary["models"]:
            masked, probe = (rows[name, model, way] for way in WAYS)
            cell, more = "no head", ""
            if masked["accuracy"] is not None:
                one = masked["by_template"]
                cell = f"{_percent(masked['accuracy'])} ({_percent(min(one))} - {_percent(max(one))})"
                more = ", ".join(f"{key} {masked[key]:.2f}" for key in ("spearman", "contrast") if key in masked)
            shares = (_percent(masked[key]) for key in ("chance", "majority"))
            cells = [masked["title"], masked["size"], *shares, model, cell, _p(masked["p"]), more]
            cells += [_percent(probe["accuracy"]), _p(probe["p"])]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", "![report](report.png)", ""])


def _figure(summary: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    models = summary["models"]
    panels = []  # title, baseline, for each model (value, least, greatest, collapsed; None: no head)
    for task in dict.fromkeys(row["task"] for row in summary["tasks"]):
        rows = [row for row in summary["tasks"] if row["task"] == task]
        scale = 1 if TASKS[task].percent else 100
        bars = [
            (*(scale * row[key] for key in ("median", "least", "greatest")), len(row["collapsed"])) for row in rows
        ]
        panels.append((f"{rows[0]['title']}\n({rows[0]['metric']})", scale * rows[0]["constant_score"], bars))
    for name, way in dict.fromkeys((row["set"], row["way"]) for row in summary["zero_shot"]):
        rows = [row for row in summary["zero_shot"] if (row["set"], row["way"]) == (name, way)]
        bars = [(*[100 * (row["accuracy"] or 0.0)] * 3, None if row["accuracy"] is None else 0) for row in rows]
        panels.append((f"{rows[0]['title']}\n({way})", 100 * rows[0]["chance"], bars))
    columns = min(5, len(panels))
    shape = -(-len(panels) // columns), columns
    figure, axes = plt.subplots(*shape, figsize=(2.5 * columns + 1, (0.4 * len(models) + 1.1) * shape[0]),
                                sharey=True, squeeze=False, layout="constrained")  # fmt: skip
    for axis, (title, baseline, bars) in zip(axes.flat, panels):
        values = [bar[0] for bar in bars]
        around = [[v - bar[1] for v, bar in zip(values, bars)], [bar[2] - v for v, bar in zip(values, bars)]]
        drawn = axis.barh(range(len(models)), values, xerr=around, height=0.7, color="#2f6fab")
        labels = [f" {bar[0]:.1f}" + (f" ({bar[3]} collapsed)" if bar[3] else "") for bar in bars]
        labels = [" no head" if bar[3] is None else label for bar, label in zip(bars, labels)]
        axis.bar_label(drawn, labels, padding=2, fontsize=8)
        axis.axvline(baseline, color="#d64545", lw=1)
        axis.set(xlim=(min(0, *values), 130), xticks=[0, 50, 100], yticks=range(len(models)), yticklabels=models)
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes.flat[0].invert_yaxis()
    figure.supxlabel("red: the best constant answer, or chance", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
