"""What the steps of an experiment will cost, before anything is trained: FLOPs, hours and gigabytes."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ...evaluation import TASKS
from ...evaluation.reading import read_rows
from ...evaluation.task import Task
from ...models.student import student_class
from ...reliability.checkpointing import checkpoints_of
from ...reliability.run_dir import is_finished
from ...utils.json_files import read_json
from ...utils.yaml_files import read_yaml
from ..ablations.experiment import Experiment
from ..ablations.run_seed import make_language_model, make_student, make_teacher, make_vokens, make_world, score
from ..ablations.scores import Scoring, read_scores
from ..ablations.tables import ROWS, TEACHERS
from ..flops import step_flops, teacher_step_flops
from ..grid import ExperimentRun, Step
from .planned_runs import PlannedRuns

PIECES_PER_SECOND = 3.0  # word pieces of speech per second of video, for the video steps of a window
BYTES_PER_PIECE = 4.5  # of English text: WikiText-103 has 540 MB and 118 M word pieces
COUNTS_FILE = "preparation.json"


@dataclass
class Cost:
    """Estimated cost of a step; `None` means unknown.

    Args:
        name: Name of the step.
        command: Its command line, which the runs that it needs may complete.
        steps: Optimizer steps.
        flops: FLOPs of what is still to do.
        hours: Hours of what is still to do.
        gigabytes: Disk space of the finished run with its checkpoints.
    """

    name: str
    command: str
    steps: int | None = None
    flops: float | None = None
    hours: float | None = None
    gigabytes: float | None = None


class Estimator:
    """Estimates the cost of an experiment's steps.

    Rates are measured in the finished runs of the experiment's folder: the median FLOP/s of its teachers and of its
    students, and the time that each task took.

    Args:
        experiment: An experiment whose runs are [`PlannedRuns`].
        tflops: TFLOP/s of a training run, for kinds of runs of which none is finished.
    """

    def __init__(self, experiment: Experiment, tflops: float | None):
        self.experiment = experiment
        self.processes = processes_of(experiment.launcher)
        path = experiment.folder / COUNTS_FILE
        self.counts = read_json(path, dict, "remove it and prepare again") if path.exists() else {}
        given = None if tflops is None else tflops * 1e12
        measured = {"teacher": self._teacher_rates(), "student": self._student_rates()}
        self.rates = {kind: median(rates) if rates else given for kind, rates in measured.items()}
        self.sources = {
            kind: f"{self.rates[kind] / 1e12:.4g} TFLOP/s, "
            + (f"the median of {len(rates)} finished runs" if rates else "given by --tflops")
            if self.rates[kind]
            else "unknown: no run is finished, and --tflops is not given"
            for kind, rates in measured.items()
        }
        self.seconds = self._seconds_of_tasks()

    def cost(self, step: Step) -> Cost:
        """Estimates a step of [`steps_of_seed`]; other steps have no estimate."""
        function, arguments = step.work.func, step.work.args
        estimate = {
            make_teacher: self._teacher,
            make_language_model: self._language_model,
            make_student: self._student,
            make_vokens: self._vokens,
        }.get(function)
        if estimate is not None:
            return estimate(step.name, arguments[0], arguments[1])
        if function is score:
            return self._score(step.name, *arguments)
        if function is make_world:
            return Cost(step.name, arguments[0].world_run().command())
        return Cost(step.name, arguments[0].command() if isinstance(arguments[0], ExperimentRun) else "")

    def _teacher(self, name: str, runs: PlannedRuns, teacher: str) -> Cost:
        run = runs.teacher_run(teacher)
        steps = self._steps(run.settings, self.counts.get("windows"))
        flops = None if steps is None else steps * self._teacher_step(runs, run.settings, teacher)
        return self._training(name, run, steps, flops, "teacher", _weights(runs.teacher_model(teacher)))

    def _language_model(self, name: str, runs: PlannedRuns, row: str) -> Cost:
        run, student = runs.language_model_run(row), runs._models(row)[0]
        steps, length = run.settings["max_steps"], int(run.settings["block_tokens"]) + 2
        masked = float(run.settings.get("mlm_probability", 0.15))
        flops = steps * self.processes * step_flops(student, None, _per_process(run.settings), length, masked)
        return self._training(name, run, steps, flops, "student", _weights(student))

    def _student(self, name: str, runs: PlannedRuns, row: str) -> Cost:
        run = runs.student_run(row)
        steps = self._steps(run.settings, self._blocks(runs))
        sequences = _per_process(run.settings) * self.processes
        flops = None if steps is None else steps * sequences * runs._sequence_flops(row)
        return self._training(name, run, steps, flops, "student", _weights(runs._models(row)[0]))

    def _vokens(self, name: str, runs: PlannedRuns, row: str) -> Cost:
        blocks, run = self._blocks(runs), runs.vokens_run(row)
        if blocks is None:
            return Cost(name, run.command(self.experiment.launcher))
        length = int(runs.student_recipe.get("block_tokens", 126)) + 2
        student = student_class("bert")(runs.teacher_model(ROWS[row].teacher).config.text_config)
        flops = blocks * step_flops(student, None, 1, length, 0.0) / 3  # forward alone
        return Cost(
            name,
            run.command(self.experiment.launcher),
            None,
            flops,
            self._hours(flops, "student"),
            4e-9 * blocks * length,
        )

    def _score(self, name: str, runs: PlannedRuns, row: str, source: str, scoring: Scoring) -> Cost:
        command = scoring.run(runs, row, source).command()
        tasks, flops = [TASKS[task] for task in scoring.sources[source]], 0.0
        for task in tasks:
            if not isinstance(task, Task) or "train" not in task.files:
                continue
            rows = _training_rows(task, source, scoring, runs)
            if rows is None:
                return Cost(name, command, None, None, self.seconds.get(source))
            recipe = {**task.recipe, **(scoring.options.get("finetune_options") or {})}
            sequences = rows * recipe["num_train_epochs"]
            if recipe.get("max_steps"):
                sequences = recipe["max_steps"] * recipe["per_device_train_batch_size"]
            sequences *= scoring.seeds * len(scoring.options.get("learning_rates") or [1])
            flops += sequences * step_flops(runs._models(row)[0], None, 1, task.recipe["max_length"], 0.0)
        hours = self.seconds.get(source, self._hours(flops / self.processes, "student"))
        return Cost(name, command, None, flops, hours, 0.0)

    def _training(self, name: str, run: ExperimentRun, steps, flops, kind: str, weights: int) -> Cost:
        """Cost of what is still to do of a training, and the disk space of its checkpoints and weights."""
        kept = None
        if steps is not None:
            every = run.settings.get("save_steps", 500)
            saved = int(steps // every) if every >= 1 else math.ceil(1 / every)
            kept = min(saved, int(run.settings.get("save_total_limit") or saved))
            left = 0.0 if is_finished(run.folder) else 1.0
            if left and (held := checkpoints_of(run.folder)):
                left = max(0.0, 1 - int(held[0].name.rpartition("-")[2]) / steps)
            flops *= left
        gigabytes = None if kept is None else 4e-9 * weights * (1 + 3 * kept)  # fp32; Adam has two moments
        return Cost(name, run.command(self.experiment.launcher), steps, flops, self._hours(flops, kind), gigabytes)

    def _hours(self, flops: float | None, kind: str) -> float | None:
        rate = self.rates[kind]
        return None if flops is None or rate is None else flops / rate / 3600

    def _steps(self, settings: dict[str, Any], samples: float | None) -> int | None:
        """Optimizer steps of a run; `None` if they depend on data that are not prepared."""
        if float(settings.get("max_steps") or -1) > 0:
            return int(settings["max_steps"])
        if samples is None:
            return None
        return math.ceil(
            samples / (_per_process(settings) * self.processes) * float(settings.get("num_train_epochs", 3))
        )

    def _blocks(self, runs: PlannedRuns) -> float | None:
        """Number of blocks of text: counted by the preparation, or estimated from the size of a file or folder."""
        if "blocks" in self.counts:
            return self.counts["blocks"]
        text = Path(runs.student_recipe["text"] if runs.world is None else runs.world / "text")
        if not text.exists():
            return None
        files = [text] if text.is_file() else [path for path in text.rglob("*") if path.is_file()]
        tokens = sum(path.stat().st_size for path in files) / BYTES_PER_PIECE
        return tokens / int(runs.student_recipe.get("block_tokens", 126))

    def _teacher_step(self, runs: PlannedRuns, settings: dict[str, Any], teacher: str) -> float:
        sequences, length = _per_process(settings), int(settings.get("max_length", 128))
        spoken = max(1, round((length - 2) / PIECES_PER_SECOND))
        video = min(spoken, int(settings.get("max_video_length", 384)))
        masked = float(settings.get("mlm_probability", 0.15))
        model = runs.teacher_model(teacher)
        return self.processes * teacher_step_flops(model, sequences, length, video, masked)

    def _teacher_rates(self) -> list[float]:
        """FLOP/s of the finished teachers."""
        rates = []
        for runs in self.experiment.runs.values():
            for teacher in TEACHERS:
                folder = runs.folder / teacher
                if not is_finished(folder) or "architecture" in TEACHERS[teacher]:
                    continue
                state = read_json(folder / "trainer_state.json", dict, "remove its folder to train again")
                seconds = [entry["train_runtime"] for entry in state["log_history"] if "train_runtime" in entry]
                settings = runs.teacher_run(teacher).settings
                flops = state["global_step"] * self._teacher_step(runs, settings, teacher)
                rates += [flops / sum(seconds)] if seconds else []
        return rates

    def _student_rates(self) -> list[float]:
        """FLOP/s of the students with a stored result."""
        kept = [one for runs in self.experiment.runs.values() for one in map(runs.result, ROWS) if one is not None]
        return [one["tflop"] * 1e12 / one["seconds"] for one in kept if one["seconds"]]

    def _seconds_of_tasks(self) -> dict[str, float]:
        """Hours that each source of tasks took, as the median over the students that were scored."""
        found: dict[str, list[float]] = {}
        scoring = self.experiment.scoring
        for runs in self.experiment.runs.values():
            for entries in read_scores(runs.results).values():
                for source, names in scoring.sources.items():
                    if all(name in entries for name in names):
                        made = [run.get("seconds", 0.0) for name in names for run in entries[name]["runs"]]
                        found.setdefault(source, []).append(sum(made) / 3600)
        return {source: median(hours) for source, hours in found.items()}


def processes_of(launcher: list[str] | None) -> int:
    """Number of processes that a launcher starts: its option, or that of its configuration file, or 1."""
    words = " ".join(launcher or [])
    for option in ("num_processes", "nproc_per_node", "nproc-per-node"):
        if found := re.search(rf"--{option}[= ](\d+)", words):
            return int(found[1])
    found = re.search(r"--config_file[= ](\S+)", words)
    return int((read_yaml(found[1]) or {}).get("num_processes", 1)) if found and Path(found[1]).is_file() else 1


def _per_process(settings: dict[str, Any]) -> int:
    return int(settings.get("per_device_train_batch_size", 8)) * int(settings.get("gradient_accumulation_steps", 1))


def _weights(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _training_rows(task: Task, source: str, scoring: Scoring, runs: PlannedRuns) -> int | None:
    """Number of training rows of a task; `None` if its data are not on this machine."""
    limits = dict(entry.split("=") for entry in scoring.options.get("train_rows") or [])
    limit = limits.get(task.folder.rpartition("/")[2]) or limits.get(source)
    if task.own is not None:
        rows = len(task.own.rows["train"])
    else:
        data = runs.world if source == "world" else scoring.data
        if source == "world" and not (runs.world / "nouns.json").exists():
            return None
        if data is None or not Path(data).is_dir():
            return int(limit) if limit else None
        rows = len(read_rows(task, str(data), "train"))
    return min(rows, int(limit)) if limit else rows


def write_plan(costs: list[Cost], estimator: Estimator, print_line: Callable[[str], Any] = print) -> None:
    """Prints every step with its command and cost, and the sums."""
    for cost in costs:
        about = [f"{cost.steps:,} steps"] if cost.steps is not None else []
        about += [_shown(cost.flops, 1e-12, "TFLOP"), _shown(cost.hours, 1, "h"), _shown(cost.gigabytes, 1, "GB")]
        print_line(f"{cost.name}: {', '.join(about)}\n    {cost.command}")
    totals = {key: [getattr(cost, key) for cost in costs] for key in ("flops", "hours", "gigabytes")}
    sums = {key: sum(value or 0.0 for value in values) for key, values in totals.items()}
    unknown = {key: sum(value is None for value in values) for key, values in totals.items()}
    print_line(
        f"\n{len(costs)} runs. In all: {_shown(sums['flops'], 1e-12, 'TFLOP')}, {_shown(sums['hours'], 1, 'h')} one "
        f"after another, {_shown(sums['gigabytes'], 1, 'GB')}."
    )
    if any(unknown.values()):
        print_line(
            f"Without an estimate, and not in the sums: FLOPs of {unknown['flops']}, hours of {unknown['hours']}, GB "
            f"of {unknown['gigabytes']} runs (?)."
        )
    for kind, source in estimator.sources.items():
        print_line(f"Rate of a {kind}: {source}.")
    if estimator.seconds:
        print_line(f"Measured on finished students: the hours of {', '.join(estimator.seconds)}.")
    if any(cost.steps is None and cost.flops is None and "pretrain_teacher" in cost.command for cost in costs):
        print_line(
            "The steps of teachers depend on the number of windows, which the preparation counts: run `vidlankd "
            f"prepare --config CONFIG --counts {estimator.experiment.folder / COUNTS_FILE}` first, or set max_steps."
        )


def _shown(value: float | None, scale: float, unit: str) -> str:
    return f"? {unit}" if value is None else f"{value * scale:,.3g} {unit}"
