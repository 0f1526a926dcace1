"""Faster attention and dropout on CPUs, registered with torch and transformers. Other devices use the stock kernels.

Dropout: torch draws one random number per element; here one 64-bit number serves four elements. Attention: torch's
SDPA is slow with dropout, and for short sequences in low precision. docs/results.md has the measurements.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .attention import CPU_ATTENTION

SHORT = 256  # tokens; below, two matrix products are faster than SDPA's blocks (benchmarks/attention.py)
LEVELS = 2**16  # a 16-bit random number resolves this many probabilities

# A custom operator, because torch.compile breaks the graph at `Tensor.random_`. The tag says that each call draws
# different numbers. The argument `states` keeps the compiler from merging the calls of two layers. The mask has the
# dtype of `states`, since torch multiplies by a bool mask through a copy, which takes up to nine times as long.
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
    """Zeroes elements of a CPU tensor with probability `p` and scales the rest, so that the expected value is kept.

    `p` is rounded to a multiple of 1 / `LEVELS`, and the scale matches the rounded value. In a compiled graph, two
    calls on the same tensor may drop the same elements.
    """
    dropped = round(p * LEVELS)
    if dropped == LEVELS:
        return states * 0
    keep = torch.ops.vidlankd_hf.keep_mask(states.detach(), dropped)
    return (states * keep).mul_(LEVELS / (LEVELS - dropped))


class CpuDropout(nn.Dropout):
    """`nn.Dropout` that uses [`cpu_dropout`] for tensors on the CPU."""

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.p == 0 or states.device.type != "cpu":
            return super().forward(states)
        return cpu_dropout(states, self.p)


def use_cpu_dropout(model: nn.Module) -> None:
    """Replaces every `nn.Dropout` in `model`. [`use_cpu_attention`] covers the dropout of attention weights."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, CpuDropout(child.p).train(child.training))


def cpu_attention(
    module, query, key, value, attention_mask, dropout: float = 0.0, scaling: float | None = None, **kwargs
):
    """Attention function for transformers: SDPA, or two matrix products where SDPA's CPU kernel is slow.

    That kernel is slow with dropout, where it multiplies in float32, and for short sequences if matrix products have
    less than float32's precision (except for a bfloat16 forward pass without gradients).

    Args:
        module: The attention layer.
        query, key, value: `[B, heads, L, D]`.
        attention_mask: `[B or 1, heads or 1, L or 1, L]`: a bool mask, true where attended; a float mask, added to
            the scores; or `None` to attend everywhere.
        dropout: Probability of dropping an attention weight.
        scaling: Factor of the scores, `D ** -0.5` by default.

    Returns:
        The output `[B, L, heads, D]`, and `None` instead of attention weights.
    """
    additive = attention_mask is not None and attention_mask.dtype != torch.bool
    if query.device.type != "cpu" or module.is_causal or additive or not (dropout or _sdpa_is_slow(query, key)):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    with torch.autocast("cpu", enabled=False):  # softmax computes in float32 and returns the dtype of `scores`
        weights = scores.softmax(-1)
        if dropout:
            weights = cpu_dropout(weights, dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _sdpa_is_slow(query: Tensor, key: Tensor) -> bool:
    if key.shape[2] >= SHORT:
        return False
    if query.dtype == torch.bfloat16:
        return query.requires_grad
    return query.dtype == torch.float32 and _lowers_float32()


@torch.compiler.assume_constant_result  # torch.compile would break the graph at this call
def _lowers_float32() -> bool:
    return torch.get_float32_matmul_precision() != "highest"


AttentionInterface.register(CPU_ATTENTION, cpu_attention)
AttentionMaskInterface.register(CPU_ATTENTION, sdpa_mask)


def use_cpu_attention(model: nn.Module) -> None:
    """Sets [`cpu_attention`] as the attention of every BERT and RoBERTa in `model` that uses SDPA.

    `save_pretrained` does not write this setting. A pickled module contains it and needs this package to run.
    """
    for module in list(model.modules()):
        if not isinstance(module, PreTrainedModel) or module.config.model_type not in ("bert", "roberta"):
            continue
        if module.config._attn_implementation == "sdpa":
            module.set_attn_implementation(CPU_ATTENTION)
