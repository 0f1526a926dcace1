"""Scores a fine-tuned model on a task without training. Its labels must be those of the task."""

import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoConfig

from ..data.vocabulary import load_tokenizer
from ..models.attention import longest_sequence
from ..reliability.ranks import wait_for_all
from ..reliability.run_dir import is_finished, log_on_main, mark_finished, open_run_dir
from ..utils.io import atomic_write
from ..utils.loading import loading
from .arguments import FinetuningArguments
from .card import scored_results, update_card
from .checkpoints import check_encoder, fingerprint
from .finetune import (
    RESULT_FILE,
    collapse,
    find_task,
    finished_result,
    finite,
    left_out,
    own_settings,
    recipe_options,
)
from .heads import Classification, Options, Regression
from .reading import read_rows
from .script_arguments import TaskArguments
from .task import Task
from .trainer import FinetuningTrainer

# Options of fine-tuning that have no effect if nothing is trained.
OF_TRAINING = frozenset(
    """
    seeds learning_rates learning_rate num_train_epochs max_steps per_device_train_batch_size
    gradient_accumulation_steps warmup_steps weight_decay gradient_checkpointing train_rows submission keep_model
    push_to_hub save_strategy save_steps save_total_limit
    """.split()
)


def score_and_report(named: set[str], args: FinetuningArguments, own: TaskArguments, options: Options) -> None:
    """Scores a fine-tuned model without training, prints its scores and adds them to its card.

    Without `--output_dir`, the result is written to a folder in `outputs/scored` that is named after task and model.

    Args:
        named: Names of the options that the user gave.
        args, own: The options.
        options: Options of the task's head.

    Raises:
        ValueError: One of the given options has no effect; see also [`score_finetuned`].
    """
    given = sorted(named & OF_TRAINING)
    if given:
        raise ValueError(f"--{given[0]} has no effect with --eval_only, which trains nothing: leave it out")
    if "output_dir" not in named:
        args.output_dir = "-".join([f"outputs/scored/{own.task}", *own.model.strip("/").split("/")[-2:]])
    task = find_task(own.task)
    result = score_finetuned(own.model, own.task, args, own.data, options, own.eval_rows)
    if args.process_index == 0:
        for split, values in result["scores"].items():
            shown = [f"{name} {'undefined' if value is None else f'{value:.4f}'}" for name, value in values.items()]
            print(f"{task.title}, {split}: {', '.join(shown)}")
        print(f"The result is in {args.output_dir}/{RESULT_FILE}.")
        if Path(own.model).is_dir() and not own.no_card:
            print(f"Card: {update_card(own.model, scored_results(task, own.task, result))}")
    PartialState().destroy_process_group()


