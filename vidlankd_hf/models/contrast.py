"""The contrastive video-text losses of the teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import at_least_float32, diagonal_cross_entropy, positive, token_mean


class VideoTextContrast(nn.Module):
    r"""Contrastive video-text loss: compares each token of a sentence with its own clip and with other clips.

    With `s(h_i, v) = h_i . v` for token i of a sentence and a clip v, margin a and temperature tau, `kind` selects

    - `"hinge"`: `max(0, a - s(h_i, v) + s(h_i, v')) + max(0, a - s(h_i, v) + s(h'_i, v))`, where v' and h' are clip
      and tokens of the next sample from another video;
    - `"hinge_batch"`: the same two terms, each averaged over all samples from other videos in the batch;
    - `"infonce"`: the cross-entropy (softmax of s/tau) of v among the clips of the batch, plus that of h_i among the
      tokens at position i of all sentences.

    Samples of the same video are never negatives of each other. A sentence without a real token at position i is
    not a negative there. The batch must contain at least two videos; the collator checks this.

    Args:
        kind: `"hinge"`, `"hinge_batch"` or `"infonce"`.
        margin: Margin a of the hinge losses.
        temperature: tau of `"infonce"`.

    Source: VidLanKD (arXiv 2107.02681), eq. 1 (`"hinge"`, margin 1).
    """

    def __init__(self, kind: str = "infonce", margin: float = 1.0, temperature: float = 0.1):
        super().__init__()
        self.kind, self.margin, self.temperature = kind, margin, positive("temperature", temperature)

    def forward(self, token_states: Tensor, video_states: Tensor, mask: Tensor, video_ids: Tensor) -> Tensor:
        """Computes the mean over real tokens.

        Args:
            token_states: Unit vectors `[B, L, J]`.
            video_states: Unit vectors `[B, J]`.
            mask: `[B, L]`, 1 for real tokens.
            video_ids: `[B]`, equal for samples of the same video.
        """
        tokens, videos = at_least_float32(token_states, video_states)
        similarities = torch.einsum("blj,cj->blc", tokens, videos)  # [b, i, c]: token i of sentence b, clip c
        sentence_similarities = similarities.permute(2, 1, 0)  # [b, i, c]: clip b, token i of sentence c
        other = video_ids[:, None] != video_ids[None]
        real = mask.bool()
        clip_negatives = other[:, None].expand_as(similarities)
        sentence_negatives = other[:, None] & real.T[None]

        if self.kind == "infonce":
            itself = torch.eye(len(videos), dtype=torch.bool, device=videos.device)[:, None]
            clip_loss = diagonal_cross_entropy(similarities / self.temperature, clip_negatives | itself)
            sentence_loss = diagonal_cross_entropy(
                sentence_similarities / self.temperature, sentence_negatives | (itself & real[:, :, None])
            )
            return token_mean(clip_loss + sentence_loss, mask)

        if self.kind == "hinge":
            next_other = _next_of_another_video(other)
            clip_negatives = clip_negatives & next_other[:, None]
            sentence_negatives = sentence_negatives & next_other[:, None]
        paired = torch.diagonal(similarities, dim1=0, dim2=2).T[..., None]
        clip_hinge = F.relu(self.margin - paired + similarities)
        sentence_hinge = F.relu(self.margin - paired + sentence_similarities)
        return token_mean(
            _mean_where(clip_hinge, clip_negatives) + _mean_where(sentence_hinge, sentence_negatives), mask
        )


class MILNCEContrast(nn.Module):
    r"""MIL-NCE: contrastive loss of a clip with several texts around it, any of which may describe it.

    Narration often comes before or after what it describes. The texts of the bag P_i around clip v_i are therefore
    positives together, and the loss is small as soon as one of them fits:

        L_i = -log( sum_{t in P_i} e^{s(t, v_i)} / (sum_{t in P_i} e^{s(t, v_i)} + sum_{(t, v) in N_i} e^{s(t, v)}) )

    The negatives N_i are the pairs of clip i with the texts of bags of other videos, and the pairs of the texts of
    P_i with clips of other videos. `s(t, v) = t . v / tau`, where t is the mean of the text's unit token vectors, so
    that `t . v` is the mean similarity of its tokens to the clip. (The paper's embeddings have no fixed norm, and it
    uses no temperature.)

    With one text in each bag, `e^L = e^{L_clip} + e^{L_text} - 1`, where L_clip and L_text are the two terms of
    `"infonce"` for texts of one token: MIL-NCE puts the negatives of both directions into one softmax.

    Args:
        temperature: tau.

    Source: Miech et al., CVPR 2020 (arXiv 1912.06430), eq. 1 and 2.
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def forward(self, text_states: Tensor, video_states: Tensor, mask: Tensor, video_ids: Tensor) -> Tensor:
        """Computes the mean over clips. The order of the texts in a bag has no influence.

        Args:
            text_states: `[B, N, J]`, the vectors of the N texts of each bag.
            video_states: Unit vectors `[B, J]`.
            mask: `[B, N]`, 1 for real texts, at least one in each bag.
            video_ids: `[B]`, equal for samples of the same video.
        """
        texts, videos = at_least_float32(text_states, video_states)
        similarities = torch.einsum("bnj,cj->bnc", texts, videos) / self.temperature  # text n of bag b, clip c
        real, other = mask.bool()[:, :, None], video_ids[:, None] != video_ids[None]
        itself = torch.eye(len(videos), dtype=torch.bool, device=videos.device)
        lowest = torch.finfo(similarities.dtype).min
        positives = torch.diagonal(similarities, dim1=0, dim2=2).T.masked_fill(~mask.bool(), lowest)
        with_clips = similarities.masked_fill(~(real & (other | itself)[:, None]), lowest)
        with_texts = similarities.masked_fill(~(real & other[:, None]), lowest)
        pairs = torch.cat([with_clips.flatten(1), with_texts.permute(2, 0, 1).flatten(1)], dim=1)  # [B, 2 N B]
        return (torch.logsumexp(pairs, dim=1) - torch.logsumexp(positives, dim=1)).mean()


def _next_of_another_video(other: Tensor) -> Tensor:
    """`[B, B]` bool: true for the first sample after each one (cyclically) that is from another video."""
    size = len(other)
    index = torch.arange(size, device=other.device)
    distance = ((index[None] - index[:, None]) % size).masked_fill(~other, size)
    return (distance == distance.amin(dim=1, keepdim=True)) & other


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum(-1) / where.sum(-1).clamp(min=1)
