"""Dropout on CPUs, where torch draws a random number an element, one after another: here one of 64 bits serves four.

With torch's own, its numbers take 15 % of a distillation step in bfloat16 (docs/results.md). On GPUs they cost little,
and nothing here is used.
"""

import torch
from torch import Tensor, nn

LEVELS = 2**16  # probabilities that 16 bits can tell


# An operator of its own, since torch.compile breaks its graph at `Tensor.random_`. The tag tells it that another draw
# gives other numbers; `states` keeps it from making one of two layers' draws. The mask has the type of `states`: torch
# multiplies by a mask of booleans through a copy, in both directions, and up to nine times as long.
torch.library.define(
    "vidlankd_hf::keep_mask", "(Tensor states, int dropped) -> Tensor", tags=torch.Tag.nondeterministic_seeded
)


@torch.library.impl("vidlankd_hf::keep_mask", "cpu")
def _keep_mask(states: Tensor, dropped: int) -> Tensor:
    numbers = torch.empty(-(-states.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    numbers = numbers.view(torch.int16)[: states.numel()].view(states.shape)
    return torch.ge(numbers, dropped - LEVELS // 2, out=torch.empty(states.shape, dtype=states.dtype))


@torch.library.register_fake("vidlankd_hf::keep_mask")
def _keep_mask_like(states: Tensor, dropped: int) -> Tensor:
    return torch.empty(states.shape, dtype=states.dtype, device=states.device)


def cpu_dropout(states: Tensor, p: float) -> Tensor:
    """Zeroes elements of `states` (any shape, on a CPU) with probability `p`, scales the rest.

    `p` is rounded to a multiple of 1 / `LEVELS`, and the scale with it: the expected result is `states`. Compiled, two
    calls on the same `states` may drop the same.
    """
    dropped = round(p * LEVELS)
    if dropped == LEVELS:
        return states * 0
    keep = torch.ops.vidlankd_hf.keep_mask(states.detach(), dropped)
    return (states * keep).mul_(LEVELS / (LEVELS - dropped))


class CpuDropout(nn.Dropout):
    """`nn.Dropout`, drawn by [`cpu_dropout`]; on other devices just that."""

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.p == 0 or states.device.type != "cpu":
            return super().forward(states)
        return cpu_dropout(states, self.p)


def use_cpu_dropout(model: nn.Module) -> None:
    """Replaces the dropout layers of `model`; attention's is in `cpu_attention.py`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, CpuDropout(child.p).train(child.training))
