"""The output folder of a run: started, resumed or refused, never overwritten."""

import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainingArguments

from ..utils.addresses import public_word
from ..utils.children import end_with_parent
from ..utils.errors import printable
from ..utils.io import atomic_write, move
from ..utils.json_files import read_text
from .checkpointing import agree_on_checkpoint, checkpoints_of, misnamed_checkpoints
from .folder_lock import lock_folder
from .launch import launcher_words
from .ranks import refuse_if_any_rank_refuses
from .same_run import changed_records, changed_settings, check_allowed, config_values, settings_of_run

RUN_FILE = "run.json"


def open_run_dir(args: TrainingArguments, own: dict[str, Any]) -> str | None:
    """Opens `args.output_dir` for a run, new or resumed.

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
    check_allowed(args.allow_changed or ())
    settings = settings_of_run(args, own)
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
    held = [*checkpoints_of(folder), *misnamed_checkpoints(folder)]
    refuse_if_any_rank_refuses(incomplete if checkpoint is None and held else "")
    new = {"command": command(), "finished": False, "versions": versions(), "settings": settings}
    if contents and run is None:
        run = _restore_run_file(folder, checkpoint, new, args)
    if checkpoint is None:  # nothing was trained yet, so the settings may change
        if contents:
            log_on_main(args, f"{folder} holds a run without a checkpoint: training starts from the beginning.")
        if args.should_save:
            _write(folder, new)
        return None
    changed = changes(run["settings"], args, own)
    refuse_if_any_rank_refuses(refusal(f"{folder} holds a run", changed) if changed else "")
    if run["settings"] != settings and args.should_save:
        _write(folder, {**run, "settings": settings})
    log_on_main(args, f"Resuming from {checkpoint}.")
    return checkpoint


def _restore_run_file(
    folder: Path, checkpoint: str | None, new: dict[str, Any], args: TrainingArguments
) -> dict[str, Any]:
    """Replaces a damaged `run.json` with the copy in the checkpoint that the run resumes from, or with `new`."""
    copy = read_run(checkpoint) if checkpoint is not None else None
    source = f"the copy in {checkpoint} replaces it" if copy is not None else "it is rewritten with these settings"
    log_on_main(args, f"{folder / RUN_FILE} is damaged or cannot be read: {source}.")
    if args.should_save:
        aside = folder / f".{RUN_FILE}.damaged"
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)
        move(folder / RUN_FILE, aside)
        _write(folder, copy or new)
    return copy or new


def changes(held: dict[str, Any], args: TrainingArguments, own: dict[str, Any]) -> dict[str, str]:
    """Describes each setting that differs from those held in a run's folder, except those that a run may change."""
    return changed_settings(held, settings_of_run(args, own), args.allow_changed or ())


def refusal(what: str, changed: dict[str, str]) -> str:
    """Error message for a run that would continue another one."""
    return (
        f"{what} with other settings or data: {'; '.join(changed.values())}. Use the original ones to resume it, "
        f"or choose another --output_dir. To resume anyway: --allow_changed {' '.join(changed)}"
    )


