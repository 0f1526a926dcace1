"""Runs the main job on the grounded world: video, teacher, students, report.

    vidlankd demo

Makes the world, trains a teacher and a control teacher on its videos and a
language model on its text, continues the language model with and without a
teacher, probes all models, and writes results.json, report.md, report.png and
tradeoff.png. Finished runs are not repeated.
"""

import json
import time
from pathlib import Path

from tqdm.auto import tqdm

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.grid import run_steps
from vidlankd_hf.experiments.jobs import on_this_machine
from vidlankd_hf.experiments.world.demo import steps_of
from vidlankd_hf.experiments.world.recipe import WORLD_SEED
from vidlankd_hf.experiments.world.report import write_report


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"), help="folder for models and report")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[WORLD_SEED], help="seeds of world and training; default: 1"
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="add more objectives, a teacher with the paper's hinge loss, and its student with the paper's weights",
    )
    args = parser.parse()

    parser.save_settings(args.output_dir)
    folders = {s: args.output_dir / f"seed-{s}" if len(args.seeds) > 1 else args.output_dir for s in args.seeds}
    started, rows = time.monotonic(), []
    steps = [step for s, folder in folders.items() for step in steps_of(s, folder, args.thorough, rows.extend)]
    # Models this small do not gain from more threads: two runs at a time, one thread each.
    with on_this_machine(2) as submit, tqdm(total=len(steps), desc="runs", unit="run", smoothing=0) as progress:
        failed = run_steps(steps, submit, progress)
    if failed:
        why = "\n".join(f"{name}: {reason}" for name, reason in failed.items())
        raise SystemExit(f"These runs failed; the same command repeats only them:\n{why}")
    rows.sort(key=lambda row: (row["seed"], row["model"], str(row["weights"])))
    (args.output_dir / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    write_report(args.output_dir / "results.json", args.output_dir)
    print(f"\n{(args.output_dir / 'report.md').read_text()}")
    minutes = (time.monotonic() - started) / 60
    print(f"Done in {minutes:.1f} min. The report is {args.output_dir / 'report.md'}, its figure report.png.")
    made = next(iter(folders.values()))
    models = f"--world {made / 'world'} --teacher {made / 'teacher'} --student {made / 'students' / 'crd'}"
    print(f"Next: see which video clips words point to:\n    vidlankd ground {models}")


if __name__ == "__main__":
    run_example(main)
