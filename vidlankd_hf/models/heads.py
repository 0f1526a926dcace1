"""Heads on top of token states: distillation heads, the voken head and the masked-language-model (MLM) head."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel


def unit_states(states: Tensor) -> Tensor:
    """Scales each state of `[..., D]` to unit length, in float32 or better."""
    return F.normalize(states.to(torch.promote_types(states.dtype, torch.float32)), dim=-1)


class DistillationHead(nn.Module):
    """Predicts the teacher's token states: linear, GELU, LayerNorm, linear, then unit length for each token.

    The head lets the student's own states differ from the teacher's. The paper reports lower scores on every
    downstream task without it (VidLanKD, appendix).

    Args:
        hidden_size: Width Ds of the student's states.
        teacher_hidden_size: Width Dt of the teacher's states.
        layer_norm_eps: Epsilon of the LayerNorm.

    Shapes:
        `[B, L, Ds]` -> `[B, L, Dt]`.
    """

    def __init__(self, hidden_size: int, teacher_hidden_size: int, layer_norm_eps: float = 1e-12):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.LayerNorm(hidden_size, eps=layer_norm_eps),
            nn.Linear(hidden_size, teacher_hidden_size),
        )

    def forward(self, states: Tensor) -> Tensor:
        return unit_states(self.layers(states))


class VokenHead(DistillationHead):
    """Predicts vokens: the layers of [`DistillationHead`], from `[B, L, Ds]` to logits `[B, L, K]` over K vokens."""

    def forward(self, states: Tensor) -> Tensor:
        return self.layers(states)


def mlm_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Returns the MLM head of a BERT-like `model`, which maps states `[..., H]` to logits `[..., V]`.

    Raises:
        ValueError: `model` has no MLM head, or one with an unknown structure.
    """
    if hasattr(model, "cls"):  # BERT and relatives
        return model.cls
    if hasattr(model, "lm_head"):  # RoBERTa, MPNet
        return model.lm_head
    if hasattr(model, "head") and hasattr(model, "decoder"):  # ModernBERT
        return lambda states: model.decoder(model.head(states))
    raise ValueError(
        f"{type(model).__name__} has no masked-language-model head with a known name (cls, lm_head, or head and "
        "decoder): use a BERT-, RoBERTa- or ModernBERT-like model"
    )


def masked_logits(model: PreTrainedModel, states: Tensor, masked_positions: Tensor) -> Tensor:
    """Computes vocabulary logits at the masked positions only, since this is the largest product of a step.

    Args:
        model: A masked language model.
        states: `[B, L, H]` last hidden states.
        masked_positions: `[B, M]` indices into L.

    Returns:
        Logits `[B, M, V]`.
    """
    index = masked_positions[..., None].expand(-1, -1, states.shape[-1])
    return mlm_head(model)(states.gather(1, index))


def mlm_loss(logits: Tensor, masked_labels: Tensor) -> Tensor:
    """Computes the mean cross-entropy over masked tokens; 0 with zero gradients if there are none.

    Args:
        logits: `[B, M, V]` from [`masked_logits`]; any finite values in unused slots.
        masked_labels: `[B, M]` token ids, -100 in unused slots.
    """
    logits, labels = logits.flatten(0, 1), masked_labels.flatten()
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    return total / (labels != -100).sum().clamp(min=1)
