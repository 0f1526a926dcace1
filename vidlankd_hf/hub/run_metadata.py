"""Describes a run for publication, without local paths or tokens."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import Trainer, TrainingArguments

from ..reliability.launch import describe_launch
from ..reliability.run_dir import command, read_run, versions
from ..utils.messages import number_of

SAMPLES = 64
_PART = r"[^\s/\"'=,:;]+"
_OUTSIDE = re.compile(rf"(?<![\w./-])(?:~\w*|\.\.)?/(?:{_PART}/)*({_PART})/?")


def is_hub_id(name: str | Path) -> bool:
    """Whether `name` (or `name:configuration`) has the form of a Hub id and is not a local path."""
    name = str(name).partition(":")[0]
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def public_name(name: str | Path) -> str:
    """Returns a Hub id unchanged, and the last part of a local path."""
    return str(name) if is_hub_id(name) else Path(name).resolve().name


def public_command(line: str) -> str:
    """Shortens paths outside the working directory in a command line to their last part."""
    return shlex.join(_public_word(word) for word in shlex.split(line))


def _public_word(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_public_word(value)}"
    if word.startswith("file://"):
        return Path(word).name
    if "://" in word:
        return re.sub(r"://[^/@]*@", "://", word)
    if word.startswith(("/", "~")) or ".." in word.split("/"):
        return Path(word).name
    return _OUTSIDE.sub(r"\1", word)


def settings_of(args: TrainingArguments) -> dict[str, Any]:
    """Settings in the run's `run.json`; empty if there is none, or it is damaged."""
    run = read_run(args.output_dir)
    return {} if run is None else run["settings"]


def training_rows(trainer: Trainer) -> dict[str, str | None]:
    """Rows of the card's training table: steps, batch, tokens, seed, data, hardware, time, versions, command.

    A row is `None` if the run did not record it.
    """
    args, state = trainer.args, trainer.state
    sequences = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    record = getattr(trainer, "_record", {})
    fingerprint = record.get("data", {}).get("train")
    return {
        "Steps": f"{state.global_step:,}",
        "Sequences per step": f"{sequences:,}",
        "Tokens": _tokens(trainer, sequences * state.global_step),
        "Peak learning rate": f"{args.learning_rate:g}, {_text(args.lr_scheduler_type)} schedule",
        "Optimizer": f"{_text(args.optim)}, weight decay {args.weight_decay:g}",
        "Seed": str(args.seed),
        "Fingerprint of the training data": fingerprint and f"`{fingerprint}`",
        "Hardware": f"{describe_launch(args)}; {_device(args)}",
        "Time": _time(trainer),
        "Versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", versions()).items()),
        "Command": f"`{public_command(record.get('command', command()))}`",
    }


def held_out_metrics(log_history: list[dict]) -> dict[str, float]:
    """Metrics of the last evaluation, without the prefix `eval_` and without timings."""
    last: dict[str, Any] = next(
        (entry for entry in reversed(log_history) if any(name.startswith("eval_") for name in entry)), {}
    )
    timing = ("runtime", "samples_per_second", "steps_per_second")
    metrics = {name[5:]: value for name, value in last.items() if name.startswith("eval_")}
    return {name: value for name, value in metrics.items() if name not in timing}


def _tokens(trainer: Trainer, sequences: int) -> str | None:
    """Estimates the number of tokens read from the mean length of at most 64 samples."""
    dataset: Any = trainer.train_dataset
    if dataset is None or not len(dataset) or not sequences:
        return None
    chosen = sorted({round(i * (len(dataset) - 1) / (SAMPLES - 1)) for i in range(SAMPLES)})
    batch = trainer.data_collator([dataset[i] for i in chosen])
    mask = batch.get("attention_mask")
    length = (batch["input_ids"].numel() if mask is None else int(mask.sum())) / len(chosen)
    return f"about {sequences * length:,.0f} ({length:.1f} per sequence, with special tokens)"


def _device(args: TrainingArguments) -> str:
    if args.device.type == "cuda":
        return f"{args.world_size} x {torch.cuda.get_device_name(args.device)}"
    return number_of(os.cpu_count(), "CPU core")


def _time(trainer: Trainer) -> str | None:
    seconds = [entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry]
    if not seconds:
        return None
    resumed = getattr(trainer, "_resumed_from", None)
    since = f", since resuming from {Path(resumed).name}" if resumed else ""
    return (f"{seconds[-1] / 60:,.1f} min" if seconds[-1] < 7200 else f"{seconds[-1] / 3600:,.1f} h") + since


def _text(value: Any) -> str:
    return getattr(value, "value", str(value))
