"""One fine-tuning run of one model on one task: train, score, keep what a report needs."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, set_seed
from transformers.utils import logging

from ..hub.model_cards import write_finetuned_card
from ..models.attention import longest_sequence
from ..reliability.run_dir import (
    changed_settings,
    is_finished,
    log_on_main,
    mark_finished,
    open_run_dir,
    read_settings,
)
from ..utils.io import atomic_write
from . import TASKS
from .arguments import FinetuningArguments
from .card import finetuning_results
from .checkpoints import check_encoder, fingerprint
from .heads import Options
from .reading import read_rows, require_labels
from .spans import Span
from .task import Task
from .trainer import FinetuningTrainer

RESULT_FILE = "result.json"
# A run has collapsed if its predictions are constant, or if it is closer than this to the best constant prediction,
# as a share of the way from there to a perfect score.
COLLAPSE_MARGIN = 0.05


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
    """Fine-tunes a model on a task, or returns the result that `args.output_dir` holds already.

    Args:
        model: Folder or Hub id of an encoder with tokenizer.
        task: Of `TASKS`.
        args: The recipe; `seed` sets the head's first weights, the order of the samples and dropout.
        data: Folder in the official layout; default: the Hub.
        options: Lengths; by default those of the task's recipe.
        train_rows: At most so many, the same for every seed.
        eval_rows: At most so many of each split.
        submission: Whether to write the official submission files of unlabelled splits.
        keep_model: Whether to save the fine-tuned model, with tokenizer and card, in `args.output_dir`.

    Returns:
        What `result.json` holds: `scores` {split: metric values}, `score` (the main one, of the first split; 0 where
        it is undefined), `collapsed` (`"constant"`, `"chance"` or `None`), `constant_score` (that of the best constant
        prediction), seconds, samples a second, settings.

    Raises:
        ValueError: A task that needs no fine-tuning, data without labels, a folder that holds another run, or a
            finished one without the model that is to be kept.
    """
    chosen = find_task(task)
    options = options or recipe_options(chosen)
    settings = {"model": str(model), "task": task, "data": data, "train_rows": train_rows, "eval_rows": eval_rows}
    settings |= {**vars(options), "submission": submission, "weights": fingerprint(model)}
    folder = Path(args.output_dir)
    if is_finished(folder):
        changed = changed_settings(read_settings(folder), args, settings)
        if changed:
            raise ValueError(
                f"{folder} holds a run of other settings ({'; '.join(changed[:3])}): choose another folder"
            )
        if keep_model and not list(folder.glob("*.safetensors")):
            raise ValueError(f"{folder} holds a finished run that did not keep its model: remove it to train again")
        return json.loads((folder / RESULT_FILE).read_text())
    train = read_rows(chosen, data, "train", train_rows)
    require_labels(chosen, train, "train", data)
    held_out = {split: read_rows(chosen, data, split, eval_rows) for split in chosen.evaluate_on}
    for split, rows in held_out.items():
        require_labels(chosen, rows, split, data)
    others = list(_rows_of_others(chosen, data, submission))
    checkpoint = open_run_dir(args, settings)

    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = _load(model, chosen)
    options = _shortened(options, network, args)
    features = chosen.head.encode(train, tokenizer, options)
    trainer = FinetuningTrainer(network, args, chosen.head, tokenizer, features)
    log_on_main(args, f"{chosen.title}, seed {args.seed}: {len(train)} rows to train on.")
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    steps = trainer.state.global_step - (int(checkpoint.rpartition("-")[2]) if checkpoint else 0)
    samples = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size

    def predict(rows: list[dict]) -> list:
        features = chosen.head.encode(
            [{**row, "answers": row.get("answers", _NONE)} for row in rows], tokenizer, options
        )
        return chosen.head.decode(trainer.predict_features(features), features, rows, options)

    predictions = {split: predict(rows) for split, rows in held_out.items()}
    scores = {split: chosen.score(rows, predictions[split]) for split, rows in held_out.items()}
    for other, split, rows in others:
        if split in other.evaluate_on and other is not chosen:
            scores[other.title] = other.score(rows, predict(rows))
            continue
        predicted = predict(rows)
        if args.process_index == 0:
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
        "scores": {split: {k: _finite(v) for k, v in values.items()} for split, values in scores.items()},
        "score": _finite(scores[first][chosen.main]) or 0.0,
        **collapse(chosen, held_out[first], predictions[first], scores[first][chosen.main]),
        "seconds": seconds,
        "samples_per_second": samples / seconds,
        "examples": chosen.examples(held_out[first], predictions[first]),
    }
    if args.process_index == 0:
        atomic_write(folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    if keep_model:
        trainer.save_model()
        if args.process_index == 0:
            entries, texts = finetuning_results(chosen, task, [result]), len(train[0].get("texts", ()))
            write_finetuned_card(folder, trainer, chosen, str(model), texts, entries)
    mark_finished(args)
    trainer.accelerator.wait_for_everyone()
    return result


_NONE = {"text": [], "answer_start": []}


def find_task(name: str) -> Task:
    """A task of `TASKS` that is fine-tuned."""
    tuned = [key for key, task in TASKS.items() if isinstance(task, Task)]
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}: choose one of {', '.join(TASKS)}")
    if name not in tuned:
        raise ValueError(
            f"{name} is scored without fine-tuning: use examples/evaluate_all.py, or choose one of {', '.join(tuned)}"
        )
    return TASKS[name]


def recipe_options(task: Task) -> Options:
    """The lengths of a task's recipe."""
    names = {field.name for field in fields(Options)}
    return Options(**{name: value for name, value in task.recipe.items() if name in names})


