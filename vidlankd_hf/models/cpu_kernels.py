"""Attention on CPUs, where torch's SDPA is slow with dropout, and for short sequences in low precision.

Dropout on CPUs, where torch draws a random number an element, one after another: here one of 64 bits serves four.

With torch's own, its numbers take 15 % of a distillation step in bfloat16 (docs/results.md). On GPUs they cost little,
and nothing here is used.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .attention import CPU_ATTENTION

SHORT = 256  # tokens, below which two plain products beat SDPA's blocks: benchmarks/attention.py


def attention(module, query, key, value, attention_mask, dropout: float = 0.0, scaling: float | None = None, **kwargs):
    """transformers' SDPA attention, except where its kernel for CPUs is slow: there, two plain products.

    That is with dropout, where it multiplies in float32; and for short sequences, wherever products have less than
    float32's precision, but for a forward pass in bfloat16 alone.

    Args:
        query, key, value: `[B, heads, L, D]`.
        attention_mask: `[B or 1, heads or 1, L or 1, L]`, true where attended, or added to scores; `None`: everywhere.
    """
    additive = attention_mask is not None and attention_mask.dtype != torch.bool  # a caller's own
    if query.device.type != "cpu" or module.is_causal or additive or not (dropout or _sdpa_is_slow(query, key)):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    with torch.autocast("cpu", enabled=False):  # computed in float32 anyway, and given back in the type of `scores`
        shares = scores.softmax(-1)
        if dropout:
            shares = cpu_dropout(shares, dropout)
    return (shares @ value).transpose(1, 2).contiguous(), None


def _sdpa_is_slow(query: Tensor, key: Tensor) -> bool:
    if key.shape[2] >= SHORT:
        return False
    if query.dtype == torch.bfloat16:
        return query.requires_grad
    return query.dtype == torch.float32 and _lowers_float32()


@torch.compiler.assume_constant_result  # torch.compile breaks its graph at the question
def _lowers_float32() -> bool:
    return torch.get_float32_matmul_precision() != "highest"


AttentionInterface.register(CPU_ATTENTION, attention)
AttentionMaskInterface.register(CPU_ATTENTION, sdpa_mask)


def use_cpu_attention(model: nn.Module) -> None:
    """Gives [`attention`] to every BERT and RoBERTa in `model` that attends by SDPA; others may take more.

    What `save_pretrained` writes does not name it; a pickled module does, and needs this package to run.
    """
    for module in list(model.modules()):
        if not isinstance(module, PreTrainedModel) or module.config.model_type not in ("bert", "roberta"):
            continue
        if module.config._attn_implementation == "sdpa":
            module.set_attn_implementation(CPU_ATTENTION)


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