def score_finetuned(
    model: str,
    task: str,
    args: FinetuningArguments,
    data: str | None = None,
    options: Options | None = None,
    eval_rows: int | None = None,
) -> dict:
    """Scores a fine-tuned model on the splits of a task, or returns the finished result in `args.output_dir`.

    Args:
        model: Folder or Hub id of a fine-tuned model with its tokenizer.
        task: Key of `TASKS`.
        args: Training arguments; only those of evaluation are used: batch size, device, output folder.
        data, options, eval_rows: As in [`finetune`].

    Returns:
        What [`finetune`] returns, without learning rate, epochs and seed.

    Raises:
        ImportError: The extra `downstream` is not installed.
        ValueError: The model has no head for such a task or has other labels, or the data have no labels.
    """
    chosen = find_task(task)
    options = options or recipe_options(chosen)
    settings = {"model": str(model), "task": task, "data": data, "train_rows": None, "eval_rows": eval_rows}
    settings |= {**vars(options), "eval_only": True, "weights": fingerprint(model), **own_settings(chosen)}
    folder = Path(args.output_dir)
    if is_finished(folder):
        return finished_result(folder, args, settings, keep_model=False)
    chosen.metric()  # a missing package is an error now
    held_out = {split: read_rows(chosen, data, split, eval_rows, labelled=True) for split in chosen.evaluate_on}
    network, classes = load_finetuned(model, chosen)
    tokenizer = load_tokenizer(model)
    limit = longest_sequence(network)
    if limit is not None and options.max_length > limit:
        log_on_main(args, f"Texts are truncated to {limit} tokens, the model's maximum.")
        options = replace(options, max_length=limit)
    open_run_dir(args, settings)

    trainer = FinetuningTrainer(network, args, chosen.head, tokenizer, [])
    started, predictions = time.perf_counter(), {}
    for split, rows in held_out.items():
        features = chosen.head.encode(rows, tokenizer, options)
        predicted = chosen.head.decode(trainer.predict_features(features), features, rows, options)
        predictions[split] = predicted if classes is None else [classes[value] for value in predicted]
    seconds = time.perf_counter() - started
    scores = {split: chosen.score(rows, predictions[split]) for split, rows in held_out.items()}
    first = chosen.evaluate_on[0]
    result = {
        **settings,
        **{"learning_rate": None, "epochs": None, "seed": None, "steps": 0, "train_size": 0},
        "eval_size": len(held_out[first]),
        "metric": chosen.main,
        "scores": {split: {k: finite(v) for k, v in values.items()} for split, values in scores.items()},
        "score": finite(scores[first][chosen.main]) or 0.0,
        **collapse(chosen, held_out[first], predictions[first], scores[first][chosen.main]),
        "seconds": seconds,
        "samples_per_second": sum(map(len, held_out.values())) / seconds,
        "examples": chosen.examples(held_out[first], predictions[first]),
        **left_out(chosen),
    }
    if args.should_save:
        atomic_write(folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    mark_finished(args)
    wait_for_all("writes its results")
    return result


def load_finetuned(model: str, task: Task) -> tuple[torch.nn.Module, list[int] | None]:
    """Loads a model with its trained head.

    Returns:
        The model, and for each of its outputs the class of the task; `None` if the task has no fixed classes.

    Raises:
        ValueError: The model lacks a trained head for such tasks, or has other labels.
    """
    with loading(model):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    suffix, saved_as = task.head.auto.__name__.removeprefix("AutoModel"), config.architectures or []
    advice = (
        "give a model that was fine-tuned for it, such as one of `vidlankd finetune --keep_model true`, or train "
        "without --eval_only"
    )
    if not any(name.endswith(suffix) for name in saved_as):
        raise ValueError(
            f"{model} was saved as {', '.join(saved_as) or 'an unknown class'}, but {task.title} needs a class that "
            f"ends with {suffix}: {advice}"
        )
    classes = classes_of_outputs(model, config, task)
    network, info = task.head.auto.from_pretrained(
        model, dtype=torch.float32, output_loading_info=True, output_hidden_states=False, output_attentions=False,
        trust_remote_code=False,
    )  # fmt: skip
    check_encoder(model, network, info)
    if info["missing_keys"]:
        raise ValueError(f"{model} lacks weights of its head, such as {sorted(info['missing_keys'])[0]}: {advice}")
    return network, classes


def classes_of_outputs(model: str, config, task: Task) -> list[int] | None:
    """Returns the class of the task for each output of a model, by the labels in the model's configuration.

    Raises:
        ValueError: A label of the model is not one of the task, or their numbers differ.
    """
    if isinstance(task.head, Regression) and config.num_labels != 1:
        raise ValueError(
            f"{model} predicts {config.num_labels} classes, but {task.title} needs one number: give a model that was "
            "fine-tuned for regression"
        )
    if not isinstance(task.head, Classification):
        return None
    translated = task.own.model_labels if task.own is not None else {}
    names = [config.id2label[i] for i in range(config.num_labels)]
    unknown = sorted(set(translated) - set(names))
    meant = [translated.get(name, name) for name in names]
    other = [name for name in meant if name not in task.labels]
    never = [label for label in task.labels if label not in meant]
    if unknown or other or never:
        path = "a task file" if task.own is None else task.own.path
        raise ValueError(
            f"{model} predicts {', '.join(names)}, but the labels of {task.title} are {', '.join(task.labels)}: in "
            f"{path}, write `model_labels: {{LABEL OF THE MODEL: LABEL OF THE TASK}}` with each label of the model "
            "that has another name"
        )
    return [task.labels.index(name) for name in meant]
