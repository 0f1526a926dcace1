"""Attention masks that are made without waiting for the device.

How long a sequence an encoder has positions for."""

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

CPU_ATTENTION = "sdpa_cpu"  # takes masks as SDPA does; see cpu_kernels.py


def key_mask(attention_mask: Tensor | None, config: PreTrainedConfig) -> Tensor | dict[str, Tensor] | None:
    """`attention_mask [B, L]` as the `[B, 1, 1, L]` that SDPA takes; `None`, for nothing padded, stays `None`.

    Given `[B, L]`, transformers looks whether anything is padded, and the host waits for the device in every forward
    pass. ModernBERT, some of whose layers attend locally, takes one mask for each kind of layer. Other models and
    other attention implementations get what they expect.
    """
    if attention_mask is None or config._attn_implementation not in ("sdpa", CPU_ATTENTION):
        return attention_mask
    if config.model_type not in ("bert", "roberta", "modernbert"):
        return attention_mask
    everywhere = attention_mask.bool()[:, None, None]
    if config.model_type != "modernbert":
        return everywhere
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    near = (places[:, None] - places).abs() <= config.sliding_window
    return {"full_attention": everywhere, "sliding_attention": everywhere & near}


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Tokens of the longest sequence that `model` reads; `None` if nothing limits it.

    RoBERTa and its kin number their positions from behind the padding token's id.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)
    return limit if limit is None or padding is None else limit - padding - 1
