"""Runs the main job on the grounded world: video, teacher, students, report.

    vidlankd demo

Makes the world, trains a teacher and a control teacher on its videos and a
language model on its text, continues the language model with and without a
teacher, probes all models, and writes results.json, report.md, report.png and
tradeoff.png. Finished runs are not repeated.
"""

import json
import time
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.grid import ExperimentRun, held_out_language, probe, run_in_parallel
from vidlankd_hf.experiments.world.recipe import (
    LANGUAGE_MODEL,
    MORE_OBJECTIVES,
    OBJECTIVES,
    PAPER,
    STUDENT_RECIPE,
    TEACHER_RECIPE,
    WORLD_SEED,
)
from vidlankd_hf.experiments.world.report import write_report
from vidlankd_hf.models.objectives import objectives_recipe
from vidlankd_hf.utils.examples import flags


def stages_of(seed: int, folder: Path, thorough: bool) -> list[list[tuple[ExperimentRun, dict | None]]]:
    """Returns the runs of one seed, each with its row in the report, in stages that need only earlier stages."""
    world = folder / "world"

    def training(run: Path, example: str, options: dict, settings: dict) -> ExperimentRun:
        common = {"world": world, "output_dir": run, "seed": seed, "report_to": "none"}
        return ExperimentRun(run, example, flags({**common, **options}), {**settings, "seed": seed})

    def teacher(name: str, model: str | None, contrast: str = "infonce", shuffle: bool = False):
        options = {"contrast": contrast, "shuffle_videos": shuffle}
        run = training(folder / name, "pretrain_teacher", options, {**TEACHER_RECIPE, **options})
        return run, model and {"model": model, "weights": {}, "seed": seed}

    def student(name: str, model: str, objectives: dict, taught_by: str = "teacher", **more):
        options = {
            "student": str(language_model),
            "teacher": str(folder / taught_by),
            "objectives": objectives,
            **more,
        }
        complete = objectives_recipe(objectives)
        settings = {**STUDENT_RECIPE, **options, "objectives": complete}
        run = training(folder / "students" / name, "distill", {**options, "no_probe": True}, settings)
        return run, {"model": model, "weights": {n: o["weight"] for n, o in complete.items()}, "seed": seed}

    make_world = ExperimentRun(world, "make_world", flags({"output_dir": world, "seed": seed}), {"seed": seed})
    language_model = folder / "language_model"
    # The teacher gives the tokenizer, nothing else.
    options = {**LANGUAGE_MODEL, "teacher": str(folder / "teacher"), "no_probe": True}
    reads_text = training(language_model, "distill", options, {**STUDENT_RECIPE, **LANGUAGE_MODEL})
    starts = [(reads_text, None), teacher("shuffled_teacher", None, shuffle=True)]
    students = [student(model, model, weights) for model, weights in OBJECTIVES.items()]
    students.append(student("shuffled", "shuffled", OBJECTIVES["crd"], taught_by="shuffled_teacher"))
    if thorough:
        starts.append(teacher("hinge_teacher", "teacher_hinge", contrast="hinge"))
        students += [student(model, model, weights) for model, weights in MORE_OBJECTIVES.items()]
        students.append(student("paper", "paper", taught_by="hinge_teacher", **PAPER))
    return [[(make_world, None)], [teacher("teacher", "teacher")], starts, students]


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
    stages = [
        (folder / "world", stage)
        for seed, folder in folders.items()
        for stage in stages_of(seed, folder, args.thorough)
    ]
    started, rows = time.monotonic(), []

    def make(world: Path, entry: tuple[ExperimentRun, dict | None], quiet: bool) -> str:
        run, row = entry
        run.make(quiet)
        if row is None:
            return f"{run.folder} is ready."
        scores = probe(run.folder, world, run.log if quiet else None)
        language = held_out_language(run.folder) if run.example == "distill" else {}
        rows.extend({**row, **score, **language} for score in scores)
        accuracies = " ".join(f"{score['accuracy']:.2f}" for score in scores)
        return f"{run.folder} colour, shape, motion: {accuracies}"

    with tqdm(total=sum(len(stage) for _, stage in stages), desc="runs", unit="run", smoothing=0) as progress:
        for world, stage in stages:
            # Models this small do not gain from more threads: two runs at a time, one thread each.
            run_in_parallel(partial(make, world), stage, 2, progress)
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
