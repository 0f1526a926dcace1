"""Fine-tunes one model on one task, scores it, and stores what a report needs."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from transformers import set_seed

from ..data.vocabulary import load_tokenizer
from ..hub.model_cards import write_finetuned_card
from ..models.attention import longest_sequence
from ..models.loading import only_errors
from ..reliability.ranks import wait_for_all
from ..reliability.run_dir import changes, is_finished, log_on_main, mark_finished, open_run_dir, read_settings
from ..utils.io import atomic_write
from ..utils.json_files import read_json
from ..utils.messages import nearest, number_of
from . import TASKS
from .arguments import FinetuningArguments
from .card import finetuning_results
from .checkpoints import check_encoder, fingerprint
from .heads import Options
from .reading import read_rows
from .spans import Span
from .task import Task
from .trainer import FinetuningTrainer

RESULT_FILE = "result.json"
# A run has collapsed if its predictions are constant, or if its score exceeds that of the best constant prediction by
# less than this share of the distance to a perfect score.
COLLAPSE_MARGIN = 0.05
OPTIONS = {field.name for field in fields(Options)}


def finetune(
    model: str,
    task: str,
    args: FinetuningArguments,
    data: str | None = None,
    options: Options | None = None,
    train_rows: int | None = None,
    eval_rows: int | None = None,
    submission: bool = False,
    keep_model: bool = False,
) -> dict:
    """Fine-tunes a model on a task, or returns the result of a finished run in `args.output_dir`.

    Args:
        model: Folder or Hub id of an encoder with its tokenizer.
        task: Key of `TASKS`.
        args: Training arguments. `seed` determines the head's initial weights, the order of the samples and dropout.
        data: Folder in the official layout. Default: the Hub.
        options: How texts are truncated and answers are chosen. Default: the task's recipe.
        train_rows: Maximum number of training rows, the same for every seed.
        eval_rows: Maximum number of rows of each scored split.
        submission: Whether to write the official submission files of unlabeled splits.
        keep_model: Whether to save the fine-tuned model, with tokenizer and card, in `args.output_dir`.

    Returns:
        The content of `result.json`: `scores` {split: metric values}, `score` (main metric on the first split; 0 if
        undefined), `collapsed` (`"constant"`, `"chance"` or `None`), `constant_score` (score of the best constant
        prediction), seconds, samples per second, and the settings.

    Raises:
        ImportError: The extra `downstream` is not installed.
        ValueError: The task is scored without fine-tuning, the data have no labels, the folder holds a run with other
            settings, or a finished run did not keep the model.
    """
    chosen = find_task(task)
    if "train" not in chosen.files:
        raise ValueError(
            f"{chosen.title} has no train split, so no model can be fine-tuned on it: add train to the `files` of "
            f"{chosen.own.path}, or score a fine-tuned model with --eval_only true"
        )
    if submission and chosen.own is not None:
        raise ValueError(f"{chosen.title} has no official submission file: leave out --submission")
    options = options or recipe_options(chosen)
    settings = {"model": str(model), "task": task, "data": data, "train_rows": train_rows, "eval_rows": eval_rows}
    settings |= {**vars(options), "submission": submission, "weights": fingerprint(model), **own_settings(chosen)}
    folder = Path(args.output_dir)
    if is_finished(folder):
        return finished_result(folder, args, settings, keep_model)
    chosen.metric()  # a missing package is an error now, not after training
    train = read_rows(chosen, data, "train", train_rows, labelled=True)
    held_out = {split: read_rows(chosen, data, split, eval_rows, labelled=True) for split in chosen.evaluate_on}
    extra = list(_extra_rows(chosen, data, submission))
    checkpoint = open_run_dir(args, settings)

    set_seed(args.seed)
    tokenizer = load_tokenizer(model)
    network = _load(model, chosen)
    limit = longest_sequence(network)
    if limit is not None and options.max_length > limit:
        log_on_main(args, f"Texts are truncated to {limit} tokens, the model's maximum.")
        options = replace(options, max_length=limit)
    features = chosen.head.encode(train, tokenizer, options)
    trainer = FinetuningTrainer(network, args, chosen.head, tokenizer, features)
    log_on_main(args, f"{chosen.title}, seed {args.seed}: {number_of(len(train), 'training row')}.")
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    steps = trainer.state.global_step - (int(checkpoint.rpartition("-")[2]) if checkpoint else 0)

    def predict(rows: list[dict]) -> list:
        features = chosen.head.encode(rows, tokenizer, options)
        return chosen.head.decode(trainer.predict_features(features), features, rows, options)

    predictions = {split: predict(rows) for split, rows in held_out.items()}
    scores = {split: chosen.score(rows, predictions[split]) for split, rows in held_out.items()}
    for other, split, rows in extra:
        predicted = predict(rows)
        if other is not chosen and split in other.evaluate_on:
            scores[other.title] = other.score(rows, predicted)
        elif args.should_save:
            other.write_submission(folder / other.test[split], other, rows, predicted)
            log_on_main(args, f"Submission file: {folder / other.test[split]}.")
    first = chosen.evaluate_on[0]
    result = {
        **settings,
        "learning_rate": args.learning_rate,
        "epochs": args.num_train_epochs,
        "seed": args.seed,
        "steps": trainer.state.global_step,
        "train_size": len(train),
        "eval_size": len(held_out[first]),
        "metric": chosen.main,
        "scores": {split: {k: finite(v) for k, v in values.items()} for split, values in scores.items()},
        "score": finite(scores[first][chosen.main]) or 0.0,
        **collapse(chosen, held_out[first], predictions[first], scores[first][chosen.main]),
        "seconds": seconds,
        "samples_per_second": steps * trainer.samples_per_step / seconds,
        "examples": chosen.examples(held_out[first], predictions[first]),
        **left_out(chosen),
    }
    if args.should_save:
        atomic_write(folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    if keep_model:
        trainer.save_model()
        if args.process_index == 0:
            entries, texts = finetuning_results(chosen, task, [result]), len(train[0].get("texts", ()))
            write_finetuned_card(folder, trainer, chosen, str(model), texts, entries)
    mark_finished(args)
    wait_for_all("writes its results")
    return result


def folder_of(root: str | Path, learning_rate: float, seed: int) -> Path:
    """Folder of one run of a model on a task, below the folder of all its runs."""
    return Path(root) / f"lr-{learning_rate:g}" / f"seed-{seed}"


def finished_result(folder: Path, args: FinetuningArguments, settings: dict, keep_model: bool) -> dict:
    """Returns the result of a finished run.

    Raises:
        ValueError: The run has other settings, or did not keep the model that is now requested.
    """
    changed = changes(read_settings(folder), args, settings)
    if changed:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changed.values())}): choose another --output_dir"
        )
    if keep_model and not list(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} holds a finished run that did not keep its model: remove it to train again")
    return read_json(folder / RESULT_FILE, dict, "remove its folder to train again")


def find_task(name: str) -> Task:
    """Returns a task of `TASKS` that is fine-tuned.

    Raises:
        ValueError: There is no such task, or it is scored without fine-tuning.
    """
    tuned = [key for key, task in TASKS.items() if isinstance(task, Task)]
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}{nearest(name, TASKS)}: choose one of {', '.join(TASKS)}")
    if name not in tuned:
        raise ValueError(
            f"{name} is scored without fine-tuning: use `vidlankd evaluate`, or choose one of {', '.join(tuned)}"
        )
    return TASKS[name]


def own_settings(task: Task) -> dict[str, str]:
    """Returns the fingerprint of a task file's data, as settings; empty for the tasks of this package."""
    return {} if task.own is None else {"task_data": task.own.fingerprint}


