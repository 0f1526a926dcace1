"""The output folder of a run: begun, resumed or refused, never overwritten."""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainingArguments

from ..utils.io import atomic_write, move, sha256_of
from .checkpointing import agree_on_checkpoint, checkpoints_of
from .folder_lock import lock_folder
from .launch import launcher_words
from .ranks import refuse_if_any_rank_refuses

RUN_FILE = "run.json"
# Settings that may change when a run is resumed. All others must stay the same.
FREE_SETTINGS = (
    "logging_", "eval_", "save_", "report_to", "run_name", "disable_tqdm", "dataloader_", "hub_", "push_to_hub",
    "log_", "skip_memory_metrics", "debug", "local_rank", "ddp_timeout", "resume_from_checkpoint", "output_dir",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "project", "trackio", "cache_dir",
    "num_proc", "preempt_exit_code", "hang_timeout",
)  # fmt: skip


def open_run_dir(args: TrainingArguments, own: dict[str, Any]) -> str | None:
    """Open `args.output_dir` for a run, new or resumed.

    Args:
        args: Training arguments of the run.
        own: Settings of the script besides `args`.

    Returns:
        The newest complete checkpoint to resume from, or `None` for a new run.

    Raises:
        ValueError: The folder holds a finished run, a run with other settings, only damaged checkpoints, or files that
            belong to no run.
    """
    folder = Path(args.output_dir)
    settings = _plain(args, own)
    contents = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
    foreign = f"{folder} holds files that belong to no run ({', '.join(contents[:3])}): choose another --output_dir"
    refuse_if_any_rank_refuses(foreign if contents and RUN_FILE not in contents else "")
    lock_folder(args)
    refuse_if_any_rank_refuses(finished_message(folder) if holds_finished_run(folder) else "")
    run = read_run(folder)
    checkpoint = agree_on_checkpoint(folder, args.should_save)
    incomplete = (
        f"{folder} holds checkpoints, but none is complete (see above): remove them to train from the beginning, "
        "or choose another --output_dir"
    )
    refuse_if_any_rank_refuses(incomplete if checkpoint is None and checkpoints_of(folder) else "")
    new = {"command": command(), "finished": False, "versions": versions(), "settings": settings}
    if contents and run is None:
        run = _restore_run_file(folder, checkpoint, new, args)
    if checkpoint is None:  # nothing was trained yet, so the settings may change
        if contents:
            log_on_main(args, f"{folder} holds a run without a checkpoint: training starts from the beginning.")
        if args.should_save:
            _write(folder, new)
        return None
    changed = changed_settings(run["settings"], args, own)
    other = (
        f"{folder} holds a run with other settings ({'; '.join(changed[:3])}): repeat its settings to resume it, "
        "or choose another --output_dir"
    )
    refuse_if_any_rank_refuses(other if changed else "")
    log_on_main(args, f"Resuming from {checkpoint}.")
    return checkpoint


def _restore_run_file(
    folder: Path, checkpoint: str | None, new: dict[str, Any], args: TrainingArguments
) -> dict[str, Any]:
    """Replace a damaged `run.json` by the copy in the checkpoint that the run resumes from, or by `new`."""
    copy = read_run(checkpoint) if checkpoint is not None else None
    source = f"the copy in {checkpoint} replaces it" if copy is not None else "it is written anew, with these settings"
    log_on_main(args, f"{folder / RUN_FILE} is damaged or cannot be read: {source}.")
    if args.should_save:
        aside = folder / f".{RUN_FILE}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        move(folder / RUN_FILE, aside)
        _write(folder, copy or new)
    return copy or new


def affects_results(name: str) -> bool:
    """Whether a setting can change what the model learns."""
    return not name.startswith(FREE_SETTINGS)


def changed_settings(held: dict[str, Any], args: TrainingArguments, own: dict[str, Any]) -> list[str]:
    """Describe each setting that differs from those held in a run's folder, except those that a run may change."""
    return [
        f"{name} was {held.get(name)!r} and is now {value!r}"
        for name, value in _plain(args, own).items()
        if affects_results(name) and held.get(name) != value
    ]


def _plain(args: TrainingArguments, own: dict[str, Any]) -> dict[str, Any]:
    sequences = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return json.loads(json.dumps({**args.to_dict(), **own, "sequences_per_step": sequences}, default=str))


