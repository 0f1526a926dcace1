"""The report of the grounded world: a table and a figure, made from `results.json` alone."""

import math
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from ...utils.extras import requires_extra
from ...utils.figures import COLORS, score_legend, score_rows
from ...utils.json_files import read_json
from .tradeoff import draw_tradeoff

ATTRIBUTES = ("colour", "shape", "motion")
# Rows appear in this order.
NAMES = {
    "text_only": "text only",
    "shuffled": "shuffled captions",
    "nst": "NST",
    "crd": "CRD",
    "infonce": "InfoNCE",
    "nst+crd": "NST + CRD",
    "regression": "regression, no head",
    "nst_tokens": "NST over tokens, no head",
    "paper": "the paper's settings",
    "teacher_hinge": "teacher, paper's hinge loss",
    "teacher": "teacher",
}
FIELDS = ("model", "weights", "seed", "attribute", "accuracy", "chance", "num_nouns")
# What a row also has for a student: loss (nats) and accuracy on masked tokens of held-out text.
LANGUAGE = {"mlm_loss": "MLM loss", "mlm_accuracy": "MLM accuracy"}
TITLE = "Linear probe: what the student knows about visual attributes that never occur in its training text"


def label(model: str, weights: dict[str, float]) -> str:
    """Name of a row in tables and figures, such as `NST (weight 1000) + CRD (weight 1)`."""
    names = sorted(weights, reverse=True)
    if model == "paper":
        return NAMES[model]
    if model == "shuffled":
        return f"{NAMES[model]} ({' + '.join(NAMES.get(name, name) for name in names)})"
    if len(names) == 1:
        return f"{NAMES.get(model, model)} (weight {weights[names[0]]:g})"
    return " + ".join(f"{NAMES.get(name, name)} (weight {weights[name]:g})" for name in names) or NAMES[model]


def summarize(rows: list[dict]) -> list[dict]:
    """Summarizes `results.json`: one entry per model and weighting, in the order of `NAMES`.

    Returns:
        Entries with `label`, `model`, `weights`, `seeds`, `scores` {attribute: {seed: accuracy}}, `accuracy`
        {attribute: (mean, standard deviation over seeds)}, `mean` over the attributes, `gap_closed`: (mean -
        text-only) / (teacher - text-only) over the same seeds, `None` if either was not run, and of students
        `language` {`mlm_loss` or `mlm_accuracy`: {seed: value}}.
    """
    grouped = defaultdict(lambda: {attribute: {} for attribute in ATTRIBUTES})
    language = defaultdict(lambda: {name: {} for name in LANGUAGE})
    for row in rows:
        student = row["model"], tuple(sorted(row["weights"].items()))
        grouped[student][row["attribute"]][row["seed"]] = row["accuracy"]
        for name in LANGUAGE:
            if name in row:
                language[student][name][row["seed"]] = row[name]

    def over_seeds(model: str, seeds: set) -> float | None:
        found = [scores for (name, _), scores in grouped.items() if name == model]
        values = [mean(by[s] for by in scores.values()) for scores in found for s in seeds & set(scores["colour"])]
        return mean(values) if values else None

    entries = []
    for (model, weights), scores in grouped.items():
        seeds = set(scores["colour"])
        text_only, teacher = over_seeds("text_only", seeds), over_seeds("teacher", seeds)
        accuracy = {a: (mean(s.values()), stdev(s.values()) if len(s) > 1 else 0.0) for a, s in scores.items()}
        average = mean(a for a, _ in accuracy.values())
        known = text_only is not None and teacher is not None and teacher > text_only
        entries.append(
            {
                "label": label(model, dict(weights)),
                "model": model,
                "weights": dict(weights),
                "seeds": sorted(seeds),
                "scores": scores,
                "accuracy": accuracy,
                "mean": average,
                "gap_closed": (average - text_only) / (teacher - text_only) if known else None,
                "language": language[model, weights],
            }
        )
    return sorted(entries, key=lambda entry: (list(NAMES).index(entry["model"]), entry["mean"]))


def write_report(results: str | Path, output_dir: str | Path) -> None:
    """Writes `report.md`, `report.png` and `tradeoff.png` into `output_dir`.

    Args:
        results: `results.json`: a list of rows with `FIELDS`.
        output_dir: An existing folder.

    Raises:
        ValueError: A row lacks a field.
    """
    rows, folder = read_json(results, list, "make it again"), Path(output_dir)
    for row in rows:
        missing = [name for name in FIELDS if name not in row]
        if missing:
            raise ValueError(f"a row of {results} lacks {', '.join(missing)}: {row}")
    lines = [
        f"# {TITLE}",
        "",
        markdown_table(rows),
        "",
        "`gap closed` = (student - text-only) / (teacher - text-only), computed on the means over seeds. `text only`",
        "trains on the same text for as many steps, without a teacher. `shuffled captions` has a teacher whose clips",
        "were paired with captions of other videos. All students start from the same language model, which has read",
        "the same text. MLM loss (nats) and accuracy are those on masked words of held-out text.",
        "",
        "![report](report.png)",
        "",
        "![Share of the gap that each student closes, and its loss on held-out text](tradeoff.png)",
        "",
    ]
    (folder / "report.md").write_text("\n".join(lines))
    draw(rows, folder / "report.png")
    draw_tradeoff(points(rows), folder / "tradeoff.png")


