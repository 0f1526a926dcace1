"""The output folder of a run: the same for all processes, and locked against a second run."""

import os
import platform
import time
import uuid
from pathlib import Path

from transformers import TrainingArguments

from ..utils.locks import holder_of, sign, take_lock
from .ranks import broadcast_from_main, refuse_if_any_rank_refuses

LOCK = ".lock"
SECONDS_UNTIL_SEEN = 30.0  # a network file system shows a new file late

_locked: dict[Path, int | None] = {}  # folder -> descriptor of its lock, in processes that save


def lock_folder(args: TrainingArguments) -> None:
    """Locks `args.output_dir` for this run until its processes end; all processes call it.

    Raises:
        ValueError: A process does not see the files of the one that saves, or another run uses the folder.
    """
    folder = Path(args.output_dir).resolve()
    if folder in _locked:
        return
    descriptor, refusal = None, ""
    try:
        if args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            refusal = _lock(descriptor, folder)
    except OSError as error:
        refusal = f"{folder} cannot be written to: {error}"
    try:
        refuse_if_any_rank_refuses(refusal)
        _check_common_folder(folder, args)
    except ValueError:
        if descriptor is not None:
            os.close(descriptor)
        raise
    _locked[folder] = descriptor


def _lock(descriptor: int, folder: Path) -> str:
    """Locks the folder's lock file and writes host and process id into it, or returns a message with its holder."""
    free = take_lock(descriptor, wait=False)
    if free is False:
        return (
            f"another run uses {folder} ({holder_of(folder / LOCK)}): wait until it ends, stop it, or choose another "
            "--output_dir"
        )
    if free is None:
        print(f"The file system of {folder} has no locks: do not start a second run in this folder.", flush=True)
    sign(descriptor)
    return ""


def _check_common_folder(folder: Path, args: TrainingArguments) -> None:
    """Checks that each process sees the files of the process that saves for it, and none of another machine's."""
    if args.world_size == 1:
        return
    token = broadcast_from_main(uuid.uuid4().hex)
    saver = args.process_index - args.local_process_index if args.save_on_each_node else 0
    own, error = folder / f".seen-{token}-{args.process_index}", ""
    if args.should_save:
        try:
            own.touch()
        except OSError as caught:
            error = f"{folder} cannot be written to: {caught}"
    try:
        refuse_if_any_rank_refuses(error)
        refuse_if_any_rank_refuses(_check_seen(folder, token, saver, args))
    finally:
        if args.should_save:
            own.unlink(missing_ok=True)


def _check_seen(folder: Path, token: str, saver: int, args: TrainingArguments) -> str:
    end = time.monotonic() + SECONDS_UNTIL_SEEN
    while not os.path.exists(folder / f".seen-{token}-{saver}"):
        if time.monotonic() > end:
            return (
                f"process {args.process_index} on {platform.node()} does not see the folder {folder} in which process "
                f"{saver} saves checkpoints: give an --output_dir that all machines share, or --save_on_each_node true"
            )
        time.sleep(0.1)
    if saver and args.should_save and os.path.exists(folder / f".seen-{token}-0"):
        return (
            f"save_on_each_node is true, but process {saver} on {platform.node()} writes to the same {folder} as "
            "process 0: leave it out, since the machines share the folder"
        )
    return ""


def _forget_locks() -> None:
    """Closes inherited locks in a child process, which would otherwise hold them after its parent's death."""
    for descriptor in _locked.values():
        if descriptor is not None:
            os.close(descriptor)
    _locked.clear()


os.register_at_fork(after_in_child=_forget_locks)
