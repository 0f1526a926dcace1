"""Small runs for the drills, each in a forked process, which starts in milliseconds."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402
from helpers import train, write_checkpoint_files  # noqa: E402, F401
from safetensors.torch import load_file  # noqa: E402
from transformers import TrainerCallback  # noqa: E402
from transformers.utils import logging  # noqa: E402

from vidlankd_hf.reliability.checkpointing import agree_on_checkpoint, checkpoints_of  # noqa: E402

logging.set_verbosity_error()
OPTIONS = {
    "objectives": {"nst": 30.0, "crd": 1.0},
    "dropout": 0.1,
    "gradient_accumulation_steps": 2,
    "save_strategy": "steps",
    "save_total_limit": 3,
    "use_cpu": True,
}


class Progress(TrainerCallback):
    """Writes the last finished step to a file, and slows down steps."""

    def __init__(self, folder: Path, seconds: float = 0.0):
        self.folder, self.seconds = folder, seconds

    def on_step_end(self, args, state, control, **kwargs):
        (self.folder / f".step-{args.process_index}").write_text(str(state.global_step))
        time.sleep(self.seconds)


def start_or_resume(folder: Path, seconds: float = 0.0, callbacks=(), **options):
    """Starts a run, or resumes it from its newest intact checkpoint, and returns the trainer at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    resume = True if checkpoints_of(folder) else None
    callbacks = (Progress(folder, seconds), *callbacks)
    return train("student", folder, **{**OPTIONS, **options}, resume=resume, callbacks=callbacks)


def forked(body: Callable[[], None], log: Path, rank: int = 0, processes: int = 1, port: int = 0) -> int:
    """Runs `body` in a forked process, as one of `processes` ranks, and returns the process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        if processes > 1:
            count = str(processes)
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=count, LOCAL_WORLD_SIZE=count)
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.set_num_threads(1)
        body()
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(pid: int, seconds: float = 120.0) -> int | None:
    """Returns the exit code (negative for a signal), or kills the process and returns `None` after a timeout."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def finished_steps(folder: Path, rank: int = 0) -> int:
    path = folder / f".step-{rank}"
    return int(path.read_text() or 0) if path.exists() else 0


def newest_step(folder: Path) -> int:
    """Returns the step of the newest intact checkpoint, or 0."""
    newest = agree_on_checkpoint(folder, saves=True)
    return int(newest.rpartition("-")[2]) if newest else 0


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def same_end(folder: Path, other: Path, step: int) -> bool:
    """Whether two runs have bit-identical weights and logged losses at a step."""
    ours, theirs = weights(folder, step), weights(other, step)
    logs = [
        [{k: v for k, v in entry.items() if "loss" in k and not k.startswith(("train", "eval"))} for entry in
         json.loads((f / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]]
        for f in (folder, other)
    ]  # fmt: skip
    return all(torch.equal(ours[name], theirs[name]) for name in theirs) and logs[0] == logs[1]
