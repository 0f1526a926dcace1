"""The runs of the demo: a world, its teachers, a language model, and the students that continue it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...models.objectives import objectives_recipe
from ...utils.examples import flags
from ..grid import ExperimentRun, Step, held_out_language, probe
from .recipe import LANGUAGE_MODEL, MORE_OBJECTIVES, OBJECTIVES, PAPER, STUDENT_RECIPE, TEACHER_RECIPE


@dataclass
class DemoRun:
    """One run of the demo.

    Args:
        run: The run.
        needs: Names, within the seed's folder, of the runs that must be finished before.
        row: Fields of its row in the report; `None` if it has none.
    """

    run: ExperimentRun
    needs: tuple[str, ...]
    row: dict | None = None


def runs_of(seed: int, folder: Path, thorough: bool) -> list[DemoRun]:
    """Returns the runs of one seed.

    Args:
        seed: Seed of world and training.
        folder: Folder for all runs of the seed.
        thorough: Add further objectives, a teacher with the paper's hinge loss, and its student.
    """
    world, language_model = folder / "world", folder / "language_model"

    def training(run: Path, example: str, options: dict, settings: dict) -> ExperimentRun:
        common = {"world": world, "output_dir": run, "seed": seed, "report_to": "none"}
        return ExperimentRun(run, example, flags({**common, **options}), {**settings, "seed": seed})

    def teacher(name: str, model: str | None, contrast: str = "infonce", shuffle: bool = False) -> DemoRun:
        options = {"contrast": contrast, "shuffle_videos": shuffle}
        run = training(folder / name, "pretrain_teacher", options, {**TEACHER_RECIPE, **options})
        return DemoRun(run, ("world",), model and {"model": model, "weights": {}, "seed": seed})

    def student(name: str, objectives: dict, taught_by: str = "teacher", **more) -> DemoRun:
        options = {
            "student": str(language_model),
            "teacher": str(folder / taught_by),
            "objectives": objectives,
            **more,
        }
        complete = objectives_recipe(objectives)
        settings = {**STUDENT_RECIPE, **options, "objectives": complete}
        run = training(folder / "students" / name, "distill", {**options, "no_probe": True}, settings)
        weights = {objective: options["weight"] for objective, options in complete.items()}
        return DemoRun(run, ("language_model", taught_by), {"model": name, "weights": weights, "seed": seed})

    # The teacher gives the tokenizer, nothing else.
    options = {**LANGUAGE_MODEL, "teacher": str(folder / "teacher"), "no_probe": True}
    reads_text = training(language_model, "distill", options, {**STUDENT_RECIPE, **LANGUAGE_MODEL})
    runs = [
        DemoRun(ExperimentRun(world, "make_world", flags({"output_dir": world, "seed": seed}), {"seed": seed}), ()),
        teacher("teacher", "teacher"),
        DemoRun(reads_text, ("teacher",)),
        teacher("shuffled_teacher", None, shuffle=True),
        *(student(name, weights) for name, weights in OBJECTIVES.items()),
        student("shuffled", OBJECTIVES["crd"], taught_by="shuffled_teacher"),
    ]
    if thorough:
        runs.append(teacher("hinge_teacher", "teacher_hinge", contrast="hinge"))
        runs += [student(name, weights) for name, weights in MORE_OBJECTIVES.items()]
        runs.append(student("paper", taught_by="hinge_teacher", **PAPER))
    return runs


def steps_of(seed: int, folder: Path, thorough: bool, keep: Callable[[list[dict]], None]) -> list[Step]:
    """Returns the steps that make and score the runs of [`runs_of`]; `keep` receives the report's rows of each."""

    def make(made: DemoRun, quiet: bool, gpu: str | None) -> str:
        run = made.run
        run.make(quiet, gpu=gpu)
        if made.row is None:
            return f"{run.folder} is ready."
        scores = probe(run.folder, folder / "world", run.log if quiet else None, gpu)
        language = held_out_language(run.folder) if run.example == "distill" else {}
        keep([{**made.row, **score, **language} for score in scores])
        accuracies = " ".join(f"{score['accuracy']:.2f}" for score in scores)
        return f"{run.folder} colour, shape, motion: {accuracies}"

    return [
        # No other run can start before the world is finished, so it uses all cores and shows its progress.
        Step(
            str(made.run.folder), partial(make, made), tuple(str(folder / name) for name in made.needs), not made.needs
        )
        for made in runs_of(seed, folder, thorough)
    ]
