"""Exact means over micro-batches and processes.

Stock transformers takes a mean of micro-batch means, which is wrong for ragged batches, and scales BERT's loss by the
accumulation steps and ranks (transformers#47688). Here every component c of the loss is a mean over its own items
(masked tokens, real tokens or segments, sequences, vokens), and a micro-batch is weighted by its share of the step's
items:

    loss = sum_c weight_c * mean_c * items_c / items_c(all micro-batches, all ranks) * ranks

DDP and ZeRO divide by `ranks` again, so a step's gradient does not depend on how its samples are split.
"""

import torch
from torch import Tensor

ITEMS = ("masked_tokens", "tokens", "sequences", "vokens")
Terms = dict[str, tuple[float, str]]  # component to its weight and its unit, one of ITEMS


def count_items(batch: dict[str, Tensor]) -> Tensor:
    """Counts the items of a batch.

    Args:
        batch: Holds `input_ids`; `attention_mask`, `masked_labels` and `voken_ids` are optional. If it has a
            `segment_mask`, the objectives compare segments, and "tokens" counts these.

    Returns:
        `[4]` float tensor in the order of `ITEMS`, on the batch's device.
    """
    input_ids, mask = batch["input_ids"], batch.get("segment_mask", batch.get("attention_mask"))
    tokens = torch.full((), input_ids.numel(), device=input_ids.device) if mask is None else mask.sum()
    sequences = torch.full((), len(input_ids), device=input_ids.device)
    masked, vokens = (
        torch.zeros_like(tokens) if labels is None else (labels != -100).sum()
        for labels in (batch.get("masked_labels"), batch.get("voken_ids"))
    )
    return torch.stack([masked, tokens, sequences, vokens]).float()


def scaled_loss(means: dict[str, Tensor], terms: Terms, items: Tensor, step_items: Tensor, ranks: int) -> Tensor:
    """Loss of a micro-batch: the sum over micro-batches, averaged over ranks, is the exact mean of the step.

    Args:
        means: Component to its mean over the micro-batch.
        terms: Component to its weight and unit.
        items: `[4]` items of the micro-batch.
        step_items: `[4]` items of all micro-batches of the optimizer step on all ranks.
        ranks: Number of processes.
    """
    shares = items / step_items.clamp(min=1) * ranks
    return sum(weight * shares[ITEMS.index(unit)] * means[name] for name, (weight, unit) in terms.items())


def add_to_totals(totals: dict[str, Tensor], means: dict[str, Tensor], terms: Terms, items: Tensor) -> None:
    """Adds the sums of a micro-batch to `totals`, on the device.

    Args:
        totals: Component to `[2]` float64: the sum of its values, and the number of its items.
        means: Component to its mean over the micro-batch.
        terms: Component to its weight and unit.
        items: `[4]` items of the micro-batch.
    """
    for name, (_, unit) in terms.items():
        count = items[ITEMS.index(unit)]
        pair = torch.stack([means[name].detach().double() * count, count.double()])
        totals[name] = totals[name] + pair if name in totals else pair


def means_of_totals(totals: dict[str, Tensor], accelerator) -> dict[str, float]:
    """Exact means over all ranks: one collective, one transfer to the host."""
    if not totals:
        return {}
    sums = accelerator.reduce(torch.stack(list(totals.values())), "sum").cpu()
    return {name: (total / count).item() if count else 0.0 for name, (total, count) in zip(totals, sums)}
