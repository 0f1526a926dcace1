"""Errors for memory that runs out: which size to lower, and how to keep the same samples in a step."""

import contextlib
import traceback
from collections.abc import Iterator

import torch
from transformers import TrainingArguments

WORKER_DIED = ("exited unexpectedly", "is killed by signal")
ON_CPU = ("can't allocate memory", "not enough memory", "bad_alloc")


@contextlib.contextmanager
def explain_out_of_memory(args: TrainingArguments, evaluating: bool = False) -> Iterator[None]:
    """Turns an out-of-memory error into one that says which size to lower.

    Args:
        args: Arguments of the run.
        evaluating: Whether the block evaluates; otherwise it trains.

    Raises:
        torch.OutOfMemoryError: Starts with the advice and ends with the original message.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        advised = isinstance(error.__cause__, (RuntimeError, MemoryError)) and "Out of memory" in str(error)
        out_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if advised or not (out_of_memory or any(words in str(error) for words in ON_CPU)):
            raise
        raise torch.OutOfMemoryError(f"{advice(args, evaluating)} ({error})") from error


def advice(args: TrainingArguments, evaluating: bool) -> str:
    """Returns a sentence that says which option to lower to what value, with options that can be pasted."""
    if evaluating:
        size = args.per_device_eval_batch_size
        if size > 1:
            return f"Out of memory in evaluation: lower --per_device_eval_batch_size from {size} to {size // 2}."
        return "Out of memory in evaluation with one sample per batch: shorten the texts, or evaluate a smaller model."
    size, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    divisors = [d for d in range(2, size + 1) if size % d == 0]
    if not divisors:
        return (
            "Out of memory in training with one sample per batch: give --bf16 true or --gradient_checkpointing true, "
            "shorten the texts, or use a smaller model."
        )
    smaller, times = size // divisors[0], accumulation * divisors[0]
    return (
        f"Out of memory in training: give --per_device_train_batch_size {smaller} (it is {size}) and "
        f"--gradient_accumulation_steps {times} (it is {accumulation}): a step then has the same samples and, unless "
        "an objective contrasts the samples of a batch, the same gradient."
    )


def worker_died(error: Exception) -> bool:
    """Whether PyTorch's loader raised `error` because a worker died, or because a batch was lost with its worker."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error) and any(words in str(error) for words in WORKER_DIED)
    # The thread that pins memory passes its error on as text.
    return "resource_sharer.py" in "".join(traceback.format_exception(error))


def worker_advice(step: int, error: Exception) -> str:
    """Returns what to do about a data loader worker that died and so raised `error`."""
    return (
        f"a data loader worker died at step {step} ({error!r}). It was probably killed because the machine ran out "
        "of memory: lower --dataloader_num_workers or --dataloader_prefetch_factor, and start the same command again"
    )