def read_run(folder: str | Path) -> dict[str, Any] | None:
    """`run.json` of a run or of one of its checkpoints; `None` if there is none, or it is damaged or unreadable."""
    try:
        run = json.loads(read_text(Path(folder) / RUN_FILE))
        kinds = {"settings": dict, "finished": bool, "trainings": list}
        complete = all(isinstance(run.get(key, kind()), kind) for key, kind in kinds.items())
        return run if complete and {"settings", "finished"} <= run.keys() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def copy_run_file(folder: Path, checkpoint: Path) -> None:
    """Puts a copy of `run.json`, if there is one that can be read, into a checkpoint."""
    run = read_run(folder)
    if run is not None:
        (checkpoint / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n")


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Settings in the `run.json` of a run's folder.

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


def record(
    args: TrainingArguments, data: dict[str, str | None], parts: dict[str, str | None], configs: dict[str, Any]
) -> dict[str, Any]:
    """What the numbers of a run depend on: command, settings, versions, data, models, processes, device.

    Args:
        args: Training arguments of the run.
        data: Fingerprints of training and evaluation data.
        parts: Fingerprints of tokenizer and teacher.
        configs: Configurations of the models, by name.
    """
    return {
        "command": command(),
        "seed": args.seed,
        "settings": settings_of_run(args, {}),
        "versions": versions(),
        "data": data,
        "parts": parts,
        "configs": {name: config_values(config.to_dict()) for name, config in configs.items()},
        "processes": args.world_size,
        "device": args.device.type,
    }


def compare_records(args: TrainingArguments, path: Path, now: dict[str, Any]) -> None:
    """Compares the record of a checkpoint with that of the run that resumes from it.

    Raises:
        ValueError: Something differs that `args.allow_changed` does not name.
    """
    was, allowed = json.loads(path.read_text()) if path.is_file() else now, args.allow_changed or ()
    check_allowed(allowed)
    if "settings" not in was:
        log_on_main(args, f"{path.parent} was written by an older version: its settings and data are not compared.")
        was = {**now, "versions": was["versions"]}
    changed = changed_records(was, now, allowed)
    refuse_if_any_rank_refuses(refusal(f"{path.parent} is of a run", changed) if changed else "")
    for description in changed_records(was, now, ()).values():
        log_on_main(args, f"Resuming although {description}.")
    differ = [
        f"{name} {was['versions'].get(name)} (now {version})"
        for name, version in now["versions"].items()
        if was["versions"].get(name) != version
    ]
    differ += [f"{name} {was[name]} (now {now[name]})" for name in ("processes", "device") if was[name] != now[name]]
    if differ:
        log_on_main(args, f"{path.parent} was written with {', '.join(differ)}: results may differ slightly.")


def add_record(folder: Path, content: dict[str, Any]) -> None:
    """Appends the record of a start of the run to `run.json`, if the folder has one."""
    run = read_run(folder)
    if run is not None:
        _write(folder, {**run, "trainings": [*run.get("trainings", []), content]})


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results may depend on."""
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
    """Joins the words of a command line, without any token or credentials in addresses."""
    token = re.compile("--hub[-_]token")
    words = [word if token.match(word) else public_word(word) for word in words]
    words = [re.sub("=.*", "=<HUB_TOKEN>", word, flags=re.DOTALL) if token.match(word) else word for word in words]
    return shlex.join("<HUB_TOKEN>" if token.fullmatch(last) else word for last, word in zip(["", *words], words))


def mark_finished(args: TrainingArguments) -> None:
    """Marks the run as finished: everything it wrote is complete."""
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
            "choose another --output_dir, or remove the model to continue the run"
        )
    return f"{folder} holds a finished run: choose another --output_dir, or remove it to train again"


def newest_name(folder: str | Path) -> str | None:
    """Path of the newest checkpoint by name, not verified; `None` if there is none or the folder is unreadable."""
    with suppress(OSError):
        return next((str(checkpoint) for checkpoint in checkpoints_of(folder)), None)
    return None


def log_on_main(args: TrainingArguments, message: str) -> None:
    """Prints on the main process only. A log file on a full disk does not end the run."""
    if args.process_index == 0:
        with suppress(OSError):
            print(printable(message), flush=True)


def run_script(
    script: Path | str,
    *arguments: str,
    log: Path | None = None,
    launcher: list[str] | None = None,
    lock: int | None = None,
    gpu: str | None = None,
) -> None:
    """Runs an example, by default as one process on one device, regardless of how this process was launched.

    The example is told to stop when this process ends.

    Args:
        script: Example to run, or the name of a module.
        arguments: Command-line arguments of the example.
        log: If given, the example runs on one thread and its output is appended to this file instead of shown.
        launcher: Command that starts scripts, such as `["accelerate", "launch"]`.
        lock: Descriptor of a [`lock_file`] that the example holds until it ends, even if this process is killed.
        gpu: Without a launcher, the GPU to use, as in `CUDA_VISIBLE_DEVICES`; default: the first one that is visible.

    Raises:
        RuntimeError: The example failed; with `log`, the message holds its end.
    """
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_",
                "ACCELERATE_", "FSDP_")  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(launched)}
    if launcher is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        environment["CUDA_VISIBLE_DEVICES"] = visible if gpu is None else gpu
    environment["TOKENIZERS_PARALLELISM"] = "false"
    program = ["-m", script] if isinstance(script, str) else [str(script)]
    command = [*(launcher or [sys.executable]), *program, *arguments]
    options: dict[str, Any] = {"env": environment, "preexec_fn": partial(end_with_parent, signal.SIGTERM)}
    options["pass_fds"] = () if lock is None else (lock,)
    if log is None:
        done = subprocess.run(command, **options)
        if done.returncode:
            raise RuntimeError(f"{Path(script).name} failed (exit code {done.returncode}), see above")
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        end = "\n".join(log.read_text().splitlines()[-15:])
        raise RuntimeError(f"{Path(script).name} failed (exit code {done.returncode}). The end of {log}:\n{end}")