def left_out(task: Task) -> dict[str, list[str]]:
    """Returns the rows of a task file that are not used, for a result."""
    return {} if task.own is None or not task.own.left_out else {"left_out": task.own.left_out}


def recipe_options(task: Task) -> Options:
    """Returns the [`Options`] of a task's recipe."""
    return Options(**{name: value for name, value in task.recipe.items() if name in OPTIONS})


def recipe_arguments(task: Task) -> dict[str, float]:
    """Returns the training arguments of a task's recipe."""
    return {name: value for name, value in task.recipe.items() if name not in OPTIONS}


def _extra_rows(task: Task, data: str | None, submission: bool) -> Iterator[tuple[Task, str, list[dict]]]:
    """Yields unlabeled splits for a submission, and the splits of the tasks in `also`."""
    if submission:
        for split in task.test:
            yield task, split, read_rows(task, data, split)
    for other in task.also:
        labelled = () if data is None else other.evaluate_on  # the Hub's copy has no labels
        for split in (*labelled, *(other.test if submission else ())):
            try:
                rows = read_rows(other, data, split, labelled=split in labelled)
            except FileNotFoundError:
                continue  # optional data, which few users have
            yield other, split, rows


def _load(model: str, task: Task) -> torch.nn.Module:
    """Loads the encoder with a new head, even if the checkpoint has the head of another task."""
    with only_errors():  # unused language-model heads and new task heads are expected
        network, info = task.head.auto.from_pretrained(
            model, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
            output_hidden_states=False, output_attentions=False, trust_remote_code=False,
            **task.head.model_options(task.labels),
        )  # fmt: skip
    check_encoder(model, network, info)
    prefix = f"{network.base_model_prefix}."
    kept = {k for k in network.state_dict() if not k.startswith(prefix)} - set(info["missing_keys"])
    if kept:
        new = type(network)(network.config).state_dict()
        network.load_state_dict({name: new[name] for name in kept}, strict=False)
    return network


def collapse(task: Task, rows: list[dict], predictions: Sequence, score: float) -> dict:
    """Compares a run with constant predictions.

    Args:
        task: The task.
        rows: Rows of its first scored split.
        predictions: The predictions for these rows.
        score: Main metric of the predictions; may be NaN.

    Returns:
        `collapsed` (`"constant"`, `"chance"` or `None`) and `constant_score` (score of the best constant prediction).
    """
    same = len({p.text if isinstance(p, Span) else p for p in predictions}) == 1
    scored = [task.score(rows, values)[task.main] for values in task.constants(rows)]
    best = max((value for value in scored if math.isfinite(value)), default=0.0)
    top = 100.0 if task.percent else 1.0
    constant, low = same or not math.isfinite(score), score < best + COLLAPSE_MARGIN * (top - best)
    return {"collapsed": "constant" if constant else "chance" if low else None, "constant_score": best}


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
