"""The report of the grounded world, made from `results.json` and nothing else."""

import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

ATTRIBUTES = ("colour", "shape", "motion")
ORDER = ("text_only", "shuffled", "nst", "crd", "infonce", "nst+crd", "teacher_hinge", "teacher")
FIELDS = ("model", "weights", "seed", "attribute", "accuracy", "chance", "num_nouns")


def read_results(path: str | Path) -> list[dict]:
    """Rows of `results.json`, checked: each has `model, weights, seed, attribute, accuracy, chance, num_nouns`."""
    rows = json.loads(Path(path).read_text())
    for row in rows:
        missing = [name for name in FIELDS if name not in row]
        if missing:
            raise ValueError(f"a row of {path} lacks {', '.join(missing)}: {row}")
    return rows


def label(model: str, weights: dict[str, float]) -> str:
    """`nst+crd` with weights 1000 and 1 -> `1000 nst + 1 crd`; models without weights keep their name."""
    parts = [f"{weights[name]:g} {name}" for name in sorted(weights, reverse=True)]
    return f"{model} ({' + '.join(parts)})" if model == "shuffled" else " + ".join(parts) or model


def summarize(rows: list[dict]) -> list[dict]:
    """One entry a model and weighting, in reading order: per-attribute means over seeds, and the share of the gap.

    Each entry: `label`, `model`, `seeds`, `accuracy` {attribute: (mean, spread)}, `mean` (of the three attributes),
    `gap_closed`: (mean - text only's) / (teacher's - text only's), over the same seeds.
    """
    grouped = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        key = (row["model"], tuple(sorted(row["weights"].items())))
        grouped[key][row["seed"]][row["attribute"]] = row["accuracy"]

    def over_seeds(model: str, seeds: set) -> float | None:
        values = [mean(by[s].values()) for (name, _), by in grouped.items() if name == model for s in seeds & set(by)]
        return mean(values) if values else None

    entries = []
    for (model, weights), by_seed in grouped.items():
        seeds = set(by_seed)
        text_only, teacher = over_seeds("text_only", seeds), over_seeds("teacher", seeds)
        accuracy = {}
        for attribute in ATTRIBUTES:
            values = [by[attribute] for by in by_seed.values()]
            accuracy[attribute] = (mean(values), stdev(values) if len(values) > 1 else 0.0)
        average = mean(a for a, _ in accuracy.values())
        known = text_only is not None and teacher is not None and teacher > text_only
        entries.append(
            {
                "label": label(model, dict(weights)),
                "model": model,
                "seeds": sorted(seeds),
                "accuracy": accuracy,
                "mean": average,
                "gap_closed": (average - text_only) / (teacher - text_only) if known else None,
            }
        )
    return sorted(entries, key=lambda entry: (ORDER.index(entry["model"]), entry["mean"]))


def interval(accuracy: float, count: int) -> float:
    """Half the width of the 95 % binomial interval around chance or a score of `count` nouns."""
    return 1.96 * math.sqrt(accuracy * (1 - accuracy) / count)


def write_report(results: str | Path, output_dir: str | Path) -> None:
    """Writes `report.md` and `report.png` into `output_dir`."""
    rows, folder = read_results(results), Path(output_dir)
    entries = summarize(rows)
    chance = {row["attribute"]: row["chance"] for row in rows}
    nouns, seeds = rows[0]["num_nouns"], sorted({row["seed"] for row in rows})
    (folder / "report.md").write_text(_markdown(entries, chance, nouns, seeds))
    _figure(entries, chance, nouns, seeds, folder / "report.png")


def _markdown(entries: list[dict], chance: dict, nouns: int, seeds: list) -> str:
    count = nouns * len(seeds)
    lines = [
        "# What a text-only BERT knows about looks it never read of",
        "",
        f"Linear probes of frozen token states, {nouns} invented nouns, 4-fold over nouns: every noun is scored by a",
        f"probe that never saw it. World and training seeds: {', '.join(map(str, seeds))}. "
        + ("Mean ± standard deviation over seeds." if len(seeds) > 1 else ""),
        "",
        "| model | colour | shape | motion | mean | gap closed |",
        "|---|---|---|---|---|---|",
        "| chance (± 95 % of a guesser) | "
        + " | ".join(f"{chance[a]:.2f} ± {interval(chance[a], count):.2f}" for a in ATTRIBUTES)
        + f" | {mean(chance[a] for a in ATTRIBUTES):.2f} | |",
    ]
    for entry in entries:
        several = len(entry["seeds"]) > 1
        cells = [f"{m:.2f} ± {s:.2f}" if several else f"{m:.2f}" for m, s in entry["accuracy"].values()]
        gap = entry["gap_closed"]
        closed = "" if gap is None or entry["model"] in ("text_only", "teacher") else f"{round(100 * gap)} %"
        lines.append(f"| {entry['label']} | {' | '.join(cells)} | {entry['mean']:.2f} | {closed} |")
    lines += [
        "",
        "`gap closed` is the way from the text-only student to the teacher. `text_only` reads the same text for as",
        "many steps without a teacher. `shuffled` learns from a teacher whose clips were paired with wrong captions.",
        "All students start from the same weights.",
        "",
        "![report](report.png)",
        "",
    ]
    return "\n".join(lines)


def _figure(entries: list[dict], chance: dict, nouns: int, seeds: list, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 0.42 * len(entries) + 1.6), sharey=True, layout="constrained")
    names = [entry["label"] for entry in entries]
    grey, blue, gold = "#9aa5b1", "#2f6fab", "#c98a1b"
    colours = {"text_only": grey, "shuffled": grey, "teacher": gold, "teacher_hinge": gold}
    for axis, attribute in zip(axes, ATTRIBUTES):
        values = [entry["accuracy"][attribute][0] for entry in entries]
        spread = [entry["accuracy"][attribute][1] for entry in entries]
        bars = axis.barh(names, values, xerr=spread if len(seeds) > 1 else None, height=0.7,
                         color=[colours.get(entry["model"], blue) for entry in entries])  # fmt: skip
        axis.bar_label(bars, [f" {value:.2f}" for value in values], padding=2, fontsize=9)
        half = interval(chance[attribute], nouns * len(seeds))
        axis.axvspan(chance[attribute] - half, chance[attribute] + half, color="#d64545", alpha=0.25, lw=0)
        axis.axvline(chance[attribute], color="#d64545", lw=1)
        axis.set_title(f"{attribute} (chance {chance[attribute]:.2f})", fontsize=11)
        axis.set_xlim(0, 1.15)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.supxlabel(
        "accuracy of a linear probe on nouns it never saw; red: chance with its 95 % interval", fontsize=10
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
