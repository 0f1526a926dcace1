"""Draws the training curves of runs, one panel per component of the loss.

    vidlankd plot --runs outputs/student outputs/other_student \\
        --output outputs/curves.png

A run is the folder of a teacher, a student or a fine-tuned model, finished or
not, or a trainer_state.json. Lines show training, points show evaluation.
Without arguments: outputs/teacher and outputs/student.
"""

from pathlib import Path

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.hub.curves import draw_curves, losses_in, read_curves
from vidlankd_hf.utils.messages import nearest, number_of

DEFAULT_RUNS = ("outputs/teacher", "outputs/student")


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--runs", nargs="+", help=f"folders; default: {' and '.join(DEFAULT_RUNS)}")
    parser.add_argument("--metrics", nargs="+", help="logged names, such as grad_norm; default: all losses")
    parser.add_argument("--output", type=Path, default=Path("outputs/curves.png"), help="PNG file")
    args = parser.parse()
    runs = args.runs or [run for run in DEFAULT_RUNS if Path(run).exists()]
    if not runs:
        parser.error(
            f"there is no run in {' or '.join(DEFAULT_RUNS)}: give --runs, or train one with `vidlankd distill`"
        )
    if len({str(Path(run)) for run in runs}) < len(runs):
        parser.error("a run is given twice: give each run once")
    try:
        curves = {run: read_curves(run) for run in runs}
    except ValueError as error:
        parser.error(str(error))
    logged = list(dict.fromkeys(name for curve in curves.values() for name in curve))
    metrics = args.metrics or losses_in(dict.fromkeys(logged))
    unknown = [name for name in metrics if name not in logged and f"eval_{name}" not in logged]
    if unknown:
        parser.error(f"no run logged {unknown[0]!r}: choose among {', '.join(logged)}{nearest(unknown[0], logged)}")
    if not metrics:
        parser.error("the runs have logged no loss yet: wait until --logging_steps steps are done, or give --metrics")

    args.output.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(curves, metrics, args.output)
    for run, curve in curves.items():
        parts = []
        for name in metrics:
            points = curve.get(f"eval_{name}") or curve.get(name)
            if points:
                parts.append(f"{name} {points[-1][1]:.4g}{' (evaluation)' if f'eval_{name}' in curve else ''}")
        steps = max(step for points in curve.values() for step, _ in points)
        print(f"{run}: {number_of(steps, 'step')}; at the end {', '.join(parts)}")
    print(f"The curves of {number_of(len(curves), 'run')} are in {args.output}: {', '.join(metrics)}.")


if __name__ == "__main__":
    run_example(main)
