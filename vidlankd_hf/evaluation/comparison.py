"""Compares models on tasks: checks the arguments, then computes each result or reads it if it exists."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.vocabulary import load_tokenizer
from ..models.teacher import check_path
from ..reliability.run_dir import run_script
from ..utils.examples import EXAMPLES, flags
from ..utils.io import atomic_write
from . import TASKS
from .card import update_card, zero_shot_results
from .checkpoints import fingerprint, load_for_scoring
from .finetune import RESULT_FILE, folder_of
from .reading import find_file
from .script_arguments import ComparisonArguments
from .task import Task
from .zero_shot import evaluate_zero_shot


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
        self.zero_shot = [task for task in args.tasks if task in TASKS and not isinstance(TASKS[task], Task)]
        self._check()
        self.rows = dict(entry.split("=") for entry in args.train_rows or [])

    def _check(self) -> None:
        args, rows = self.args, self.args.train_rows or []
        for model in args.models:
            check_path(model, "a checkpoint")
        unknown = [task for task in args.tasks if task not in TASKS]
        if unknown:
            raise ValueError(f"--tasks: invalid choice: {unknown[0]!r} (choose from {', '.join(TASKS)})")
        if any(name == "push_to_hub" or name.startswith("hub_") for name in self.passed_on):
            raise ValueError(
                "this command does not push: push a model with `vidlankd finetune`, after `hf auth login`"
            )
        if len(self.names) != len(args.models) or len(set(self.names)) != len(self.names):
            raise ValueError(f"{len(args.models)} models need as many different names, not {self.names}: give --names")
        if self.zero_shot and args.data is None:
            raise ValueError(f"{', '.join(self.zero_shot)} need --data, the folder that holds visual_commonsense")
        if not all(re.fullmatch(r"\w+=[1-9]\d*", entry) for entry in rows):
            raise ValueError(f"--train_rows {' '.join(rows)}: write TASK=ROWS, such as sst2=10000")
        if "learning_rate" in self.passed_on or {entry.split("=")[0] for entry in rows} - set(args.tasks):
            raise ValueError(
                "give --learning_rates instead of --learning_rate, and --train_rows only for tasks in --tasks"
            )
        for task in args.tasks if args.data else ():  # a missing file should not be noticed after hours
            needed = TASKS[task].files if task in self.zero_shot else ("train", *TASKS[task].evaluate_on)
            for split in needed:
                find_file(TASKS[task], args.data, split)

    def finetuned(self, name: str, model: str, task: str, launcher: list[str] | None) -> list[dict]:
        """Returns the results of a fine-tuned task, one per learning rate and seed; runs what is missing.

        Args:
            name: Name of the model in the report.
            model: Hub id or folder.
            task: Name of the task.
            launcher: Command that starts the fine-tuning; `None` means the Python interpreter.
        """
        args, folder = self.args, Path(self.args.output_dir) / name / task
        options = {"model": model, "task": task, "output_dir": folder, "seeds": args.seeds, "data": args.data}
        options |= {"learning_rates": args.learning_rates, "train_rows": self.rows.get(task)}
        options["no_card"] = None if self._cards(model) else "true"
        options, more = {name: value for name, value in options.items() if value}, flags(self.passed_on)
        made, arguments = folder / "arguments.json", json.dumps([*flags(options), *more, fingerprint(model)])
        if not made.exists() or made.read_text() != arguments:
            words = [*flags({**options, "report_to": "none"}), *more]
            run_script(EXAMPLES / "finetune.py", *words, launcher=launcher)
            atomic_write(made, arguments)
        rates = args.learning_rates or [TASKS[task].recipe["learning_rate"]]
        runs = [folder_of(folder, rate, seed) for rate in rates for seed in range(1, args.seeds + 1)]
        return [json.loads((run / RESULT_FILE).read_text()) for run in runs]

    def scored(self, name: str, model: str, task: str) -> dict:
        """Returns the result of a task without fine-tuning; computes it if it is missing.

        Args:
            name, model, task: As in [`finetuned`].

        Raises:
            ValueError: The stored result was made from another model or other data.
        """
        path = Path(self.args.output_dir) / name / task / RESULT_FILE
        made_from = {"model": model, "weights": fingerprint(model), "data": self.args.data}
        compared = ("weights" if made_from["weights"] else "model", "data")  # the model's folder may have moved
        if not path.exists():
            encoder, masked_lm = load_for_scoring(model)
            tokenizer = load_tokenizer(model)
            result = evaluate_zero_shot(TASKS[task], encoder, tokenizer, self.args.data, masked_lm)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps({**made_from, **result}, indent=1) + "\n")
        result = json.loads(path.read_text())
        held, asked = ({key: made[key] for key in compared} for made in (result, made_from))
        if held != asked:
            raise ValueError(f"{path} was made from {held}, not {asked}: remove it, or give another --output_dir")
        if self._cards(model):
            update_card(model, zero_shot_results(TASKS[task], task, result))
        return result

    def _cards(self, model: str) -> bool:
        return Path(model).is_dir() and not self.args.no_card


def options_in(words: Sequence[str]) -> dict[str, list[str]]:
    """Reads options that the command's own parser does not know: name -> words.

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
