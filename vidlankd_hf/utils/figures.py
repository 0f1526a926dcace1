"""Figures of scores: one marker per seed, reference lines, and the same color for the same thing everywhere."""

from collections.abc import Sequence
from itertools import zip_longest
from statistics import mean
from typing import Any

COLORS = {"student": "#2f6fab", "control": "#7b8794", "teacher": "#c98a1b", "chance": "#d64545"}
MARKERS = "os^Dvp"


def score_rows(axis, names: Sequence[str], scores: Sequence[dict[int, float]], colors: Sequence[str]) -> None:
    """Draws one row per name: a marker per seed, a bar at the mean, and the mean as a number in the right margin.

    Args:
        axis: Matplotlib `Axes`.
        names: Row labels, from top to bottom.
        scores: For each row `{seed: score}`; an empty dict leaves the row blank.
        colors: Color of each row.
    """
    seeds = seeds_of(scores)
    for row, (by_seed, color) in enumerate(zip(scores, colors)):
        axis.axhline(row, color="#e4e7eb", lw=0.8, zorder=0)
        if not by_seed:
            continue
        average = mean(by_seed.values())
        if len(by_seed) > 1:
            axis.plot([average] * 2, [row - 0.32, row + 0.32], color=color, lw=2.5, solid_capstyle="butt")
        for seed, score in by_seed.items():  # a vertical offset per seed keeps equal scores visible
            i = seeds.index(seed)
            offset = 0.2 * (i - (len(seeds) - 1) / 2)
            style = {"color": color, "ms": 6, "mec": "white", "mew": 0.7, "clip_on": False, "zorder": 3}
            axis.plot(score, row + offset, MARKERS[i % len(MARKERS)], **style)
        place = {"transform": axis.get_yaxis_transform(), "va": "center", "color": color}
        axis.text(1.03, row, f"{average:.2f}", fontsize=9, **place)
    axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    axis.spines[["top", "right"]].set_visible(False)


def score_legend(figure, seeds: Sequence[int], lines: Sequence) -> None:
    """Adds a legend below the figure, with one row for the seeds' markers and one for lines.

    Args:
        figure: Matplotlib `Figure`.
        seeds: Seeds of the rows. If there is only one, the row of markers is left out.
        lines: Matplotlib artists with labels.
    """
    from matplotlib.lines import Line2D

    points = []
    if len(seeds) > 1:
        styles: dict[str, Any] = {"color": "#3e4c59", "ls": ""}
        points = [
            Line2D([], [], marker=MARKERS[i % len(MARKERS)], ms=6, label=f"seed {seed}", **styles)
            for i, seed in enumerate(seeds)
        ]
        points.append(Line2D([], [], marker="|", ms=11, mew=2.5, label="mean over seeds", **styles))
    # Legends fill column by column.
    handles = [handle for pair in zip_longest(points, lines) for handle in pair if handle is not None]
    columns = max(len(points), len(lines))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def seeds_of(scores: Sequence[dict[int, float]]) -> list[int]:
    """All seeds of the rows, sorted."""
    return sorted({seed for by_seed in scores for seed in by_seed})
