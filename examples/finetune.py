"""Fine-tunes a BERT-like checkpoint on a downstream task, over several seeds.

    vidlankd finetune --model outputs/student --task sst2 --seeds 5

The task's recipe (the paper's, where it has one) sets the defaults of the
training arguments. --data is a folder in the official layout; without it, the
data come from the Hub. --task_file is a YAML file of your own task
(docs/downstream.md). --eval_only scores a fine-tuned model without training.
The score is written into the model's card. Finished seeds are not run again.
--push_to_hub pushes the model of the median seed at the best learning rate,
never that of the best seed.
"""

from dataclasses import replace
from pathlib import Path

from accelerate import PartialState

import vidlankd_hf.experiments.world  # noqa: F401  (adds its task to TASKS)
from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.arguments import FinetuningArguments
from vidlankd_hf.evaluation.card import finetuning_results, update_card
from vidlankd_hf.evaluation.eval_only import score_and_report
from vidlankd_hf.evaluation.finetune import find_task, finetune, folder_of, recipe_arguments, recipe_options
from vidlankd_hf.evaluation.report import best_recipe
from vidlankd_hf.evaluation.script_arguments import TaskArguments
from vidlankd_hf.evaluation.task import Task
from vidlankd_hf.evaluation.task_files import name_of_task
from vidlankd_hf.hub.push import PushError, make_repository, push
from vidlankd_hf.models.teacher import check_path
from vidlankd_hf.reliability.launch import describe_launch
from vidlankd_hf.reliability.run_dir import log_on_main
from vidlankd_hf.training.script_arguments import OUTPUT, TRAINING

GROUPS = {
    "task": ("model", "task", "task_file", "data", "eval_only", "max_length", "train_rows", "eval_rows"),
    "training": {"seeds": None, "learning_rates": None, **{k: v for k, v in TRAINING.items() if k != "seed"}},
    "output": {**OUTPUT, "save_total_limit": "checkpoints to keep; default: all", "submission": None, "no_card": None},
}
RECIPES = {name for task in TASKS.values() if isinstance(task, Task) for name in task.recipe}


def main() -> None:
    parser = CommandLine(__doc__, (FinetuningArguments, TaskArguments), GROUPS, dict.fromkeys(RECIPES, "the task's"))
    args, own = parser.parse(recipe=lambda given: recipe_arguments(find_task(name_of_task(given))))
    log_on_main(args, f"Fine-tuning: {describe_launch(args)}.")
    check_path(own.model, "a checkpoint")
    own.task = name_of_task(own)
    task = find_task(own.task)
    options = recipe_options(task)
    if own.max_length is not None:
        options = replace(options, max_length=own.max_length)
    if own.eval_only:
        score_and_report(parser.named, args, own, options)
        if args.process_index == 0:
            parser.save_settings(args.output_dir)
        return
    root, runs = Path(args.output_dir), []
    if args.push_to_hub:
        args.hub_model_id = make_repository(
            args, args.hub_model_id or root.resolve().name, args.hub_token, args.hub_private_repo
        )
    for rate in own.learning_rates or [args.learning_rate]:
        for seed in range(1, own.seeds + 1):
            folder = folder_of(root, rate, seed)
            run_args = replace(args, learning_rate=rate, seed=seed, output_dir=str(folder), push_to_hub=False)
            keep = own.keep_model or args.push_to_hub
            data = own.data, options, own.train_rows, own.eval_rows
            runs.append(finetune(own.model, own.task, run_args, *data, own.submission, keep))
            if len(runs) == 1 and args.process_index == 0:  # a folder of other settings has been refused
                parser.save_settings(args.output_dir)
            collapsed = f"; collapsed: {runs[-1]['collapsed']}" if runs[-1]["collapsed"] else ""
            scored = f"{task.title}, lr {rate:g}, seed {seed}: {task.main} {runs[-1]['score']:.4f}{collapsed}"
            log_on_main(args, f"{scored}; in {folder}")
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
    chosen = f"--task_file {own.task_file}" if own.task_file else f"--tasks {own.task}"
    log_on_main(
        args, "Next: compare it with a student of the same text alone, made by vidlankd distill --objectives '{}':"
    )
    log_on_main(args, f"    vidlankd evaluate --models TEXT_ONLY {own.model} {chosen}{data}")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    run_example(main)
