"""Evaluates models on downstream tasks and writes a report that compares them.

    vidlankd evaluate --tasks rte mrpc --seeds 3 \\
        --models outputs/students/text_only outputs/student

Each model is fine-tuned with several seeds, and scored as it is on the tasks
that need no fine-tuning. --task_file names YAML files of your own tasks
(docs/downstream.md). With --eval_only, or if a task file has no train split,
fine-tuned models are scored without training. The first model is the baseline
of the significance tests. Every result is kept in --output_dir: after an
interruption, the same command continues.
"""

import shlex

from transformers.utils import logging

import vidlankd_hf.experiments.world  # noqa: F401  (adds its task to TASKS)
from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.evaluation.comparison import Comparison, finetuning_options, options_in
from vidlankd_hf.evaluation.report import summarize, write_report
from vidlankd_hf.evaluation.script_arguments import ComparisonArguments
from vidlankd_hf.experiments.parallel_evaluation import compute_in_parallel


def main() -> None:
    parser = CommandLine(__doc__, ComparisonArguments)
    (args,) = parser.parse(keep_unknown=True)
    try:
        passed_on = {**finetuning_options(args.finetune_options), **options_in(parser.unknown)}
        comparison = Comparison(args, passed_on)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if passed_on:
        parser.settings["finetune_options"] = passed_on
    parser.save_settings(args.output_dir)

    logging.set_verbosity_error()
    launcher = shlex.split(args.launcher) if args.launcher else None
    if args.jobs > 1:
        compute_in_parallel(comparison)
    tuned: dict[str, dict] = {}
    scored: dict[str, dict] = {}
    for name, model in zip(comparison.names, args.models):
        for task in comparison.tasks:
            result = comparison.result(name, model, task, launcher)
            (scored if task in comparison.zero_shot else tuned).setdefault(task, {})[name] = result
            comparison.write_card(model, task, result)
    print(write_report(summarize(tuned, scored, comparison.names), args.output_dir).read_text())
    print(f"In {args.output_dir}: report.md, report.json, report.png.")


if __name__ == "__main__":
    run_example(main)
