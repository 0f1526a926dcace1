"""Masked language modelling at the masked positions only: the vocabulary matrix is the largest product of a step."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel


def mlm_loss(model: PreTrainedModel, states: Tensor, masked_positions: Tensor, masked_labels: Tensor) -> Tensor:
    """Cross-entropy of the masked tokens, a mean over them; exactly 0 (with zero gradients) where there are none.

    Args:
        model: A masked language model.
        states: `[B, L, H]` last hidden states of its encoder.
        masked_positions: `[B, M]` indices into L; unused places hold any valid index.
        masked_labels: `[B, M]` token ids, -100 in unused places.
    """
    index = masked_positions[..., None].expand(-1, -1, states.shape[-1])
    logits = mlm_logits(model, states.gather(1, index)).flatten(0, 1)
    labels = masked_labels.flatten()
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    return total / (labels != -100).sum().clamp(min=1)


def mlm_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Vocabulary logits `[..., V]` of `states [..., H]` by the language-model head of a BERT-like `model`."""
    if hasattr(model, "cls"):  # BERT, ELECTRA's and MobileBERT's relatives
        return model.cls(states)
    if hasattr(model, "lm_head"):  # RoBERTa, MPNet
        return model.lm_head(states)
    if hasattr(model, "head") and hasattr(model, "decoder"):  # ModernBERT
        return model.decoder(model.head(states))
    raise ValueError(
        f"{type(model).__name__} has no masked-language-model head that is known here (cls, lm_head, or head and "
        "decoder): use a BERT-, RoBERTa- or ModernBERT-like model"
    )
