"""Training curves: read from a run's `trainer_state.json` and drawn as a figure."""

import json
from pathlib import Path
from typing import Any

from ..reliability.checkpointing import checkpoints_of
from ..utils.extras import requires_extra

STATE = "trainer_state.json"
COLOURS = ("#1c5fa8", "#c2571a", "#2f8f4e", "#8a4fb0", "#b8323a", "#6b6f76", "#b08a00", "#0f8b8d")


def read_curves(run: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Reads everything that a run logged; for an unfinished run, up to its newest checkpoint.

    Args:
        run: Folder of a run, or its `trainer_state.json`.

    Returns:
        Name -> list of (step, value).

    Raises:
        ValueError: There is no state, or it is damaged or empty.
    """
    path = Path(run)
    if path.is_dir():
        states = [folder / STATE for folder in (path, *checkpoints_of(path))]
        path = next((state for state in states if state.is_file()), states[0])
    if not path.is_file():
        raise ValueError(f"{run} has no {STATE}, and no checkpoint with one: give the folder of a run")
    curves: dict[str, list[tuple[int, float]]] = {}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8"))["log_history"]:
            for name, value in entry.items():
                if name not in ("step", "epoch") and isinstance(value, (int, float)):
                    curves.setdefault(name, []).append((entry["step"], float(value)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a trainer's state ({error!r})") from error
    if not curves:
        raise ValueError(f"{path} has logged nothing yet: wait for the first --logging_steps")
    return curves


def draw_curves(curves: dict[str, dict[str, list[tuple[int, float]]]], metrics: list[str], output: Path) -> None:
    """Writes a PNG with one panel per metric that shows all runs.

    Args:
        curves: Run -> what [`read_curves`] returned for it.
        metrics: Names of the panels.
        output: File to write.
    """
    with requires_extra("world"):
        from matplotlib.figure import Figure

    columns = 2 if len(metrics) == 4 else min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    size = (4.6 * columns, 3.3 * rows + 0.35 * len(curves))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, name in zip(axes.flat, metrics):
        for number, (run, curve) in enumerate(curves.items()):
            colour = COLOURS[number % len(COLOURS)]
            if name in curve:
                axis.plot(
                    *zip(*curve[name]), color=colour, lw=1.6, label=run, ls="-" if number < len(COLOURS) else "--"
                )
            if f"eval_{name}" in curve:
                axis.plot(*zip(*curve[f"eval_{name}"]), color=colour, ls="", marker="o", ms=6, mec="white")
        axis.set_title(name, fontsize=11)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.set_visible(False)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend([*handles.values()], [*handles], loc="outside lower left", fontsize=9, frameon=False)
    figure.supxlabel("optimizer step; line: training, point: evaluation", fontsize=9)
    figure.savefig(output, dpi=120)
