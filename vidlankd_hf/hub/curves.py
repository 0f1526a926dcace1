"""Training curves: what a run logged, drawn as the figure of a model card and by `vidlankd plot`."""

from importlib.util import find_spec
from pathlib import Path

from ..reliability.checkpointing import checkpoints_of
from ..utils.extras import requires_extra
from ..utils.json_files import read_json

STATE = "trainer_state.json"
COLORS = ("#1c5fa8", "#c2571a", "#2f8f4e", "#8a4fb0", "#b8323a", "#6b6f76", "#b08a00", "#0f8b8d")
Curves = dict[str, list[tuple[int, float]]]  # logged name -> list of (step, value)


def read_curves(run: str | Path) -> Curves:
    """Reads everything that a run has logged; of an unfinished run, what its newest checkpoint holds.

    Args:
        run: Folder of a run, or its `trainer_state.json`.

    Returns:
        Logged name -> list of (step, value).

    Raises:
        ValueError: There is no `trainer_state.json`, or it is damaged or has no logs.
    """
    path = Path(run)
    if path.is_dir():
        states = [folder / STATE for folder in (path, *checkpoints_of(path))]
        path = next((state for state in states if state.is_file()), states[0])
    if not path.is_file():
        raise ValueError(f"{run} has no {STATE}, and no checkpoint with one: give the folder of a run")
    try:
        curves = curves_of(read_json(path, dict, "give another run")["log_history"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{path} is not a trainer's state ({error!r}): give the folder of a run") from error
    if not curves:
        raise ValueError(f"{path} has logged nothing yet: wait until --logging_steps steps are done")
    return curves


def curves_of(log_history: list[dict]) -> Curves:
    """Groups the entries of a trainer's `log_history` by logged name."""
    curves: Curves = {}
    for entry in log_history:
        for name, value in entry.items():
            if name not in ("step", "epoch") and isinstance(value, (int, float)):
                curves.setdefault(name, []).append((entry["step"], float(value)))
    return curves


def losses_in(curves: Curves) -> list[str]:
    """Names of the loss and its components that were logged in training or evaluation, without `eval_`."""
    names = {name.removeprefix("eval_") for name in curves} - {"train_loss"}  # the mean over the run
    return sorted((n for n in names if n == "loss" or n.endswith("_loss")), key=lambda name: (name != "loss", name))


def draw_curves(curves: dict[str, Curves], metrics: list[str], output: Path) -> None:
    """Writes a PNG with one panel per metric that shows all runs.

    Args:
        curves: Name of each run -> what it logged.
        metrics: Logged names to show, without `eval_`.
        output: File to write.

    Raises:
        ImportError: The extra `world` is not installed.
    """
    with requires_extra("world"):
        from matplotlib.figure import Figure

    columns = 2 if len(metrics) == 4 else min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure((4.6 * columns, 3.3 * rows + 0.35 * len(curves)), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, name in zip(axes, metrics):
        for number, (run, curve) in enumerate(curves.items()):
            color, line = COLORS[number % len(COLORS)], "-" if number < len(COLORS) else "--"
            if name in curve:
                axis.plot(*zip(*curve[name]), color=color, lw=1.6, label=run, ls=line)
            if f"eval_{name}" in curve:
                axis.plot(*zip(*curve[f"eval_{name}"]), color=color, ls="", marker="o", ms=6, mec="white")
        axis.set_title(name, fontsize=11)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend([*handles.values()], [*handles], loc="outside lower left", fontsize=9, frameon=False)
    figure.supxlabel("optimizer step; line: training, point: evaluation", fontsize=9)
    figure.savefig(output, dpi=120)


def draw_losses(name: str, log_history: list[dict], output: Path) -> bool:
    """Draws the losses of one run for its card.

    Args:
        name: Name of the model.
        log_history: Log history of the trainer's state.
        output: PNG to write.

    Returns:
        Whether the figure was drawn: losses were logged, and matplotlib is installed.
    """
    curves = curves_of(log_history)
    losses = losses_in(curves)
    if not losses or find_spec("matplotlib") is None:  # without matplotlib, a card has no figure
        return False
    draw_curves({name: curves}, losses, output)
    return True