def points(rows: list[dict]) -> list[dict]:
    """The students as points for [`draw_tradeoff`]: means over seeds of the MLM loss and of the share of the gap."""
    found = []
    for entry in summarize(rows):
        loss, weights = entry["language"]["mlm_loss"], entry["weights"]
        if not loss or entry["gap_closed"] is None:
            continue
        kind = "control" if entry["model"] == "shuffled" else next(iter(sorted(weights)), "text_only")
        point = {"kind": kind, "mlm_loss": mean(loss.values()), "gap_closed": entry["gap_closed"]}
        found.append({**point, "label": entry["label"]})
    return found


def _chance(rows: list[dict]) -> tuple[dict[str, float], dict[str, float]]:
    """For each attribute the accuracy of guessing, and half the width of its 95 % binomial interval over all seeds."""
    chance = {row["attribute"]: row["chance"] for row in rows}
    count = rows[0]["num_nouns"] * len({row["seed"] for row in rows})
    return chance, {name: 1.96 * math.sqrt(value * (1 - value) / count) for name, value in chance.items()}


def markdown_table(rows: list[dict]) -> str:
    """The table of `report.md`, with the sentence that introduces it, from the rows of `results.json`."""
    chance, half = _chance(rows)
    seeds = sorted({row["seed"] for row in rows})
    language = {name: title for name, title in LANGUAGE.items() if any(name in row for row in rows)}
    lines = [
        f"Accuracy of linear probes of frozen token states on {rows[0]['num_nouns']} invented nouns, 4-fold "
        "cross-validated over nouns:",
        "every noun is scored by a probe that was not fitted to it. World and training seeds "
        f"{', '.join(map(str, seeds))}{'; mean ± standard deviation' if len(seeds) > 1 else ''}.",
        "",
        f"| model | colour | shape | motion | mean | gap closed |{''.join(f' {t} |' for t in language.values())}",
        f"|---|---|---|---|---|---|{'---|' * len(language)}",
        f"| chance (± 95 % interval) | {' | '.join(f'{chance[a]:.2f} ± {half[a]:.2f}' for a in ATTRIBUTES)} | "
        f"{mean(chance[a] for a in ATTRIBUTES):.2f} | |{' |' * len(language)}",
    ]
    for entry in summarize(rows):
        several = len(entry["seeds"]) > 1
        cells = [f"{m:.2f} ± {s:.2f}" if several else f"{m:.2f}" for m, s in entry["accuracy"].values()]
        gap = entry["gap_closed"]
        closed = "" if gap is None or entry["model"] in ("text_only", "teacher") else f"{round(100 * gap)} %"
        cells += [f"{entry['mean']:.2f}", closed, *(_over_seeds(entry["language"][name]) for name in language)]
        lines.append(f"| {entry['label']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _over_seeds(values: dict[int, float]) -> str:
    """Mean and standard deviation; empty for a teacher, which has no values."""
    if not values:
        return ""
    spread = f" ± {stdev(values.values()):.2f}" if len(values) > 1 else ""
    return f"{mean(values.values()):.2f}{spread}"


def draw(rows: list[dict], path: str | Path) -> None:
    """Draws one marker per seed and attribute for each student; teacher, text only and chance are lines."""
    with requires_extra("world"):
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

    entries = {entry["label"]: entry for entry in summarize(rows)}
    lines = {"teacher": ("teacher", "-"), "text_only": ("control", "--")}
    shown = [entry for entry in entries.values() if entry["model"] not in lines]
    colors = {"shuffled": COLORS["control"], "teacher_hinge": COLORS["teacher"]}
    chance, half = _chance(rows)
    figure = Figure(figsize=(11, 0.42 * len(shown) + 2.1), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, attribute in zip(axes, ATTRIBUTES):
        score_rows(
            axis,
            [entry["label"] for entry in shown],
            [entry["scores"][attribute] for entry in shown],
            [colors.get(entry["model"], COLORS["student"]) for entry in shown],
        )
        low, high = chance[attribute] - half[attribute], chance[attribute] + half[attribute]
        axis.axvspan(low, high, color=COLORS["chance"], alpha=0.2, lw=0)
        for entry in entries.values():
            if entry["model"] in lines:
                kind, style = lines[entry["model"]]
                score = entry["accuracy"][attribute][0]
                axis.axvline(score, color=COLORS[kind], ls=style, lw=1.5, zorder=1)
                if entry["model"] == "teacher":
                    axis.text(score, len(shown) - 0.55, f"{score:.2f} ", color=COLORS[kind], ha="right", fontsize=9)
        axis.set(xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1], xticklabels=["0", "0.25", "0.5", "0.75", "1"])
        axis.set_title(attribute, fontsize=11)
    legend = [
        Line2D([], [], color=COLORS[kind], ls=style, label=f"{NAMES[model]} (mean)")
        for model, (kind, style) in lines.items()
        if any(entry["model"] == model for entry in entries.values())
    ]
    legend.append(Line2D([], [], color=COLORS["chance"], alpha=0.3, lw=8, label="chance (95 % interval)"))
    score_legend(figure, sorted({row["seed"] for row in rows}), legend)
    axes[1].set_xlabel("probe accuracy on nouns that the probe was not fitted to (number at the right: mean)")
    figure.savefig(path, dpi=120)
