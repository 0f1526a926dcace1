"""Checkpoints that are complete or absent: written to a hidden folder, verified, listed in a manifest, then renamed.

    run/.checkpoint-20.part/checkpoint-20/   being written; an interruption leaves no run/checkpoint-20
    run/checkpoint-20/                       complete; `manifest.json` holds size and sha256 of every other file

An old checkpoint is removed only after the new one is in its place.
"""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..utils.io import move, sha256_of, sync_tree
from .ranks import broadcast_from_main, raise_if_any_rank_failed

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
SPARE_BYTES = 2**20  # for the manifest, JSON files and file system overhead


def checkpoints_of(folder: str | Path) -> list[Path]:
    """The folders named `checkpoint-<step>`, newest first, complete or not."""
    steps = {path: path.name.rpartition("-")[2] for path in Path(folder).glob("checkpoint-*") if path.is_dir()}
    return sorted((p for p, step in steps.items() if step.isdecimal()), key=lambda p: int(steps[p]), reverse=True)


def verify_checkpoint(checkpoint: str | Path) -> str | None:
    """Return what is wrong with a checkpoint, or `None` if every file matches the manifest."""
    checkpoint = Path(checkpoint)
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format_version"] != FORMAT_VERSION:
            return f"its {MANIFEST} has version {manifest['format_version']!r}, this package reads {FORMAT_VERSION}"
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}: it was not written completely, or not by this package"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} is damaged ({type(error).__name__})"
    if not files:
        return f"its {MANIFEST} lists no file"
    for name, (size, _) in files.items():
        path = checkpoint / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"its {MANIFEST} names {name}, which is outside the checkpoint"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    for name, (_, digest) in files.items():
        if sha256_of(checkpoint / name) != digest:
            return f"{name} is damaged: its sha256 differs from the manifest"
    return None


def newest_checkpoint(folder: str | Path) -> str | None:
    """Return the newest checkpoint that is complete and undamaged; print which ones are skipped, and why."""
    for checkpoint in checkpoints_of(folder):
        wrong = verify_checkpoint(checkpoint)
        if wrong is None:
            return str(checkpoint)
        print(f"Skipping {checkpoint}: {wrong}.", flush=True)
    return None


def checkpoint_to_resume(given: str | bool | None, folder: str | Path, main_process: bool) -> str | None:
    """Resolve `train(resume_from_checkpoint=given)`: the main process verifies and informs the others.

    Args:
        given: A checkpoint; `True` for the newest complete one in `folder`; `None` or `False` for a new run.
        folder: Output folder of the run.
        main_process: Whether this is the main process.

    Returns:
        The checkpoint, or `None` for a new run.

    Raises:
        ValueError: The checkpoint is incomplete or damaged, or `True` was given and there is no complete one.
    """
    if not given:
        return None
    wrong, found = "", ""
    if main_process:
        found = (newest_checkpoint(folder) or "") if given is True else str(given)
        if given is not True:
            wrong = verify_checkpoint(given) or ""
    found, wrong = json.loads(broadcast_from_main(json.dumps([found, wrong])))
    if wrong:
        raise ValueError(f"cannot resume from {found}: {wrong}. Give another one, or True for the newest complete one")
    if not found:
        raise ValueError(
            f"{folder} has no complete checkpoint to resume from: leave out resume_from_checkpoint to begin a new run"
        )
    return found


def save_checkpoint(
    checkpoint: Path, write: Callable[[str], None], main_process: bool, expected_bytes: int, keep: int | None,
    best: str | None,
) -> None:  # fmt: skip
    """Write a checkpoint so that it is complete or absent; all processes of the run call it.

    Args:
        checkpoint: Final path, `.../checkpoint-<step>`.
        write: Writes this process's files into the folder it is given, which has the final name.
        main_process: Whether this process prepares, verifies and renames (one process per file system).
        expected_bytes: Size in bytes to assume if there is no older checkpoint.
        keep: How many checkpoints to keep; `None` keeps all.
        best: A checkpoint to keep in any case.

    Raises:
        RuntimeError: A process could not write its part. Older checkpoints are untouched.
    """
    part = checkpoint.with_name(f".{checkpoint.name}.part")
    folder = part / checkpoint.name
    what = f"{checkpoint} was not written, older checkpoints are untouched"

    def prepare() -> None:
        check_space(checkpoint.parent, expected_bytes)
        shutil.rmtree(part, ignore_errors=True)
        folder.mkdir(parents=True)

    def finish() -> None:
        seal(folder)
        _replace(folder, checkpoint)
        part.rmdir()

    try:
        for do in (prepare, lambda: write(str(folder)), finish):
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
    if main_process and keep:
        rotate(checkpoint.parent, keep, protected={str(checkpoint), str(best)})


def check_space(folder: Path, expected_bytes: int) -> None:
    """Check that a checkpoint as large as the newest one, or as expected, fits on the disk.

    Args:
        folder: Where checkpoints are written.
        expected_bytes: Size in bytes to assume if there is no older checkpoint.

    Raises:
        OSError: There is not enough room.
    """
    for checkpoint in checkpoints_of(folder):
        try:
            files = json.loads((checkpoint / MANIFEST).read_text())["files"]
            expected_bytes = sum(entry["bytes"] for entry in files.values())
            break
        except (OSError, ValueError, KeyError, TypeError):
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
    """Estimate the bytes of a checkpoint with AdamW's two moments; `sharded` adds ZeRO's float32 weights."""
    total = 0
    for parameter in model.parameters():
        count = getattr(parameter, "ds_numel", parameter.numel())
        moments = 2 * max(4, parameter.element_size()) * parameter.requires_grad
        total += count * (parameter.element_size() + moments + 8 * sharded)
    return total


def seal(folder: Path) -> None:
    """Check every file below `folder`, flush it to the disk, and write the manifest last.

    Raises:
        OSError: A file does not follow its format.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _check_format(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=2) + "\n")
    sync_tree(folder)


def rotate(folder: Path, keep: int, protected: set[str]) -> None:
    """Remove the oldest complete checkpoints beyond `keep`; those without a manifest neither count nor are removed."""
    finished = [p for p in checkpoints_of(folder) if (p / MANIFEST).is_file()]
    free_to_go = [p for p in finished if str(p) not in protected]
    for checkpoint in free_to_go[max(0, keep - (len(finished) - len(free_to_go))) :]:
        old = checkpoint.with_name(f".{checkpoint.name}.old")
        move(checkpoint, old)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what an interrupted save or removal left. Nothing else may be running in the folder."""
    for pattern in (".checkpoint-*.part", ".checkpoint-*.old", ".model.part"):
        for path in Path(folder).glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def move_into(part: Path, folder: Path) -> None:
    """Move the files of a finished model into `folder`, the weights last: if they are there, everything is."""
    for path in part.rglob("*"):
        if path.is_file():
            _check_format(path)
    sync_tree(part)
    names = sorted(path.relative_to(part) for path in part.rglob("*") if path.is_file())
    names.sort(key=lambda name: (".safetensors" in name.name, name.name == "model.safetensors"))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        move(part / name, folder / name)
    shutil.rmtree(part)


def _replace(part: Path, checkpoint: Path) -> None:
    old = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if checkpoint.exists():  # a damaged one whose steps were trained again
        move(checkpoint, old)
    move(part, checkpoint)
    shutil.rmtree(old, ignore_errors=True)


def _check_format(path: Path) -> None:
    """Detect a file that was cut short without an error."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass
        elif path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} has another checksum")
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except (SafetensorError, zipfile.BadZipFile, ValueError) as error:
        raise OSError(f"{path.name} is not a complete file ({error})") from error
