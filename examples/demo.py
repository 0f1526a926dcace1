"""The main job, end to end, on the grounded world: video -> teacher -> students -> what they know about looks.

Makes the world, trains a teacher and a control teacher on its videos, distils students on its text, probes them all
and writes results.json, report.md and report.png. Every step is a cell: what is finished is not done again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm.auto import tqdm

from vidlankd_hf.runs import is_finished
from vidlankd_hf.world.recipe import OBJECTIVES
from vidlankd_hf.world.report import write_report

EXAMPLES = Path(__file__).parent


def stages_of(seed: int, folder: Path, thorough: bool) -> list[list[dict]]:
    """The cells of one seed; those of a stage need only the stages before it."""
    world = folder / "world"
    common = ["--world", str(world), "--seed", str(seed), "--report_to", "none"]

    def teacher(model: str | None, name: str, *options: str) -> dict:
        command = ["pretrain_teacher.py", "--output_dir", str(folder / name), *common, *options]
        return {"name": name, "command": command, "run": folder / name, "model": model, "weights": {}, "seed": seed}

    def student(model: str, name: str, weights: dict, taught_by: str = "teacher") -> dict:
        run = folder / "students" / name
        command = ["distill.py", "--output_dir", str(run), *common, "--no_probe"]
        command += ["--teacher", str(folder / taught_by), "--objectives", json.dumps(weights)]
        return {"name": name, "command": command, "run": run, "model": model, "weights": weights, "seed": seed}

    make_world = ["make_world.py", "--output_dir", str(world), "--seed", str(seed)]
    teachers = [teacher("teacher", "teacher"), teacher(None, "shuffled_teacher", "--shuffle_videos", "true")]
    students = [student(model, model, weights) for model, weights in OBJECTIVES.items()]
    students.append(student("shuffled", "shuffled", OBJECTIVES["infonce"], taught_by="shuffled_teacher"))
    if thorough:
        teachers.append(teacher("teacher_hinge", "hinge_teacher", "--contrast", "hinge"))
        students.append(student("nst", "nst_at_1", {"nst": 1.0}))
    return [[{"name": "world", "command": make_world, "run": world, "model": None}], teachers, students]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of world and training; default: 1")
    parser.add_argument(
        "--thorough", action="store_true", help="also NST at weight 1 and a teacher by the paper's hinge"
    )
    args = parser.parse_args()

    folders = {s: args.output_dir / f"seed-{s}" if len(args.seeds) > 1 else args.output_dir for s in args.seeds}
    stages = [stage for seed, folder in folders.items() for stage in stages_of(seed, folder, args.thorough)]
    cells = [cell for stage in stages for cell in stage]
    started = time.monotonic()
    progress = tqdm(total=len(cells), desc="cells", unit="cell", smoothing=0)
    for stage in stages:
        # Models this small do not share out over torch's threads: two cells side by side, a thread each.
        with ThreadPoolExecutor(2 if len(stage) > 1 else 1) as pool:
            for cell in pool.map(lambda cell: run_cell(cell, alone=len(stage) == 1), stage):  # noqa: B023
                scores = "" if "scores" not in cell else " ".join(f"{s['accuracy']:.2f}" for s in cell["scores"])
                tqdm.write(f"{cell['run']} {scores and 'colour, shape, motion: ' + scores}")
                progress.update()
        rows = [
            {"model": cell["model"], "weights": cell["weights"], "seed": cell["seed"], **score}
            for cell in cells
            for score in cell.get("scores", ())
        ]
        (args.output_dir / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    progress.close()

    write_report(args.output_dir / "results.json", args.output_dir)
    print(f"\n{(args.output_dir / 'report.md').read_text()}")
    print(
        f"Done in {(time.monotonic() - started) / 60:.1f} min. The report is {args.output_dir / 'report.md'}, its "
        "figure report.png.\nNext: accelerate launch examples/distill.py, or your own videos: docs/data.md"
    )


def run_cell(cell: dict, alone: bool) -> dict:
    """Runs a cell if it is not finished, and probes its model; returns it with its `scores`."""
    run = Path(cell["run"])
    if not (is_finished(run) or (run / "world.json").exists()):
        run_example(*cell["command"], log=None if alone else run.with_name(f"{run.name}.log"))
    if cell["model"]:
        probe = run / "probe.json"
        if not probe.exists():
            world = cell["command"][cell["command"].index("--world") + 1]
            command = ["--model", str(run), "--world", world, "--output_json", str(probe)]
            run_example("probe.py", *command, log=run.with_name(f"{run.name}.log"))
        cell["scores"] = json.loads(probe.read_text())
    return cell


def run_example(script: str, *arguments: str, log: Path | None) -> None:
    """Runs a sibling example, its output on the terminal or, with a thread of its own, appended to `log`."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    if log is None:
        subprocess.run(command, check=True, env=environment)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        end = "\n".join(log.read_text().splitlines()[-15:])
        raise SystemExit(f"{script} failed (exit code {done.returncode}). The end of {log}:\n{end}")


if __name__ == "__main__":
    main()