def read_run(folder: str | Path) -> dict[str, Any] | None:
    """`run.json` of a run or of one of its checkpoints; `None` if there is none, or it is damaged or unreadable."""
    try:
        run = json.loads((Path(folder) / RUN_FILE).read_text(encoding="utf-8"))
        return run if isinstance(run["settings"], dict) and isinstance(run["finished"], bool) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def copy_run_file(folder: Path, checkpoint: Path) -> None:
    """Put a copy of `run.json`, if there is one that can be read, into a checkpoint."""
    run = read_run(folder)
    if run is not None:
        (checkpoint / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n")


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Settings that a run's folder holds.

    Raises:
        ValueError: There is no readable `run.json`.
    """
    run = read_run(folder)
    if run is None:
        raise ValueError(f"{Path(folder) / RUN_FILE} is missing or damaged: give the folder of a run")
    return run["settings"]


def _write(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / RUN_FILE, json.dumps(content, indent=2) + "\n")


def record(args: TrainingArguments, data: dict[str, str | None]) -> dict[str, Any]:
    """What the numbers of a run depend on besides its settings: command, seed, versions, data, processes, device."""
    return {
        "command": command(),
        "seed": args.seed,
        "versions": versions(),
        "data": data,
        "processes": args.world_size,
        "device": args.device.type,
    }


def add_record(folder: Path, content: dict[str, Any]) -> None:
    """Append a record to `run.json`, if the folder has one: one for each start of the run."""
    run = read_run(folder)
    if run is not None:
        _write(folder, {**run, "trainings": [*run.get("trainings", []), content]})


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in "vidlankd_hf torch transformers accelerate datasets tokenizers numpy deepspeed".split():
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def command() -> str:
    """The command line that started this run, including the launcher, without tokens."""
    words = launcher_words()
    if words is not None:
        return _line(["accelerate", "launch", *words])
    if "TORCHELASTIC_RUN_ID" in os.environ:
        parent = psutil.Process().parent()
        if parent is not None:
            return _line(parent.cmdline())
    program, *words = sys.argv
    if program.startswith("vidlankd "):
        return _line([*program.split(), *words])
    return _line([Path(sys.executable).name, *sys.argv])


def _line(words: list[str]) -> str:
    """Join the words of a command line, without any token."""
    token = re.compile("--hub[-_]token")
    words = [re.sub("=.*", "=<HUB_TOKEN>", word, flags=re.DOTALL) if token.match(word) else word for word in words]
    return shlex.join("<HUB_TOKEN>" if token.fullmatch(last) else word for last, word in zip(["", *words], words))


def mark_finished(args: TrainingArguments) -> None:
    """Mark the run as finished: everything it wrote is complete."""
    if args.should_save:
        folder = Path(args.output_dir)
        _write(folder, {**(read_run(folder) or {"settings": {}}), "finished": True})


def is_finished(folder: str | Path) -> bool:
    """Whether `run.json` says that the run is finished."""
    run = read_run(folder)
    return run is not None and run["finished"]


def holds_finished_run(folder: str | Path) -> bool:
    """Whether `folder` holds a finished run: `run.json` says so, or there are weights but no readable `run.json`."""
    run = read_run(folder)
    return run["finished"] if run is not None else any(Path(folder).glob("*.safetensors"))


def finished_message(folder: str | Path) -> str:
    """Error message for a folder that may not be overwritten."""
    if os.path.lexists(Path(folder) / RUN_FILE) and read_run(folder) is None:
        return (
            f"{folder} holds a model, and its {RUN_FILE} is damaged or cannot be read, so it may be a finished run: "
            "choose another --output_dir, or remove the model to go on with the run"
        )
    return f"{folder} holds a finished run: choose another --output_dir, or remove it to train again"


def newest_name(folder: str | Path) -> str | None:
    """Path of the newest checkpoint by name, which is not verified; `None` too if the folder cannot be read."""
    with suppress(OSError):
        return next((str(checkpoint) for checkpoint in checkpoints_of(folder)), None)
    return None


def file_fingerprint(path: str | Path) -> str | None:
    """Hexadecimal sha256 of a file; `None` if there is no such file, as for a Hub id."""
    return sha256_of(Path(path)) if Path(path).is_file() else None


def log_on_main(args: TrainingArguments, message: str) -> None:
    """Print on the main process only. A log file on a full disk ends no run."""
    if args.process_index == 0:
        with suppress(OSError):
            print(message, flush=True)


def run_script(script: Path, *arguments: str, log: Path | None = None, launcher: list[str] | None = None) -> None:
    """Run an example, by default as one process on one device, regardless of how this process was launched.

    Args:
        script: Example to run.
        arguments: Command-line arguments of the example.
        log: If given, the example runs on one thread and its output is appended to this file instead of shown.
        launcher: Command that starts scripts, such as `["accelerate", "launch"]`.

    Raises:
        subprocess.CalledProcessError: The example failed, and its output was shown.
        RuntimeError: The example failed; the message holds the end of `log`.
    """
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_",
                "ACCELERATE_", "FSDP_")  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(launched)}
    if launcher is None:
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    environment["TOKENIZERS_PARALLELISM"] = "false"
    command = [*(launcher or [sys.executable]), str(script), *arguments]
    if log is None:
        subprocess.run(command, env=environment, check=True)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        end = "\n".join(log.read_text().splitlines()[-15:])
        raise RuntimeError(f"{script.name} failed (exit code {done.returncode}). The end of {log}:\n{end}")
