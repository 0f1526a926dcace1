"""What to lower when memory runs out, and what then keeps a step's samples the same."""

import contextlib
from collections.abc import Iterator

import torch
from transformers import TrainingArguments

ON_CPU = ("can't allocate memory", "not enough memory", "bad_alloc")


@contextlib.contextmanager
def explain_out_of_memory(args: TrainingArguments, evaluating: bool = False) -> Iterator[None]:
    """Turns running out of memory into an error that says which size to lower.

    Raises:
        torch.OutOfMemoryError: With the advice first and the original message after it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        advised = isinstance(error.__cause__, (RuntimeError, MemoryError)) and "Out of memory" in str(error)
        if advised or not _is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(f"{advice(args, evaluating)} ({error})") from error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in ON_CPU)


def advice(args: TrainingArguments, evaluating: bool) -> str:
    """Which size to lower, in words that can be pasted."""
    if evaluating:
        size = args.per_device_eval_batch_size
        if size > 1:
            return f"Out of memory in evaluation: lower --per_device_eval_batch_size from {size} to {size // 2}."
        return "Out of memory in evaluation, of one sample at a time: make texts shorter, or evaluate a smaller model."
    size, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    divisors = [d for d in range(2, size + 1) if size % d == 0]
    if not divisors:
        return (
            "Out of memory in training, of one sample at a time: give --bf16 true or --gradient_checkpointing true, "
            "make texts shorter, or take a smaller model."
        )
    smaller, times = size // divisors[0], accumulation * divisors[0]
    return (
        f"Out of memory in training: give --per_device_train_batch_size {smaller} (it is {size}) and "
        f"--gradient_accumulation_steps {times} (it is {accumulation}): a step then has the same samples and, where "
        "no objective contrasts the samples of a batch with each other, the same gradient."
    )
