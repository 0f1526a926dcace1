"""Heads that a student has while it learns, one an objective; they are shed with the objectives.

Masked language modelling at the masked positions only: the vocabulary matrix is the largest product of a step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel


class DistillationHead(nn.Module):
    """Linear-GELU-LayerNorm-Linear to the teacher's width, then unit length per token: `[B, L, Ds] -> [B, L, Dt]`.

    It lets the student keep a representation of its own. Without it every downstream score is lower (VidLanKD,
    appendix).
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
    """The same layers to logits over K vokens: `[B, L, Ds] -> [B, L, K]`."""

    def forward(self, states: Tensor) -> Tensor:
        return self.layers(states)


def unit_states(states: Tensor) -> Tensor:
    """`[..., D]` scaled to unit length per token, in float32 or better."""
    return F.normalize(states.to(torch.promote_types(states.dtype, torch.float32)), dim=-1)


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
