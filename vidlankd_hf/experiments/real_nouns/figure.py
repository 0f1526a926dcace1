"""Two figures: the accuracy of each model's probe, and what it predicts about ten nouns, next to their pictures."""

from pathlib import Path

import numpy as np

from ...evaluation.zero_shot import CODA_COLORS
from ...utils.extras import requires_extra
from ...utils.figures import COLORS, score_legend, score_rows
from .captions import PATCH_COLOURS
from .nouns import read_items
from .pictures import Picture, rasterise
from .report import CONTROL, LABELS, TITLES, Results, accuracies
from .runs import PICTURES
from .tables import BEST

SHOWN = 10
RGB = {name: tuple(v / 255 for v in PATCH_COLOURS["grey" if name == "gray" else name]) for name in CODA_COLORS}

# Rows of the figure of accuracies, and their colors.
COMPARED = {CONTROL: "control", BEST: "student", "shuffled": "control", "teacher": "teacher", PICTURES: "teacher"}


def draw_accuracies(results: Results, path: Path) -> None:
    """Draws the probe's accuracy on the pictured nouns for the report: Memory Colors and CoDa, one marker per seed.

    Args:
        results: Stored results.
        path: PNG file.
    """
    with requires_extra("world"):
        from matplotlib.figure import Figure

    rows = [row for row in COMPARED if any(row in kept for kept in results.values())]
    figure = Figure(figsize=(10, 0.45 * len(rows) + 1.2), layout="constrained")
    found = [
        {seed: accuracies({seed: kept}, row, "report", "pictured") for seed, kept in results.items() if row in kept}
        for row in rows
    ]
    colors = [COLORS[COMPARED[row]] for row in rows]
    for axis, name in zip(figure.subplots(1, 2, sharex=True, sharey=True), ("memory_colors", "coda")):
        scores = [{seed: by_set[name] for seed, by_set in by_seed.items() if name in by_set} for by_seed in found]
        score_rows(axis, [LABELS[row] for row in rows], scores, colors)
        axis.set(xlabel="accuracy of a linear probe")
        axis.set_title(f"{TITLES[name]}: colors of nouns", fontsize=11)
    score_legend(figure, sorted(results), [])
    figure.savefig(path, dpi=120)


def choose_nouns(before: dict[str, list[float]], people: dict[str, list[float]], nouns: set[str]) -> list[str]:
    """Chooses nouns without looking at the student: those on whose colour people agree most, one colour after another.

    Args:
        before: Predicted distributions by noun; only these nouns can be shown.
        people: People's distributions by noun.
        nouns: The nouns to choose from.
    """
    by_colour: dict[int, list[str]] = {}
    for noun in sorted(set(before) & nouns, key=lambda noun: -max(people[noun])):
        by_colour.setdefault(int(np.argmax(people[noun])), []).append(noun)
    chosen: list[str] = []
    while len(chosen) < SHOWN and any(by_colour.values()):
        chosen += [names.pop(0) for names in by_colour.values() if names]
    return chosen[:SHOWN]


def draw_colours(
    before: dict, after: dict, pictures: list[Picture], benchmarks: Path, nouns: set[str], path: Path
) -> None:
    """Draws a row for each of ten nouns of CoDa: a picture, and bars of colours by text only, distilled and people.

    Args:
        before: Stored result of the text-only student.
        after: Stored result of the distilled student.
        pictures: Pictures of the nouns.
        benchmarks: Folder of the benchmarks.
        nouns: Nouns to choose from.
        path: PNG file.
    """
    with requires_extra("world"):
        from matplotlib.figure import Figure

    people = {item["object"]: item["distribution"] for item in read_items("coda", benchmarks)}
    chosen = choose_nouns(before["colours"], people, nouns)
    first = {picture.noun: picture for picture in reversed(pictures)}
    figure = Figure(figsize=(8.5, 0.75 * len(chosen) + 0.6), layout="constrained")
    axes = figure.subplots(len(chosen), 4, width_ratios=(0.6, 2, 2, 2), squeeze=False)
    titles = ("", "text only", "distilled from video", "people (CoDa)")
    for row, noun in zip(axes, chosen):
        row[0].imshow(rasterise(first[noun].path))
        row[0].set_ylabel(noun, rotation=0, ha="right", va="center")
        for axis, values in zip(row[1:], (before["colours"][noun], after["colours"][noun], people[noun])):
            left = 0.0
            for colour, share in zip(CODA_COLORS, values):
                axis.barh(0, share, left=left, color=RGB[colour], edgecolor="#9aa5b1", lw=0.4)
                left += share
            axis.set(xlim=(0, 1), ylim=(-0.5, 0.5))
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=10)
    figure.savefig(path, dpi=120)
