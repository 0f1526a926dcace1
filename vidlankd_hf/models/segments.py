"""Pools token states to segments, the smallest pieces of a text whose boundaries are token boundaries in both models.

Student and teacher divide a text into different tokens. The states of both are pooled to the segments, `[B, S, D]`,
so that every objective on token states applies to them. This takes one batched product: no loop over segments, no wait
for the device, and the same result in every run.
"""

import torch
from torch import Tensor


def pooling_weights(segments: Tensor, count: int, last: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    """Computes the weight of each token in each segment.

    Args:
        segments: `[B, L]`, the segment of each token, -1 for none.
        count: S, the number of segments.
        last: Whether only the last token of a segment has a weight, instead of all tokens the same one.
        dtype: Dtype of the weights.

    Returns:
        `[B, S, L]`. The weights of a segment sum to 1; those of a segment without tokens are 0.
    """
    inside = segments[:, None] == torch.arange(count, device=segments.device)[:, None]
    if last:
        positions = torch.arange(segments.shape[1], device=segments.device)
        inside &= positions == positions.where(inside, -1).amax(-1, keepdim=True)
    return inside.to(dtype) / inside.sum(-1, keepdim=True).clamp(min=1)


def pool(states: Tensor, segments: Tensor, count: int, last: bool = False) -> Tensor:
    """Pools token states to segments, in float32 or better.

    Args:
        states: `[B, L, D]`, finite.
        segments: `[B, L]`, the segment of each token, -1 for none.
        count: S, the number of segments.
        last: Take the state of a segment's last token, instead of the mean over its tokens.

    Returns:
        `[B, S, D]`, zeros for segments without tokens.
    """
    dtype = torch.promote_types(states.dtype, torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        return pooling_weights(segments, count, last, dtype) @ states.to(dtype)


def pool_windows(states: Tensor, positions: Tensor, segments: Tensor, count: int, last: bool = False) -> Tensor:
    """Pools the states of a teacher that read each text in one or several windows.

    Args:
        states: `[W, Lt, D]`, the states of all windows of all texts.
        positions: `[B, T]`, indices of each text's tokens in the flattened `[W * Lt]`; any index in unused slots.
        segments: `[B, T]`, the segment of each of these tokens, -1 for none and in unused slots.
        count: S, the number of segments.
        last: As in [`pool`].

    Returns:
        `[B, S, D]`, zeros for segments without tokens.
    """
    return pool(states.flatten(0, 1)[positions], segments, count, last)
