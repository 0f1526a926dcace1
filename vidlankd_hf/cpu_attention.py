"""Attention on CPUs, where torch's SDPA is slow with dropout, and for short sequences in low precision."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .attention import CPU_ATTENTION
from .dropout import cpu_dropout

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
