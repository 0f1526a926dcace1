"""Draws the losses of a run from its log history."""

from pathlib import Path


def draw_losses(log_history: list[dict], path: str | Path) -> bool:
    """Draws the loss and each of its components over the steps, for training and held-out data.

    Args:
        log_history: Log history of `trainer_state.json`.
        path: Path of the PNG.

    Returns:
        Whether the figure was drawn: there are losses, and matplotlib is installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:  # optional: cards are written without a figure, too
        return False
    curves: dict[str, dict[bool, list[tuple[int, float]]]] = {}
    for entry in log_history:
        for name, value in entry.items():
            held_out, component = name.startswith("eval_"), name.removeprefix("eval_")
            if (component == "loss" or component.endswith("_loss")) and component != "train_loss":
                curves.setdefault(component, {}).setdefault(held_out, []).append((entry["step"], value))
    if not curves:
        return False
    names = sorted(curves, key=lambda name: (name != "loss", name))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, name in zip(axes, names):
        for held_out, points in sorted(curves[name].items()):
            style = {"color": "#d64545", "marker": "o", "ms": 4} if held_out else {"color": "#2f6fab"}
            axis.plot(*zip(*points), label="held out" if held_out else "training", lw=1.2, **style)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("step", fontsize=9)
    figure.savefig(path, dpi=120)
    return True
