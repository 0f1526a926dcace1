"""Checkpoints that are complete or absent: written to a hidden folder, verified, listed in a manifest, then renamed.

    run/.checkpoint-20.part/checkpoint-20/   being written; an interruption leaves no run/checkpoint-20
    run/checkpoint-20/                       complete; `manifest.json` holds size and sha256 of every other file

An old checkpoint is removed only after the new one is in its place.
"""

import base64
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..utils.errors import printable
from ..utils.io import move, sync_tree
from ..utils.json_files import read_text
from .manifest import MANIFEST, STATE, Layout, check_format, read_save_id, seal, verify_checkpoint
from .ranks import broadcast_from_main, gather_messages, own_rank, raise_if_any_rank_failed

NAME = re.compile("checkpoint-(0|[1-9][0-9]*)")
SPARE_BYTES = 2**20  # for the manifest, JSON files and file system overhead


def checkpoints_of(folder: str | Path) -> list[Path]:
    """The folders named `checkpoint-<step>`, newest first, complete or not, readable or not."""
    named = [path for path in Path(folder).glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(filter(_may_be_folder, named), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def misnamed_checkpoints(folder: str | Path) -> list[Path]:
    """Copies of checkpoints under names that no run gives: `checkpoint-0010`, or `CHECKPOINT-10` from some disks."""
    return sorted(
        path
        for path in Path(folder).glob("*")
        if re.fullmatch("checkpoint-[0-9]+", path.name, re.IGNORECASE) and not NAME.fullmatch(path.name)
    )


def agree_on_checkpoint(folder: str | Path, saves: bool) -> str | None:
    """Returns the newest checkpoint that is complete and undamaged on every machine; all processes call it.

    The main process prints which ones are skipped, and why.

    Args:
        folder: Output folder of the run.
        saves: Whether this process saves checkpoints (one process per file system). Only such processes verify.
    """
    for path in misnamed_checkpoints(folder) if own_rank() == 0 else ():
        print(printable(f"Skipping {path}: rename it to checkpoint-<step> to resume from it."), flush=True)
    held = {int(path.name.rpartition("-")[2]): path for path in checkpoints_of(folder)}
    everywhere = [set(json.loads(steps)) for steps in gather_messages(json.dumps([*held]) if saves else "") if steps]
    for step in sorted(set.union(*everywhere), reverse=True):
        checkpoint = held.get(step, Path(folder) / f"checkpoint-{step}")
        wrong = fault_anywhere(checkpoint, saves)
        if not wrong:
            return str(checkpoint)
        if own_rank() == 0:
            print(printable(f"Skipping {checkpoint}: {wrong}."), flush=True)
    return None


def fault_anywhere(checkpoint: Path, saves: bool) -> str:
    """Returns what is wrong with a checkpoint on any machine, or ""; all processes call it.

    Args:
        checkpoint: The checkpoint, by the same path on each machine.
        saves: Whether this process saves checkpoints. Only such processes verify.
    """
    answer = None
    if saves:
        wrong = verify_checkpoint(checkpoint)
        answer = {"wrong": wrong, "save_id": read_save_id(checkpoint) if wrong is None else None}
    answers = {number: json.loads(text) for number, text in enumerate(gather_messages(json.dumps(answer)))}
    answers = {number: answer for number, answer in answers.items() if answer is not None}
    wrong = {number: answer["wrong"] for number, answer in answers.items() if answer["wrong"]}
    if wrong:
        alone = len(answers) == 1
        return "; ".join(text if alone else f"on the machine of process {n}, {text}" for n, text in wrong.items())
    if len({answer["save_id"] for answer in answers.values()}) > 1:
        return f"the machines of processes {sorted(answers)} hold checkpoints of different runs"
    return ""


def checkpoint_to_resume(given: str | bool | None, folder: str | Path, saves: bool) -> str | None:
    """Resolves `train(resume_from_checkpoint=given)`; all processes call it.

    Args:
        given: A checkpoint; `True` for the newest complete one in `folder`; `None` or `False` for a new run.
        folder: Output folder of the run.
        saves: Whether this process saves checkpoints. Only such processes verify.

    Returns:
        The checkpoint, or `None` for a new run.

    Raises:
        ValueError: The checkpoint is incomplete or damaged, or `True` was given and there is no complete one.
    """
    if given is None or given is False:
        return None
    if given is not True:
        wrong = fault_anywhere(Path(given), saves)
        if wrong:
            raise ValueError(
                f"cannot resume from {str(given)!r}: {wrong}. Give another one, or True for the newest complete one"
            )
        return str(given)
    found = agree_on_checkpoint(folder, saves)
    if found is None:
        raise ValueError(
            f"{folder} has no complete checkpoint to resume from: leave out resume_from_checkpoint to begin a new run"
        )
    return found


def best_checkpoint(resumed: str, saves: bool) -> str | None:
    """Returns the best checkpoint of the run that is resumed, whose folder may have moved; all processes call it.

    Args:
        resumed: The checkpoint that the run resumes from.
        saves: Whether this process saves checkpoints. Only such processes verify.

    Raises:
        ValueError: It is missing, incomplete or damaged, so the run could not end with the best weights.
    """
    step = json.loads(read_text(Path(resumed) / STATE)).get("best_global_step")
    best = Path(resumed).with_name(f"checkpoint-{step}")
    if not step or best == Path(resumed):
        return str(best) if step else None
    wrong = fault_anywhere(best, saves)
    if wrong:
        raise ValueError(
            f"cannot resume with load_best_model_at_end: the best checkpoint is {best}, but {wrong}. Restore it, or "
            "give --load_best_model_at_end false --allow_changed load_best_model_at_end"
        )
    return str(best)


def save_checkpoint(
    checkpoint: Path, write: Callable[[str], None], main_process: bool, expected_bytes: int, keep: int | None,
    best: str | None, layout: Layout, shared: Sequence[str] = (),
) -> None:  # fmt: skip
    """Writes a checkpoint so that it is complete or absent; all processes of the run call it.

    Args:
        checkpoint: Final path, `.../checkpoint-<step>`.
        write: Writes this process's files into the folder it is given, which has the final name.
        main_process: Whether this process prepares, verifies and renames (one process per file system).
        expected_bytes: Size in bytes to assume if there is no older checkpoint.
        keep: How many checkpoints to keep; `None` keeps all.
        best: A checkpoint that is never removed.
        layout: What the checkpoint must contain.
        shared: Files of this process that are copied into the checkpoints on other machines; they should be small.

    Raises:
        RuntimeError: A process could not write its part. Older checkpoints are untouched.
    """
    part = checkpoint.with_name(f".{checkpoint.name}.part")
    folder = part / checkpoint.name
    what = f"{checkpoint} was not written, older checkpoints are untouched"
    save_id = broadcast_from_main(uuid.uuid4().hex)

    def prepare() -> None:
        check_space(checkpoint.parent, expected_bytes)
        _remove(part)
        folder.mkdir(parents=True)

    def share() -> None:
        _share(folder, shared, main_process)

    def finish() -> None:
        seal(folder, layout, save_id)
        _replace(folder, checkpoint)
        part.rmdir()

    try:
        for do in (prepare, lambda: write(str(folder)), share, finish):
            error = None
            if main_process or do not in (prepare, finish):
                try:
                    do()
                except Exception as caught:
                    error = caught
            raise_if_any_rank_failed(what, error)
    except RuntimeError:
        if main_process:
            shutil.rmtree(part, ignore_errors=True)
        raise
    if main_process and keep:  # the new checkpoint is in its place on every machine
        rotate(checkpoint.parent, keep, protected={str(checkpoint), str(best)})


def _share(folder: Path, names: Sequence[str], receives: bool) -> None:
    """Sends small files of a checkpoint to the machines that lack them; all processes call it."""
    own = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in names}
    for message in gather_messages(json.dumps(own)):
        for name, content in json.loads(message).items():
            if receives and not (folder / name).exists():
                (folder / name).write_bytes(base64.b64decode(content))


@contextmanager
def saves_on_every_machine(model: PreTrainedModel) -> Iterator[None]:
    """Lets `save_pretrained` also write on processes other than the first one of the run."""
    model.should_save_on_this_rank = lambda is_main_process: is_main_process
    try:
        yield
    finally:
        del model.should_save_on_this_rank


def check_space(folder: Path, expected_bytes: int) -> None:
    """Checks that a checkpoint as large as the newest one, or as expected, fits on the disk.

    Args:
        folder: Where checkpoints are written.
        expected_bytes: Size in bytes to assume if there is no older checkpoint.

    Raises:
        OSError: There is not enough room.
    """
    for checkpoint in checkpoints_of(folder):
        try:
            files = json.loads(read_text(checkpoint / MANIFEST))["files"]
            expected_bytes = sum(entry["bytes"] for entry in files.values())
            break
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(folder).free, expected_bytes + expected_bytes // 20 + SPARE_BYTES
    if free < needed:
        raise OSError(
            f"a checkpoint needs about {needed / 2**20:,.1f} MiB, but the disk of {folder} has "
            f"{free / 2**20:,.1f} MiB left: make room (remove old runs, or lower --save_total_limit) and start the "
            "same command again"
        )


def expected_bytes(model: torch.nn.Module, sharded: bool) -> int:
    """Estimates the bytes of a checkpoint with AdamW's two moments; `sharded` adds ZeRO's float32 weights."""
    total = 0
    for parameter in model.parameters():
        count = getattr(parameter, "ds_numel", parameter.numel())
        moments = 2 * max(4, parameter.element_size()) * parameter.requires_grad
        total += count * (parameter.element_size() + moments + 8 * sharded)
    return total


def rotate(folder: Path, keep: int, protected: set[str]) -> None:
    """Removes the oldest complete checkpoints beyond `keep`. Folders without a manifest are not counted or removed."""
    finished = [p for p in checkpoints_of(folder) if os.path.isfile(p / MANIFEST)]
    removable = [p for p in finished if str(p) not in protected]
    for checkpoint in removable[max(0, keep - (len(finished) - len(removable))) :]:
        old = checkpoint.with_name(f".{checkpoint.name}.old")
        try:
            move(checkpoint, old)
        except OSError as error:  # the new checkpoint is saved, so training continues
            print(f"{checkpoint} could not be removed: {error}.", flush=True)
        _remove(old)


def remove_leftovers(folder: str | Path) -> None:
    """Removes leftovers of an interrupted start, save or removal. No other run may use the folder."""
    for pattern in (".checkpoint-*.part", ".checkpoint-*.old", ".model.part", ".seen-*"):
        for path in Path(folder).glob(pattern):
            _remove(path)


def move_into(part: Path, folder: Path) -> None:
    """Moves the files of a finished model into `folder`, the weights last: once they are there, everything is."""
    for path in part.rglob("*"):
        if path.is_file():
            check_format(path)
    sync_tree(part)
    names = sorted(path.relative_to(part) for path in part.rglob("*") if path.is_file())
    names.sort(key=lambda name: (".safetensors" in name.name, name.name == "model.safetensors"))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        move(part / name, folder / name)
    shutil.rmtree(part)


def _replace(part: Path, checkpoint: Path) -> None:
    old = checkpoint.with_name(f".{checkpoint.name}.old")
    _remove(old)
    with suppress(FileNotFoundError):  # there is one only if it was damaged and its steps were trained again
        move(checkpoint, old)
    move(part, checkpoint)
    _remove(old)


def _remove(path: Path) -> None:
    """Removes a folder, a file, or a link to a checkpoint that its owner has moved to another disk."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _may_be_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # unknown: verifying it will report the error
        return True
