"""Downstream scores of students: the commands that make them, their stored results, and columns for tables."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ...cli import read_config
from ...evaluation import TASKS
from ...evaluation.comparison import Comparison, finetuning_options
from ...evaluation.finetune import RESULT_FILE, folder_of
from ...evaluation.report import METHODS, best_recipe
from ...evaluation.script_arguments import ComparisonArguments
from ...evaluation.significance import paired_test
from ...evaluation.task import Task
from ...evaluation.task_files import add_task_file
from ...utils.examples import flags
from ...utils.io import atomic_write
from ...utils.json_files import read_json
from .. import world  # noqa: F401  (adds its task to TASKS)
from ..grid import ExperimentRun
from .runs import SeedRuns, has_own_data

SECTION = "evaluate_all"
# Options of `vidlankd evaluate` that the experiment chooses.
CHOSEN = ("models", "names", "tasks", "task_file", "data", "output_dir", "jobs", "launcher", "eval_only", "no_card")


@dataclass
class Scoring:
    """The tasks on which students are scored.

    Args:
        tasks: Names in `TASKS`.
        task_files: Task files.
        data: Folder with the data of `tasks`; `None` means the Hub, or the grounded world.
        options: Further options of `vidlankd evaluate`, such as `seeds`.
    """

    tasks: list[str] = field(default_factory=list)
    task_files: list[str] = field(default_factory=list)
    data: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        """Reads the task files.

        Raises:
            ValueError: A task, a file or an option cannot be used.
        """
        named = {path: add_task_file(path) for path in self.task_files}
        self.sources = {**{task: [task] for task in self.tasks}, **named}
        checked = {"tasks": [task for task in self.tasks if task != "world"], "task_file": self.task_files}
        if any(checked.values()):  # a mistake is an error now, not after the training of the students
            known = {name: value for name, value in self.options.items() if name != "finetune_options"}
            finetuning = finetuning_options(json.dumps(self.options.get("finetune_options") or {}))
            Comparison(ComparisonArguments(models=[], **checked, data=self.data, **known), finetuning)
        elif self.data is not None:
            raise ValueError(f"--data {self.data} has no effect without --tasks that read it: leave it out")

    @property
    def names(self) -> list[str]:
        """Names of all tasks."""
        return [name for names in self.sources.values() for name in names]

    @property
    def seeds(self) -> int:
        """Number of seeds of fine-tuning."""
        return int(self.options.get("seeds") or ComparisonArguments.seeds)

    def run(self, runs: SeedRuns, student: str, source: str) -> ExperimentRun:
        """Returns the run that scores a student on a task, or on the tasks of a file."""
        folder = runs.folder / "scores" / student / Path(source).stem
        options: dict[str, Any] = {"models": runs.folder / "students" / student, "names": student}
        options |= {"task_file": source} if source in self.task_files else {"tasks": source}
        data = runs.world if source == "world" else self.data
        if source not in self.task_files and data is not None:
            options["data"] = data
        given = {name: value for name, value in self.options.items() if value is not None}
        rows = [entry for entry in given.pop("train_rows", []) if entry.partition("=")[0] in self.sources[source]]
        options |= {**given, **({"train_rows": rows} if rows else {}), "output_dir": folder}
        return ExperimentRun(folder, SECTION, [*flags(options), "--no_card"], None)

    def identity(self, source: str) -> dict[str, Any]:
        """Settings that stored scores must share with this run."""
        options = {name: value for name, value in self.options.items() if value is not None}
        own = TASKS[self.sources[source][0]].own
        data = {"data": None if source == "world" else self.data} if own is None else {"content": own.fingerprint}
        return json.loads(json.dumps({**options, **data}))

    def keep(self, runs: SeedRuns, student: str, source: str) -> None:
        """Writes the result files of a student that was scored."""
        for task in self.sources[source]:
            chosen, folder = TASKS[task], self.run(runs, student, source).folder / student / task
            folders = [folder]
            if isinstance(chosen, Task) and "train" in chosen.files:
                rates = self.options.get("learning_rates") or [chosen.recipe["learning_rate"]]
                folders = [folder_of(folder, rate, seed) for rate in rates for seed in range(1, self.seeds + 1)]
            results = [read_json(run / RESULT_FILE, dict, "remove it to score again") for run in folders]
            kept = {"task": task, "title": chosen.title, "percent": getattr(chosen, "percent", False)}
            kept |= {"identity": self.identity(source), "runs": results}
            path = self._path(runs, student, task)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(kept) + "\n")

    def is_kept(self, runs: SeedRuns, student: str, source: str) -> bool:
        """Whether a student's scores are stored.

        Raises:
            ValueError: They were made with other settings.
        """
        for path in (self._path(runs, student, task) for task in self.sources[source]):
            if not path.exists():
                return False
            held, asked = read_json(path, dict, "remove it to score again").get("identity"), self.identity(source)
            if held != asked:
                raise ValueError(
                    f"{path} was made with {held}, but this run has {asked}: remove the file or give another "
                    "--results folder"
                )
        return True

    @staticmethod
    def _path(runs: SeedRuns, student: str, task: str) -> Path:
        return runs.results / "scores" / student / f"{task}.json"


def read_scoring(
    path: str | None,
    tasks: list[str] | None,
    files: list[str] | None,
    data: str | None,
    of_world: tuple[str, ...] = (),
) -> Scoring:
    """Joins the tasks of the command line with the section `evaluate_all` of a settings file.

    Args:
        path: The settings file; `None` if there is none.
        tasks, files, data: Options of the command line. Tasks and task files replace those of the section together.
        of_world: Tasks on the grounded world if none are given.

    Raises:
        ValueError: The section has an option that the experiment chooses itself, or that does not exist.
    """
    known = {option.name for option in fields(ComparisonArguments)}
    section = {} if path is None else read_config(path, SECTION, known, section_needed=False)
    fixed = sorted(set(section) & {*CHOSEN} - {"tasks", "task_file", "data"})
    if fixed:
        raise ValueError(f"the section {SECTION} of {path} has {fixed[0]}, which this command chooses: leave it out")
    if tasks is None and files is None:
        tasks, files = section.get("tasks"), section.get("task_file")
    if not tasks and not files and (path is None or not has_own_data(path)):
        tasks = of_world
    options = {name: value for name, value in section.items() if name not in CHOSEN}
    return Scoring(list(tasks or ()), list(files or ()), data or section.get("data"), options)


def read_scores(folder: Path) -> dict[str, dict[str, dict]]:
    """Reads the stored scores of a seed: `{student: {task: entry}}`."""
    found: dict[str, dict[str, dict]] = {}
    for path in sorted((folder / "scores").glob("*/*.json")):
        found.setdefault(path.parent.name, {})[path.stem] = read_json(path, dict, "remove it to score again")
    return found


def columns_of(entry: dict) -> dict[str, dict]:
    """Returns the columns of tables that a stored entry fills.

    Returns:
        Name -> `{"title", "metric", "values", "collapsed", "examples"}` with one value per fine-tuning seed, as
        published: from 0 to 100. The first column of a fine-tuned task is its main score; the others are its other
        splits and metrics, named `TASK/SPLIT/METRIC`, without examples.
    """
    task, title = entry["task"], entry["title"]
    if METHODS.keys() <= entry["runs"][0].keys():  # scored without fine-tuning
        (result,) = entry["runs"]
        scored = {method: result[method] for method in METHODS if result[method] is not None}
        return {
            f"{task}/{method}": {
                "title": f"{title} ({METHODS[method]})", "metric": "right", "values": [100 * one["accuracy"]],
                "collapsed": [None], "examples": [{"scores": one["right"]}],
            }
            for method, one in scored.items()
        }  # fmt: skip
    runs, scale = best_recipe(entry["runs"]), 1 if entry["percent"] else 100
    first, metric = next(iter(runs[0]["scores"])), runs[0]["metric"]
    collapsed = [run["collapsed"] for run in runs]
    main = {"title": title, "metric": metric, "values": [scale * run["score"] for run in runs]}
    columns = {task: {**main, "collapsed": collapsed, "examples": [run["examples"] for run in runs]}}
    for split, scores in runs[0]["scores"].items():
        for name, value in scores.items():
            if isinstance(value, (int, float)) and (split, name) != (first, metric):
                values = [scale * (run["scores"][split].get(name) or 0.0) for run in runs]
                about = {"title": f"{title}, {split}, {name}", "metric": name, "values": values}
                columns[f"{task}/{split}/{name}"] = {**about, "collapsed": collapsed, "examples": None}
    return columns


def column_values(kept: dict[int, dict[str, dict]], student: str, reference: str) -> dict[str, dict]:
    """Summarizes a student's scores over the seeds of its training and of fine-tuning.

    Args:
        kept: [`read_scores`] for each seed.
        student: Name of the student.
        reference: Name of the student against which it is tested.

    Returns:
        Column -> `{"title", "mean", "std", "runs", "collapsed", "p"}`. `std` is over all runs and `None` for one run;
        `p` is `None` without a test.
    """
    by_seed: dict[str, list[tuple[dict, dict | None]]] = {}
    for scores in kept.values():
        others = {c: v for entry in scores.get(reference, {}).values() for c, v in columns_of(entry).items()}
        for entry in scores.get(student, {}).values():
            for column, values in columns_of(entry).items():
                by_seed.setdefault(column, []).append((values, others.get(column)))
    return {
        column: {
            "title": pairs[0][0]["title"],
            "mean": mean(values),
            "std": stdev(values) if len(values) > 1 else None,
            "runs": len(values),
            "collapsed": sum(how is not None for one, _ in pairs for how in one["collapsed"]),
            "p": None if student == reference else _p(pairs),
        }
        for column, pairs in by_seed.items()
        for values in [[value for one, _ in pairs for value in one["values"]]]
    }


def _p(pairs: list[tuple[dict, dict | None]]) -> float | None:
    """Tests a student against another one on the same examples; those of several worlds or trainings are joined."""
    if any(other is None or one["examples"] is None for one, other in pairs):
        return None
    runs = min(len(model["examples"]) for pair in pairs for model in pair)
    first, second = ([_joined([pair[i]["examples"][run] for pair in pairs]) for run in range(runs)] for i in (1, 0))
    return paired_test(pairs[0][0]["metric"], first, second)


def _joined(examples: list[dict]) -> dict[str, list]:
    return {key: [value for one in examples for value in one[key]] for key in examples[0]}
