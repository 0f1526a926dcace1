"""Where the steps of an experiment run: on the GPUs of this machine, or as Slurm jobs."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import torch

from ..utils.extras import requires_extra
from .grid import Step


def visible_gpus() -> list[str]:
    """The GPUs of this machine that `CUDA_VISIBLE_DEVICES` allows."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def on_this_machine(jobs: int) -> Iterator[Callable[[list[Step]], list]]:
    """Yields a `submit` for [`run_steps`] that runs some steps at the same time; the others wait their turn.

    Args:
        jobs: Number of steps at the same time. Each has its own GPU; if there are fewer GPUs, steps share them. If
            it is above 1, their output goes to log files. A step that must be alone waits until no other one runs, and
            shows its output.
    """
    gpus, taking = visible_gpus(), Lock()
    free: SimpleQueue[str | None] = SimpleQueue()
    for job in range(jobs):
        free.put(gpus[job % len(gpus)] if gpus else None)

    def call(step: Step) -> str:
        with taking:  # two steps that each wait for what the other has would wait forever
            taken = [free.get() for _ in range(jobs if step.alone else 1)]
        try:
            return step.work(quiet=jobs > 1 and not step.alone, gpu=None if step.alone else taken[0])
        finally:
            for gpu in taken:
                free.put(gpu)

    pool = ThreadPoolExecutor(jobs)
    try:
        yield lambda steps: [pool.submit(call, step) for step in steps]
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def on_slurm(folder: Path, parameters: dict[str, Any]) -> Iterator[Callable[[list[Step]], list]]:
    """Yields a `submit` for [`run_steps`] that runs steps as Slurm jobs. Steps that start together are one job array.

    Args:
        folder: Folder for scripts and logs of the jobs, which all machines see.
        parameters: Those of `submitit.AutoExecutor.update_parameters`, such as `slurm_partition`, `timeout_min` and
            `gpus_per_node`; and `cluster`, by default `"slurm"`.

    Raises:
        ImportError: The extra `slurm` is not installed.
    """
    with requires_extra("slurm"):
        import submitit
    cluster = parameters.get("cluster", "slurm")
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(**{name: value for name, value in parameters.items() if name != "cluster"})

    def submit(steps: list[Step]) -> list:
        with executor.batch():
            return [executor.submit(step.work, quiet=True, gpu=None) for step in steps]

    yield submit
