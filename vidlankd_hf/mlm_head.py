"""Masked language modelling at the masked positions only: the vocabulary matrix is the largest product of a step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel


def masked_logits(model: PreTrainedModel, states: Tensor, masked_positions: Tensor) -> Tensor:
    """Vocabulary logits `[B, M, V]` at `masked_positions [B, M]` (indices into L) of `states [B, L, H]`."""
    index = masked_positions[..., None].expand(-1, -1, states.shape[-1])
    return mlm_head(model)(states.gather(1, index))


def mlm_loss(logits: Tensor, masked_labels: Tensor) -> Tensor:
    """Cross-entropy of the masked tokens, a mean over them; exactly 0 (with zero gradients) where there are none.

    Args:
        logits: `[B, M, V]`, as [`masked_logits`] gives them; unused places may hold anything finite.
        masked_labels: `[B, M]` token ids, -100 in unused places.
    """
    logits, labels = logits.flatten(0, 1), masked_labels.flatten()
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    return total / (labels != -100).sum().clamp(min=1)


def mlm_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """The language-model head of a BERT-like `model`: states `[..., H]` to logits `[..., V]`.

    Raises:
        ValueError: `model` has none that is known here.
    """
    if hasattr(model, "cls"):  # BERT, ELECTRA's and MobileBERT's relatives
        return model.cls
    if hasattr(model, "lm_head"):  # RoBERTa, MPNet
        return model.lm_head
    if hasattr(model, "head") and hasattr(model, "decoder"):  # ModernBERT
        return lambda states: model.decoder(model.head(states))
    raise ValueError(
        f"{type(model).__name__} has no masked-language-model head that is known here (cls, lm_head, or head and "
        "decoder): use a BERT-, RoBERTa- or ModernBERT-like model"
    )
