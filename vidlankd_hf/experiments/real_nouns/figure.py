"""Two figures: the accuracy of each model's probe, and the colors that it predicts, next to pictures."""

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

SHOWN, BLOCKS = 24, 3  # nouns in the figure of colors, and its columns of nouns
# Packages whose pictures the figure of colors may show, so that it can be published: Apache-2.0 and public domain.
FREE = ("noto", "openclipart")
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
    """Draws nouns of CoDa with a picture and their likeliest color by text only, the distilled student and people.

    Only nouns with a picture from a package of `FREE` are shown.

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
    first = {picture.noun: picture for picture in reversed(pictures) if picture.package in FREE}
    chosen = choose_nouns(before["colours"], people, nouns & set(first))
    rows = max(1, -(-len(chosen) // BLOCKS))
    figure = Figure(figsize=(11, 0.62 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, 4 * BLOCKS, width_ratios=(1, 1.2, 1.2, 1.2) * BLOCKS, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for number, noun in enumerate(chosen):
        block, row = divmod(number, rows)
        picture, *swatches = axes[row, 4 * block : 4 * block + 4]
        picture.imshow(rasterise(first[noun].path))
        picture.set_ylabel(noun, rotation=0, ha="right", va="center")
        for axis, values in zip(swatches, (before["colours"][noun], after["colours"][noun], people[noun])):
            axis.set_facecolor(RGB[CODA_COLORS[int(np.argmax(values))]])
            axis.spines[:].set(visible=True, color="#9aa5b1")
    for column, title in enumerate(("", "text only", "distilled", "people") * BLOCKS):
        axes[0, column].set_title(title, fontsize=9)
    figure.savefig(path, dpi=120)
