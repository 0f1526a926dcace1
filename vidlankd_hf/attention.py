"""Attention masks that are made without waiting for the device."""

from torch import Tensor
from transformers import PreTrainedConfig


def key_mask(attention_mask: Tensor | None, config: PreTrainedConfig) -> Tensor | None:
    """`attention_mask [B, L]` as the `[B, 1, 1, L]` that SDPA takes; `None`, for nothing padded, stays `None`.

    Given `[B, L]`, transformers looks whether anything is padded, and the host waits for the device in every forward
    pass. Models other than BERT (some attend locally) and other attention implementations get what they expect.
    """
    if attention_mask is None or config.model_type != "bert" or config._attn_implementation != "sdpa":
        return attention_mask
    return attention_mask.bool()[:, None, None]
