"""Everything that the tables need for one seed, as steps that can run at the same time."""

from functools import partial

from ..grid import Step, make_run, probe
from .report import accuracy
from .runs import SeedRuns
from .scores import Scoring
from .tables import ROWS


def steps_of_seed(
    runs: SeedRuns, names: list[str], scoring: Scoring, launcher: list[str] | None, first: tuple[str, ...] = ()
) -> list[Step]:
    """Returns the steps that train and score the students without a stored result, with their teachers and vokens.

    Args:
        runs: The seed's runs.
        names: Rows of the tables.
        scoring: The tasks on which the students are scored.
        launcher: Command that starts each training; `None` means the Python interpreter.
        first: Names of steps that must be finished before all of these.

    Raises:
        ValueError: A stored result was made with other settings.
    """

    def step(name: str, work, needs: tuple[str, ...], alone: bool = True) -> Step:
        return Step(step_name(runs, name), work, (*first, *(step_name(runs, need) for need in needs)), alone)

    trained = {name: runs.result(name) is not None for name in names}
    unscored = {
        name: [s for s in scoring.sources if not (trained[name] and scoring.is_kept(runs, name, s))] for name in names
    }
    pending = [name for name in names if not trained[name] or unscored[name]]
    alone, of_world = launcher is not None, () if runs.world is None else ("world",)
    steps = []
    if pending and runs.world is not None:
        steps.append(step("world", partial(make_world, runs), (), False))
    if any(ROWS[name].byte_level for name in pending):
        steps.append(step("byte-level tokenizer", partial(make_tokenizer, runs), of_world, False))
    starts = {folder.name: name for name in pending if (folder := runs.starts_from(name)) is not None}
    for teacher in dict.fromkeys([*(["teacher"] if starts else []), *(ROWS[name].teacher for name in pending)]):
        steps.append(step(teacher, partial(make_teacher, runs, teacher, launcher), of_world, alone))
    for start, name in starts.items():
        needs = ["teacher", *(["byte-level tokenizer"] if ROWS[name].byte_level else [])]
        steps.append(step(start, partial(make_language_model, runs, name, launcher), (*needs,), alone))
    for name in pending:
        folder = runs.starts_from(name)
        needs = [ROWS[name].teacher, *([] if folder is None else [folder.name])]
        if ROWS[name].byte_level:
            needs.append("byte-level tokenizer")
        if ROWS[name].num_vokens:
            needs.append(f"vokens of {name}")
            work = partial(make_vokens, runs, name, launcher)
            steps.append(step(f"vokens of {name}", work, (ROWS[name].teacher,), alone))
        steps.append(step(name, partial(make_student, runs, name, launcher), (*needs,), alone))
    for name in pending:
        for source in unscored[name]:
            work = partial(score, runs, name, source, scoring)
            steps.append(step(f"{name} on {source}", work, (name,), False))
    return steps


def step_name(runs: SeedRuns, name: str) -> str:
    """Name of a seed's step."""
    return f"seed {runs.seed}, {name}"


def make_world(runs: SeedRuns, quiet: bool, gpu: str | None) -> str:
    return make_run(runs.world_run(), None, quiet, gpu)


def make_tokenizer(runs: SeedRuns, quiet: bool, gpu: str | None) -> str:
    runs.make_byte_level_tokenizer()
    return f"{runs.byte_level_tokenizer} is ready."


def make_teacher(runs: SeedRuns, name: str, launcher: list[str] | None, quiet: bool, gpu: str | None) -> str:
    run = runs.teacher_run(name)
    made = make_run(run, launcher, quiet, gpu)
    if runs.world is None:
        return made
    return f"{run.folder}: probe {accuracy(probe(run.folder, runs.world, run.log if quiet else None, gpu)):.2f}"


def make_language_model(runs: SeedRuns, name: str, launcher: list[str] | None, quiet: bool, gpu: str | None) -> str:
    return make_run(runs.language_model_run(name), launcher, quiet, gpu)


def make_vokens(runs: SeedRuns, name: str, launcher: list[str] | None, quiet: bool, gpu: str | None) -> str:
    return make_run(runs.vokens_run(name), launcher, quiet, gpu)


def make_student(runs: SeedRuns, name: str, launcher: list[str] | None, quiet: bool, gpu: str | None) -> str:
    run = runs.student_run(name)
    make_run(run, launcher, quiet, gpu)
    kept = runs.keep(name, run.log if quiet else None, gpu)
    scored = f"probe {accuracy(kept['probe']):.2f}, " if "probe" in kept else ""
    return f"{run.folder}: {scored}MLM loss {kept['mlm_loss']:.2f}"


def score(runs: SeedRuns, name: str, source: str, scoring: Scoring, quiet: bool, gpu: str | None) -> str:
    """Scores a student on one GPU: the batches of a task's recipe are for one."""
    run = scoring.run(runs, name, source)
    made = make_run(run, None, quiet, gpu)
    scoring.keep(runs, name, source)
    return made