def recipe_arguments(task: Task) -> dict[str, float]:
    """The training arguments of a task's recipe."""
    lengths = {field.name for field in fields(Options)}
    return {name: value for name, value in task.recipe.items() if name not in lengths}


def _rows_of_others(task: Task, data: str | None, submission: bool):
    """What is scored or written beside the task's own splits: unlabelled splits, and tasks named by `also`."""
    if submission:
        for split in task.test:
            yield task, split, read_rows(task, data, split)
    for other in task.also:
        labelled = () if data is None else other.evaluate_on  # the Hub does not have its labels
        wanted = [*labelled, *(other.test if submission else ())]
        for split in wanted:
            try:
                rows = read_rows(other, data, split)
            except FileNotFoundError:
                continue  # few have its folder
            if split in labelled:
                require_labels(other, rows, split, data)
            yield other, split, rows


def _load(model: str, task: Task) -> torch.nn.Module:
    """The checkpoint's encoder with a new head, also where the checkpoint has one of another task."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # that a language-model head is left aside and a new head made is meant so
    try:
        network, info = task.head.auto.from_pretrained(
            model, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
            output_hidden_states=False, output_attentions=False, **task.head.model_options(task.labels),
        )  # fmt: skip
    finally:
        logging.set_verbosity(verbosity)
    check_encoder(model, network, info)
    prefix = f"{network.base_model_prefix}."
    kept = {k for k in network.state_dict() if not k.startswith(prefix)} - set(info["missing_keys"])
    if kept:
        new = type(network)(network.config).state_dict()
        network.load_state_dict({name: new[name] for name in kept}, strict=False)
    return network


def _shortened(options: Options, network, args) -> Options:
    limit = longest_sequence(network)
    if limit is None or options.max_length <= limit:
        return options
    log_on_main(args, f"Texts are cut at {limit} tokens: the model has no more positions.")
    return Options(**{**vars(options), "max_length": limit})


def collapse(task: Task, rows: list[dict], predictions: Sequence, score: float) -> dict:
    """`collapsed`: `"constant"`, `"chance"` or `None`; `constant_score`: that of the best constant prediction."""
    same = len({p.text if isinstance(p, Span) else p for p in predictions}) == 1
    scored = [task.score(rows, values)[task.main] for values in task.constants(rows)]
    best = max((value for value in scored if math.isfinite(value)), default=0.0)
    top = 100.0 if task.percent else 1.0
    if same or not math.isfinite(score):
        collapsed = "constant"
    else:
        collapsed = "chance" if score < best + COLLAPSE_MARGIN * (top - best) else None
    return {"collapsed": collapsed, "constant_score": best}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
