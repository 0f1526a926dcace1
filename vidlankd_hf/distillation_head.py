"""Heads that a student has while it learns, one an objective; they are shed with the objectives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
