"""The main job, end to end, on the grounded world: video -> teacher -> students -> what they know about looks.

Makes the world, trains a teacher and a control teacher on its videos, distils students on its text, probes them all
and writes results.json, report.md and report.png. Every step is a cell: what is finished is not done again.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm.auto import tqdm

from vidlankd_hf.runs import is_finished, run_script
from vidlankd_hf.student import objectives_recipe
from vidlankd_hf.world.recipe import OBJECTIVES, STUDENT_RECIPE, TEACHER_RECIPE, WORLD_SEED
from vidlankd_hf.world.report import write_report

EXAMPLES = Path(__file__).parent
FREE = ("save_steps", "save_total_limit", "logging_steps")


def stages_of(seed: int, folder: Path, thorough: bool) -> list[list[dict]]:
    """The cells of one seed; those of a stage need only the stages before it.

    A cell has the folder it makes, the command, the settings that the folder must show if it is there already, and a
    model's name if it is to be probed.
    """
    world = folder / "world"
    common = ["--world", str(world), "--seed", str(seed), "--report_to", "none"]

    def teacher(model: str | None, run: str, contrast: str = "infonce", shuffle: bool = False) -> dict:
        settings = {**TEACHER_RECIPE, "seed": seed, "contrast": contrast, "shuffle_videos": shuffle}
        command = ["pretrain_teacher.py", "--output_dir", str(folder / run), *common]
        command += ["--contrast", contrast, "--shuffle_videos", str(shuffle)]
        return {
            "run": folder / run,
            "command": command,
            "settings": settings,
            "model": model,
            "weights": {},
            "seed": seed,
        }

    def student(model: str, name: str, weights: dict, taught_by: str = "teacher") -> dict:
        run, taught_by = folder / "students" / name, str(folder / taught_by)
        settings = {**STUDENT_RECIPE, "seed": seed, "teacher": taught_by, "objectives": objectives_recipe(weights)}
        command = ["distill.py", "--output_dir", str(run), *common, "--no_probe"]
        command += ["--teacher", taught_by, "--objectives", json.dumps(weights)]
        return {"run": run, "command": command, "settings": settings, "model": model, "weights": weights, "seed": seed}

    make_world = ["make_world.py", "--output_dir", str(world), "--seed", str(seed)]
    teachers = [teacher("teacher", "teacher"), teacher(None, "shuffled_teacher", shuffle=True)]
    students = [student(model, model, weights) for model, weights in OBJECTIVES.items()]
    students.append(student("shuffled", "shuffled", OBJECTIVES["infonce"], taught_by="shuffled_teacher"))
    if thorough:
        teachers.append(teacher("teacher_hinge", "hinge_teacher", contrast="hinge"))
        students.append(student("nst", "nst_at_1", {"nst": 1.0}))
    return [[{"run": world, "command": make_world, "settings": {"seed": seed}, "model": None}], teachers, students]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs"), help="default: %(default)s")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[WORLD_SEED], help="of world and training; default: %(default)s"
    )
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
    """Runs a cell if its folder is not complete, and probes its model; returns it with its `scores`."""
    run, log = cell["run"], None if alone else cell["run"].with_name(f"{cell['run'].name}.log")
    if is_complete(cell):
        held = settings_of(run)
        other = {n: held.get(n) for n, value in cell["settings"].items() if held.get(n) != value and n not in FREE}
        if other:
            raise ValueError(f"{run} was made with {other}, not {cell['settings']}: remove it, or give --output_dir")
    else:
        run_script(EXAMPLES / cell["command"][0], *cell["command"][1:], log=log)
    if cell["model"]:
        probe, weights = run / "probe.json", run / "model.safetensors"
        if not probe.exists() or probe.stat().st_mtime < weights.stat().st_mtime:
            world = cell["command"][cell["command"].index("--world") + 1]
            command = ["--model", str(run), "--world", world, "--output_json", str(probe)]
            run_script(EXAMPLES / "probe.py", *command, log=log)
        cell["scores"] = json.loads(probe.read_text())
    return cell


def is_complete(cell: dict) -> bool:
    return is_finished(cell["run"]) or (cell["run"] / "world.json").exists()


def settings_of(run: Path) -> dict:
    """What a finished run or world says of its settings."""
    path = run / "world.json"
    return json.loads(path.read_text()) if path.exists() else json.loads((run / "run.json").read_text())["settings"]


if __name__ == "__main__":
    main()
