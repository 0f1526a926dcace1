"""Evaluates several models and tasks at the same time, each in its own process."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import Queue

import torch

from ..evaluation.comparison import Comparison
from ..evaluation.script_arguments import ComparisonArguments
from ..utils.children import end_with_parent
from . import world  # noqa: F401  (adds its task to TASKS)
from .jobs import visible_gpus


def compute_in_parallel(comparison: Comparison) -> None:
    """Computes the missing results of a comparison, `--jobs` at a time, each in its own folder.

    A job uses one CPU thread and, if there are GPUs, one GPU. The output of fine-tuning goes to a log file.

    Args:
        comparison: Models, tasks and options.

    Raises:
        RuntimeError: Some jobs failed; the others are finished and kept.
    """
    args = comparison.args
    units = [(name, model, task) for name, model in zip(comparison.names, args.models) for task in comparison.tasks]
    jobs, gpus = min(args.jobs, len(units)), visible_gpus()
    context = multiprocessing.get_context("spawn")
    gpu_of_jobs = context.Queue()
    for job in range(jobs):
        gpu_of_jobs.put(gpus[job % len(gpus)] if gpus else "")
    failures = []
    with ProcessPoolExecutor(jobs, context, _prepare, (gpu_of_jobs, args, comparison.passed_on)) as pool:
        waiting = {pool.submit(_compute, unit): unit for unit in units}
        for done in as_completed(waiting):
            name, _, task = waiting[done]
            error = done.exception()
            if error is not None:
                failures.append(f"{name} on {task}: {error}")
            print(f"{name} on {task}: {'failed' if error is not None else 'done'}", flush=True)
    if failures:
        raise RuntimeError(
            "\n".join(
                [f"{len(failures)} of {len(units)} jobs failed; the same command runs only these again:", *failures]
            )
        )


_comparison: Comparison | None = None  # set in each job's process


def _prepare(gpu_of_jobs: Queue, args: ComparisonArguments, passed_on: dict) -> None:
    global _comparison
    end_with_parent(signal.SIGTERM)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of_jobs.get()
    torch.set_num_threads(1)
    _comparison = Comparison(args, passed_on)  # reads the task files


def _compute(unit: tuple[str, str, str]) -> None:
    assert _comparison is not None
    _comparison.result(*unit, launcher=None, quiet=True)
