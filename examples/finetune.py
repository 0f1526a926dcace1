"""Fine-tunes any BERT-like checkpoint on a downstream task, over seeds, and puts the result into its card.

    accelerate launch examples/finetune.py --model outputs/student \\
        --task sst2 --seeds 5

The task's recipe (the paper's, where it has one) is the default of every training argument. --data is a folder in the
official layout; without it the Hub's data set is read. Every seed is a cell: finished ones are not run again. With
--push_to_hub the model of the best learning rate's median seed is pushed, never the best seed's.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import PartialState

import vidlankd_hf.experiments.world  # noqa: F401  (adds its task to TASKS)
from vidlankd_hf.cli import OUTPUT, TRAINING, CommandLine
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.arguments import FinetuningArguments
from vidlankd_hf.evaluation.card import finetuning_results, update_card
from vidlankd_hf.evaluation.finetune import find_task, finetune, recipe_arguments, recipe_options
from vidlankd_hf.evaluation.report import best_recipe
from vidlankd_hf.evaluation.task import Task
from vidlankd_hf.hub.push import PushError, make_repository, push
from vidlankd_hf.reliability.run_dir import log_on_main

GROUPS = {
    "task": ("model", "task", "data", "max_length", "train_rows", "eval_rows"),
    "training": ("seeds", "learning_rates", *(name for name in TRAINING if name != "seed")),
    "output": ("output_dir", *OUTPUT, "submission", "no_card", "preempt_exit_code", "hang_timeout"),
}
RECIPES = {name for task in TASKS.values() if isinstance(task, Task) for name in task.recipe}


@dataclass
class TaskArguments:
    model: str = field(metadata={"help": "Folder or Hub id of a checkpoint with its tokenizer."})
    task: str = field(metadata={"help": "Such as sst2, squad, tracie; docs/downstream.md lists them."})
    data: str | None = field(default=None, metadata={"help": "Folder in the official layout; default: the Hub."})
    seeds: int = field(default=1, metadata={"help": "How many: 1, 2, ..."})
    learning_rates: list[float] | None = field(
        default=None, metadata={"help": "Learning rates to try, each with all seeds; default: the recipe's."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Tokens of a text; default: the recipe's."})
    train_rows: int | None = field(default=None, metadata={"help": "Train on so many rows only."})
    eval_rows: int | None = field(default=None, metadata={"help": "Score so many rows only."})
    submission: bool = field(default=False, metadata={"help": "Write the official files for the unlabelled splits."})
    keep_model: bool = field(default=False, metadata={"help": "Save every seed's model; --push_to_hub does too."})
    no_card: bool = field(default=False, metadata={"help": "Leave the model's README.md as it is."})


def folder_of(root: Path, learning_rate: float, seed: int) -> Path:
    return root / f"lr-{learning_rate:g}" / f"seed-{seed}"


def main() -> None:
    types = (FinetuningArguments, TaskArguments)
    parser = CommandLine(__doc__, types, GROUPS, defaults=dict.fromkeys(RECIPES, "the task's"))
    args, own = parser.parse(recipe=lambda given: recipe_arguments(find_task(given.task)))
    task = find_task(own.task)
    options = recipe_options(task)
    if own.max_length is not None:
        options = replace(options, max_length=own.max_length)
    root, runs = Path(args.output_dir), []
    if args.push_to_hub:
        args.hub_model_id = make_repository(
            args, args.hub_model_id or root.resolve().name, args.hub_token, args.hub_private_repo
        )
    for rate in own.learning_rates or [args.learning_rate]:
        for seed in range(1, own.seeds + 1):
            folder = folder_of(root, rate, seed)
            cell = replace(args, learning_rate=rate, seed=seed, output_dir=str(folder), push_to_hub=False)
            keep = own.keep_model or args.push_to_hub
            data = own.data, options, own.train_rows, own.eval_rows
            runs.append(finetune(own.model, own.task, cell, *data, own.submission, keep))
            if len(runs) == 1 and args.process_index == 0:  # a folder of other settings has been refused
                parser.save_settings(args.output_dir)
            collapsed = f"; collapsed: {runs[-1]['collapsed']}" if runs[-1]["collapsed"] else ""
            log_on_main(
                args, f"{task.title}, lr {rate:g}, seed {seed}: {task.main} {runs[-1]['score']:.4f}{collapsed}"
            )
    if Path(own.model).is_dir() and not own.no_card and args.process_index == 0:
        print(f"Card: {update_card(own.model, finetuning_results(task, own.task, best_recipe(runs)))}")
    if args.push_to_hub and args.process_index == 0:
        median = sorted(best_recipe(runs), key=lambda run: run["score"])[(own.seeds - 1) // 2]
        folder = folder_of(root, median["learning_rate"], median["seed"])
        message = f"{task.title}, seed {median['seed']}, the median of {own.seeds}"
        try:
            push(folder, args.hub_model_id, message, args.hub_token, args.hub_private_repo, args.hub_revision)
        except PushError as error:
            raise SystemExit(str(error)) from None
        print(f"Pushed {folder} to {args.hub_model_id}.")
    data = f" --data {own.data}" if own.data else ""
    log_on_main(args, f"Next: python examples/evaluate_all.py --models TEXT_ONLY {own.model} --tasks {own.task}{data}")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
