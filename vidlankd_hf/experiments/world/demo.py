"""The runs of the demo: a world, its teachers, a language model, and the students that continue it."""

from pathlib import Path

from ...models.objectives import objectives_recipe
from ...utils.examples import flags
from ..grid import ExperimentRun
from .recipe import LANGUAGE_MODEL, MORE_OBJECTIVES, OBJECTIVES, PAPER, STUDENT_RECIPE, TEACHER_RECIPE

Entry = tuple[ExperimentRun, dict | None]


def stages_of(seed: int, folder: Path, thorough: bool) -> list[list[Entry]]:
    """Returns the runs of one seed, in stages that need only earlier stages.

    Args:
        seed: Seed of world and training.
        folder: Folder for all runs of the seed.
        thorough: Add further objectives, a teacher with the paper's hinge loss, and its student.

    Returns:
        Stages of runs, each with the fields of its row in the report, or `None` if it has none.
    """
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
