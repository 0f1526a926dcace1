"""Draws the training curves of runs, each component of the loss by its name, from trainer_state.json alone.

    python examples/plot_run.py --runs outputs/student outputs/other_student \\
        --output outputs/curves.png

A run is a folder of a teacher, a student or a fine-tuned model, finished or not, or a trainer_state.json. Lines are
training, points the evaluation. Without arguments: outputs/teacher and outputs/student.
"""

import json
from pathlib import Path

from vidlankd_hf.cli import CommandLine

STATE = "trainer_state.json"
DEFAULT_RUNS = ("outputs/teacher", "outputs/student")
COLOURS = ("#1c5fa8", "#c2571a", "#2f8f4e", "#8a4fb0", "#b8323a", "#6b6f76", "#b08a00", "#0f8b8d")


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--runs", nargs="+", help=f"default: {' and '.join(DEFAULT_RUNS)}")
    parser.add_argument("--metrics", nargs="+", help="names as logged, such as grad_norm; default: all losses")
    parser.add_argument("--output", type=Path, default=Path("outputs/curves.png"), help="a PNG")
    args = parser.parse()
    runs = args.runs or [run for run in DEFAULT_RUNS if Path(run).exists()]
    if not runs:
        parser.error(
            f"there is no run in {' or '.join(DEFAULT_RUNS)}: give folders, or train with examples/distill.py"
        )
    if len({str(Path(run)) for run in runs}) < len(runs):
        parser.error("a run is given twice")
    try:
        curves = {run: read_curves(run) for run in runs}
    except ValueError as error:
        parser.error(str(error))
    logged = list(dict.fromkeys(name for curve in curves.values() for name in curve))
    components = [name for name in logged if name.endswith("_loss") and not name.startswith(("eval_", "train_"))]
    metrics = args.metrics or [name for name in ("loss", *components) if name in logged]
    unknown = [name for name in metrics if name not in logged and f"eval_{name}" not in logged]
    if unknown:
        parser.error(f"no run logged {unknown[0]!r}: they have {', '.join(logged)}")
    if not metrics:
        parser.error("the runs have logged no loss yet")

    args.output.parent.mkdir(parents=True, exist_ok=True)
    draw(curves, metrics, args.output)
    for run, curve in curves.items():
        parts = []
        for name in metrics:
            points = curve.get(f"eval_{name}") or curve.get(name)
            if points:
                parts.append(f"{name} {points[-1][1]:.4g}{' (evaluation)' if f'eval_{name}' in curve else ''}")
        steps = max(step for points in curve.values() for step, _ in points)
        print(f"{run}: {steps} steps; at the end {', '.join(parts)}")
    print(f"The curves of {len(curves)} runs are in {args.output}: {', '.join(metrics)}.")


def read_curves(run: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of all that a run logged; of one that has not finished, up to its newest checkpoint.

    Raises:
        ValueError: No state there, or a damaged one.
    """
    path = Path(run)
    if path.is_dir():
        checkpoints = [state for state in path.glob(f"checkpoint-*/{STATE}") if _step(state).isdecimal()]
        newest = sorted(checkpoints, key=lambda state: int(_step(state)))[-1:]
        path = next((state for state in (path / STATE, *newest) if state.is_file()), path / STATE)
    if not path.is_file():
        raise ValueError(f"{run} has no {STATE}, and no checkpoint with one: give the folder of a run")
    curves = {}
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


def _step(state: Path) -> str:
    return state.parent.name.rpartition("-")[2]


def draw(curves: dict[str, dict[str, list[tuple[int, float]]]], metrics: list[str], output: Path) -> None:
    """Writes a PNG with a panel for each metric, all runs on its axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 2 if len(metrics) == 4 else min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    size = (4.6 * columns, 3.3 * rows + 0.35 * len(curves))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
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
    handles = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", fontsize=9, frameon=False)
    figure.supxlabel("optimizer step; line: training, point: evaluation", fontsize=9)
    figure.savefig(output, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
