"""Compares models on tasks: checks the arguments, then computes each result or reads it if it exists."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.vocabulary import load_tokenizer
from ..models.teacher import check_path
from ..reliability.run_dir import run_script
from ..utils.addresses import public_word
from ..utils.examples import EXAMPLES, flags
from ..utils.io import atomic_write
from ..utils.json_files import read_json
from ..utils.messages import nearest
from . import TASKS
from .card import finetuning_results, scored_results, update_card, zero_shot_results
from .checkpoints import fingerprint, load_for_scoring
from .eval_only import OF_TRAINING
from .finetune import RESULT_FILE, folder_of, left_out
from .reading import find_file
from .report import best_recipe
from .script_arguments import ComparisonArguments
from .task import Task
from .task_files import add_task_file
from .zero_shot import evaluate_zero_shot

REMEDY = "remove it to score again"


class Comparison:
    """Several models on several tasks, each result in its own folder.

    Args:
        args: Models, tasks and options.
        passed_on: Options for the fine-tuning script: name -> words.

    Raises:
        ValueError: The arguments contradict each other, or files are missing.
    """

    def __init__(self, args: ComparisonArguments, passed_on: dict[str, Any]):
        self.args, self.passed_on = args, passed_on
        self.names = args.names or [Path(model).name for model in args.models]
        self.tasks = [*(args.tasks or ()), *(name for path in args.task_file or () for name in add_task_file(path))]
        self.zero_shot = [task for task in self.tasks if task in TASKS and not isinstance(TASKS[task], Task)]
        self._check()
        self.rows = dict(entry.split("=") for entry in args.train_rows or [])

    def _check(self) -> None:
        args, rows = self.args, self.args.train_rows or []
        for model in args.models:
            check_path(model, "a checkpoint")
        if not self.tasks:
            raise ValueError(f"there is no task: give --tasks, some of {', '.join(TASKS)}, or --task_file")
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown:
            raise ValueError(f"--tasks has {unknown[0]!r}: choose from {', '.join(TASKS)}{nearest(unknown[0], TASKS)}")
        twice = [task for task in self.tasks if self.tasks.count(task) > 1]
        if twice:
            raise ValueError(f"the task {twice[0]!r} is given twice: give it once")
        if args.jobs < 1 or (args.jobs > 1 and args.launcher):
            raise ValueError(
                f"--jobs is {args.jobs}: give 1 or more, and only 1 with --launcher, which uses all GPUs for each run"
            )
        if args.data and all(TASKS[task].own is not None for task in self.tasks):
            raise ValueError(f"--data {args.data} has no effect: task files name their files; leave it out")
        if "eval_only" in self.passed_on:
            raise ValueError("finetune_options has eval_only: give --eval_only")
        if any(name == "push_to_hub" or name.startswith("hub_") for name in self.passed_on):
            raise ValueError(
                "this command does not push: push a model with `vidlankd finetune`, after `hf auth login`"
            )
        if len(self.names) != len(args.models) or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"the models' names are {', '.join(self.names)}: give each model its own name with --names"
            )
        without = [task for task in self.zero_shot if TASKS[task].own is None]
        if without and args.data is None:
            raise ValueError(f"{', '.join(without)} need --data, the folder that holds visual_commonsense")
        limited = {entry.partition("=")[0] for entry in rows}
        for task in filter(self.as_is, self.tasks):
            if args.learning_rates or task in limited:
                raise ValueError(f"{task} is scored without training: leave out --learning_rates and its --train_rows")
        if not all(re.fullmatch(r"[\w-]+=[1-9]\d*", entry) for entry in rows):
            raise ValueError(f"--train_rows {' '.join(rows)}: write TASK=ROWS, such as sst2=10000")
        if "learning_rate" in self.passed_on or {entry.split("=")[0] for entry in rows} - set(self.tasks):
            raise ValueError(
                "give --learning_rates instead of --learning_rate, and --train_rows only for tasks that are compared"
            )
        for task in self.tasks if args.data else ():  # a missing file is an error now, not after hours
            if TASKS[task].own is not None:
                continue
            trained = () if self.as_is(task) else ("train",)
            needed = TASKS[task].files if task in self.zero_shot else (*trained, *TASKS[task].evaluate_on)
            for split in needed:
                find_file(TASKS[task], args.data, split)

    def as_is(self, task: str) -> bool:
        """Whether models are scored on a task with their own head, without training."""
        return task not in self.zero_shot and (self.args.eval_only or "train" not in TASKS[task].files)

    @property
    def trained(self) -> list[str]:
        """The tasks on which models are fine-tuned."""
        return [task for task in self.tasks if task not in self.zero_shot and not self.as_is(task)]

    def result(self, name: str, model: str, task: str, launcher: list[str] | None, quiet: bool = False) -> Any:
        """Returns the result of a model on a task, from [`scored`] or [`finetuned`]; computes what is missing."""
        if task in self.zero_shot:
            return self.scored(name, model, task)
        return self.finetuned(name, model, task, launcher, quiet)

    def finetuned(
        self, name: str, model: str, task: str, launcher: list[str] | None, quiet: bool = False
    ) -> list[dict]:
        """Returns the results of a fine-tuned task, one per learning rate and seed; runs what is missing.

        A task that is scored without training has one result.

        Args:
            name: Name of the model in the report.
            model: Hub id or folder.
            task: Name of the task.
            launcher: Command that starts the fine-tuning; `None` means the Python interpreter.
            quiet: Append the output to a file next to the results instead of showing it.
        """
        args, folder, own = self.args, Path(self.args.output_dir) / name / task, TASKS[task].own
        options = {"model": model, "output_dir": folder, "no_card": "true"}
        options |= {"task": task, "data": args.data} if own is None else {"task_file": own.path}
        if self.as_is(task):
            options["eval_only"] = "true"
        else:
            options |= {"seeds": args.seeds, "learning_rates": args.learning_rates, "train_rows": self.rows.get(task)}
        passed_on = self.passed_on
        if self.as_is(task) and self.trained:  # these options are for the other tasks
            passed_on = {name: value for name, value in passed_on.items() if name not in OF_TRAINING}
        options, more = {name: value for name, value in options.items() if value}, flags(passed_on)
        identity = [fingerprint(model), *([] if own is None else [own.fingerprint])]
        made, arguments = folder / "arguments.json", json.dumps([*flags(options), *more, *identity])
        if not made.exists() or made.read_text() != arguments:
            words = [*flags({**options, "report_to": "none"}), *more]
            log = folder.with_name(f"{task}.log") if quiet else None
            run_script(EXAMPLES / "finetune.py", *words, launcher=launcher, log=log)
            atomic_write(made, arguments)
        if self.as_is(task):
            return [read_json(folder / RESULT_FILE, dict, REMEDY)]
        rates = args.learning_rates or [TASKS[task].recipe["learning_rate"]]
        runs = [folder_of(folder, rate, seed) for rate in rates for seed in range(1, args.seeds + 1)]
        return [read_json(run / RESULT_FILE, dict, REMEDY) for run in runs]

    def scored(self, name: str, model: str, task: str) -> dict:
        """Returns the result of a task without fine-tuning; computes it if it is missing.

        Args:
            name, model, task: As in [`finetuned`].

        Raises:
            ValueError: The stored result was made from another model or other data.
        """
        path = Path(self.args.output_dir) / name / task / RESULT_FILE
        own = TASKS[task].own
        data = self.args.data if own is None else own.fingerprint
        made_from = {"model": model, "weights": fingerprint(model), "data": data}
        compared = ("weights" if made_from["weights"] else "model", "data")  # the model's folder may have moved
        if not path.exists():
            encoder, masked_lm = load_for_scoring(model)
            tokenizer = load_tokenizer(model)
            result = evaluate_zero_shot(TASKS[task], encoder, tokenizer, self.args.data, masked_lm)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps({**made_from, **result, **left_out(TASKS[task])}, indent=1) + "\n")
        result = read_json(path, dict, REMEDY)
        held, asked = ({key: made[key] for key in compared} for made in (result, made_from))
        if held != asked:
            raise ValueError(f"{path} was made from {held}, not {asked}: remove it, or give another --output_dir")
        return result

    def write_card(self, model: str, task: str, result: Any) -> None:
        """Writes a result into the model's card, if it is a folder."""
        if not Path(model).is_dir() or self.args.no_card:
            return
        if task in self.zero_shot:
            entries = zero_shot_results(TASKS[task], task, result)
        elif self.as_is(task):
            entries = scored_results(TASKS[task], task, result[0])
        else:
            entries = finetuning_results(TASKS[task], task, best_recipe(result))
        update_card(model, entries)


def finetuning_options(text: str | None) -> dict[str, Any]:
    """Reads `--finetune_options`.

    Raises:
        ValueError: It is not a JSON object.
    """
    try:
        options = json.loads(text or "{}")
        if isinstance(options, dict):
            return options
        problem = "it is not an object"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise ValueError(
        f"--finetune_options {public_word(text or '')[:60]} is not JSON of options ({problem}): write "
        "'{\"warmup_ratio\": 0.1}', or give the options directly: --warmup_ratio 0.1"
    )


def options_in(words: Sequence[str]) -> dict[str, list[str]]:
    """Reads options that the command's own parser does not know.

    Returns:
        Name -> words.

    Raises:
        ValueError: A word belongs to no option.
    """
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = name.replace("-", "_")
            options[name] = [value] if value else []
        elif not options:
            raise ValueError(f"{word!r} belongs to no option: write options as --name value")
        else:
            options[name].append(word)
    return options
