"""The objectives: what a student learns from a teacher's token states, and how video and text are contrasted.

Shapes: B sequences, L tokens, Ds and Dt the widths of student and teacher states, H the width of the teacher.

A distillation objective returns a scalar, applies only its own formula, has no parameters, and computes in float32 or
better with autocast off. `mean_over` names what the scalar is a mean over, so that a trainer can weigh micro-batches
exactly. `needs` says what it compares, and so what the teacher computes:

- `{"hidden"}`: `loss(student_states [B, L, Ds], teacher_states [B, L, Dt], mask [B, L])`, unit vectors per token
  ([`VidLanKDStudent`] normalises both sides once). `mask` is the attention mask: special tokens count, padding changes
  nothing. `same_width` says whether Ds must be Dt.
- `{"logits"}`: `loss(student_logits [B, M, V], teacher_logits [B, M, V], mask [B, M])`, at the masked positions, which
  are where `mask` is true.
- `{"vokens"}`: `loss(voken_logits [B, L, K], voken_ids [B, L])`, of the student's own head over K vokens; no teacher.

A `contrastive` one also takes `others`, the (teacher_states, mask) of other processes, as further negatives.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _precise(*states: Tensor) -> list[Tensor]:
    return [s.to(torch.promote_types(s.dtype, torch.float32)) for s in states]


def _token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values [B, L]` over the tokens where `mask [B, L]` is true; 0 where there is none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _same_position_similarities(
    student: Tensor, teacher: Tensor, mask: Tensor, others: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Similarity of each student token with the teacher's token at its position in every sequence, then in `others`.

    Returns:
        similarities `[B, L, C]`: `[b, i, c]` is student token i of sequence b . teacher token i of sequence c.
        candidates `[B, L, C]` bool: where both tokens are real.
    """
    real = mask.bool()
    everywhere, there = teacher, real
    if others is not None:
        everywhere, there = torch.cat([teacher, *_precise(others[0])]), torch.cat([real, others[1].bool()])
    if len(everywhere) < 2:
        raise ValueError(
            "a contrastive objective needs negatives from other sequences, but the batch holds 1 sequence: "
            "use a batch size of 2 or more"
        )
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"a contrastive objective compares states of one width, but the student's have {student.shape[-1]} "
            f"features and the teacher's {teacher.shape[-1]}: keep the student's distillation head"
        )
    similarities = torch.einsum("bld,cld->blc", student, everywhere)
    return similarities, real[:, :, None] & there.T[None]


class NSTLoss(nn.Module):
    r"""Neuron selectivity transfer: match *which tokens* the neurons respond to.

    The squared maximum mean discrepancy, with kernel (x.y)^2, between the sets of the two models' neurons, each neuron
    being its L2-normalised activations over the tokens of a sequence (`s_i`, `t_j` in R^L):

        L = mean_{i,i'} (s_i.s_i')^2 - 2 mean_{i,j} (s_i.t_j)^2 + mean_{j,j'} (t_j.t_j')^2

    With A the L x D matrix of normalised activations this is exactly `|A_s A_s^T / Ds - A_t A_t^T / Dt|_F^2`, which
    needs no D x D matrix and lets the widths differ. It is >= 0, and 0 when the neurons' patterns agree.

    Why over tokens: a neuron is described by what it selects in the input, and that description can be compared
    between networks whose neurons have nothing else in common.

    Args:
        axis: `"neurons"` compares neurons over tokens, as above. `"tokens"`, for an ablation, compares the sets of
            tokens over neurons, each token being its states in R^D (so Ds must be Dt), with means over real tokens.

    Scale: about 0.1 at the start, falling to 0.01; a mean over sequences. At the weight of 1 it is next to nothing
    beside the MLM loss (about 6): see docs/objectives.md for measured weights.

    Source: Huang and Wang 2017 (arXiv 1707.01219), eq. 6; VidLanKD (arXiv 2107.02681), section 3.3.
    """

    mean_over = "sequences"
    needs = frozenset({"hidden"})

    def __init__(self, axis: str = "neurons"):
        super().__init__()
        if axis not in ("neurons", "tokens"):
            raise ValueError(f"axis must be 'neurons' or 'tokens', not {axis!r}")
        self.axis = axis

    @property
    def same_width(self) -> bool:
        return self.axis == "tokens"

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
        student, teacher = _precise(student_states, teacher_states)
        real = mask.bool()[:, :, None]
        if self.axis == "tokens":
            student, teacher = student.masked_fill(~real, 0), teacher.masked_fill(~real, 0)
            ss, st, tt = (
                (x @ y.transpose(1, 2)).square().sum((1, 2))
                for x, y in ((student, student), (student, teacher), (teacher, teacher))
            )
            return ((ss - 2 * st + tt) / real.sum((1, 2)).clamp(min=1).square()).mean()
        kernels = []
        for states in (student, teacher):
            activations = F.normalize(states.masked_fill(~real, 0), dim=1)
            kernels.append(activations @ activations.transpose(1, 2) / states.shape[-1])
        return (kernels[0] - kernels[1]).square().sum((1, 2)).mean()


class CRDLoss(nn.Module):
    r"""Contrastive representation distillation: tell the teacher's state of this token from those of others.

    With `h(s, t) = e^{s.t/tau} / (e^{s.t/tau} + N/M)`:  `L = -log h(s, t+) - sum_{t-} log(1 - h(s, t-))`, a mean over
    real tokens. The negatives t- are the teacher's tokens at the same position of the other sequences of the batch.
    Stably: z = s.t/tau - log(N/M), `L = softplus(-z+) + sum softplus(z-)`.

    Args:
        temperature: tau.
        noise_ratio: N/M, the number of negatives over the size of the set they are drawn from. It decides: with M the
            size of the data set, as in image CRD, nothing is learned from in-batch negatives; 1.0 works.

    Scale: grows with the number of sequences in the batch (a sum over negatives). Negatives come from the
    micro-batch (and from `others`), so the loss depends on its size.

    Source: Tian, Krishnan and Isola, ICLR 2020 (arXiv 1910.10699), eq. 9 and 10; VidLanKD, section 3.3.
    """

    mean_over, needs, same_width, contrastive = "tokens", frozenset({"hidden"}), True, True

    def __init__(self, temperature: float = 0.07, noise_ratio: float = 1.0):
        super().__init__()
        self.temperature, self.noise_ratio = (
            _positive("temperature", temperature),
            _positive("noise_ratio", noise_ratio),
        )

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor, others=None) -> Tensor:
        student, teacher = _precise(student_states, teacher_states)
        similarities, candidates = _same_position_similarities(student, teacher, mask, others)
        z = similarities / self.temperature - math.log(self.noise_ratio)
        positive = torch.eye(len(z), z.shape[-1], dtype=torch.bool, device=z.device)[:, None]
        terms = F.softplus(torch.where(positive, -z, z))
        return _token_mean((terms * candidates).sum(-1), mask)


class InfoNCELoss(nn.Module):
    r"""Softmax contrast over CRD's candidates: `-log e^{s.t+/tau} / sum_t e^{s.t/tau}`, a mean over real tokens.

    Args:
        temperature: tau.

    Scale: log of the batch size at chance, 0 at best. Negatives come from the micro-batch.

    Source: van den Oord et al. 2018 (arXiv 1807.03748), eq. 4.
    """

    mean_over, needs, same_width, contrastive = "tokens", frozenset({"hidden"}), True, True

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = _positive("temperature", temperature)

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor, others=None) -> Tensor:
        student, teacher = _precise(student_states, teacher_states)
        similarities, candidates = _same_position_similarities(student, teacher, mask, others)
        return _token_mean(_diagonal_cross_entropy(similarities / self.temperature, candidates), mask)


class RegressionLoss(nn.Module):
    r"""Squared L2 distance `|s - t|^2` (summed over features) of each token's states, a mean over real tokens.

    Scale: 2 for unrelated unit vectors, 0 at best.

    Source: VidLanKD, section 5.2 (the regression objective of table 4); Romero et al. 2015 (FitNets, eq. 3).
    """

    mean_over, needs, same_width = "tokens", frozenset({"hidden"}), True

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
        student, teacher = _precise(student_states, teacher_states)
        if student.shape[-1] != teacher.shape[-1]:
            raise ValueError(
                f"regression compares states of one width, but the student's have {student.shape[-1]} features and "
                f"the teacher's {teacher.shape[-1]}: keep the student's distillation head"
            )
        return _token_mean((student - teacher).square().sum(-1), mask)


class SoftLabelLoss(nn.Module):
    r"""Match the teacher's predictions: `T^2 KL(softmax(t/T) || softmax(s/T))`, a mean over masked tokens.

    At the masked positions only, where the student's language-model head runs anyway; it needs no head of its own.

    Args:
        temperature: T. The factor T^2 keeps the size of the gradients.

    Scale: 0 where the predictions agree; of the size of the MLM loss at first.

    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2; VidLanKD, section 5.2 (table 4).
    """

    mean_over, needs = "masked_tokens", frozenset({"logits"})

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        self.temperature = _positive("temperature", temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> Tensor:
        student, teacher = (
            F.log_softmax(logits / self.temperature, dim=-1) for logits in _precise(student_logits, teacher_logits)
        )
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
        return self.temperature**2 * _token_mean(divergence, mask)


class VokenLoss(nn.Module):
    r"""Voken classification: `-log softmax(z_i)[v_i]`, v_i the clip (of K) nearest to token i, a mean over tokens.

    Every ordinary token has a voken, masked or not; ids are -100 where there is none. The student's own head gives z.
    What a voken cannot tell apart is lost: the paper's argument for distilling states instead.

    Args:
        num_vokens: K, the number of clips; 50,000 images in Vokenization.

    Scale: log K at chance.

    Source: Tan and Bansal, EMNLP 2020 (arXiv 2010.06775), section 3.1; VidLanKD, section 5.2 (table 4).
    """

    mean_over, needs = "vokens", frozenset({"vokens"})

    def __init__(self, num_vokens: int = 50_000):
        super().__init__()
        if num_vokens < 2:
            raise ValueError(f"num_vokens must be 2 or more, not {num_vokens!r}")
        self.num_vokens = num_vokens

    def forward(self, voken_logits: Tensor, voken_ids: Tensor) -> Tensor:
        (logits,) = _precise(voken_logits)
        total = F.cross_entropy(logits.flatten(0, 1), voken_ids.flatten(), ignore_index=-100, reduction="sum")
        return total / (voken_ids != -100).sum().clamp(min=1)


OBJECTIVES = {
    "nst": NSTLoss,
    "crd": CRDLoss,
    "infonce": InfoNCELoss,
    "regression": RegressionLoss,
    "soft_label": SoftLabelLoss,
    "voken": VokenLoss,
}


class VideoTextContrast(nn.Module):
    r"""Contrast of every real token h_i of a sentence with clips v, s(h_i, v) = h_i . v (both unit vectors).

    `kind` is one of
    - `"hinge"`, the paper's: with one unpaired clip v' and one unpaired sentence x', those of the next sample of
      another video, `sum_i max(0, a - s(h_i, v) + s(h_i, v')) + max(0, a - s(h_i, v) + s(h'_i, v))`;
    - `"hinge_batch"`: each hinge averaged over every sample of another video in the batch;
    - `"infonce"`: cross-entropy of v among the clips of the batch, plus that of h_i among the tokens at position i.

    Samples of the same video are never each other's negative. The sentence terms exist where both sentences have a
    real token i. A mean over real tokens. No other video in the batch is an error, raised by the collator, which
    knows it without waiting for the device.

    Source: VidLanKD (arXiv 2107.02681), eq. 1 (`hinge`, margin 1).
    """

    def __init__(self, kind: str = "infonce", margin: float = 1.0, temperature: float = 0.1):
        super().__init__()
        self.kind, self.margin, self.temperature = kind, margin, _positive("temperature", temperature)

    def forward(self, token_states: Tensor, video_states: Tensor, mask: Tensor, video_ids: Tensor) -> Tensor:
        """Loss of `token_states [B, L, H]` and `video_states [B, H]`, with `mask [B, L]` and `video_ids [B]`."""
        tokens, videos = _precise(token_states, video_states)
        similarities = torch.einsum("blh,ch->blc", tokens, videos)  # token i of sentence b with clip c
        sentence_similarities = similarities.permute(2, 1, 0)  # clip b with token i of sentence c
        other = video_ids[:, None] != video_ids[None]
        real = mask.bool()
        clip_negatives = other[:, None].expand_as(similarities)
        sentence_negatives = other[:, None] & real.T[None]

        if self.kind == "infonce":
            itself = torch.eye(len(videos), dtype=torch.bool, device=videos.device)[:, None]
            clip_loss = _diagonal_cross_entropy(similarities / self.temperature, clip_negatives | itself)
            sentence_loss = _diagonal_cross_entropy(
                sentence_similarities / self.temperature, sentence_negatives | (itself & real[:, :, None])
            )
            return _token_mean(clip_loss + sentence_loss, mask)

        if self.kind == "hinge":
            next_other = _next_of_another_video(other)
            clip_negatives = clip_negatives & next_other[:, None]
            sentence_negatives = sentence_negatives & next_other[:, None]
        paired = torch.diagonal(similarities, dim1=0, dim2=2).T[..., None]
        clip_hinge = F.relu(self.margin - paired + similarities)
        sentence_hinge = F.relu(self.margin - paired + sentence_similarities)
        return _token_mean(
            _mean_where(clip_hinge, clip_negatives) + _mean_where(sentence_hinge, sentence_negatives), mask
        )


def _diagonal_cross_entropy(logits: Tensor, candidates: Tensor) -> Tensor:
    """Cross-entropy `[B, L]` of candidate b for row b of `logits [B, L, C]`, over `candidates` only."""
    logits = logits.masked_fill(~candidates, torch.finfo(logits.dtype).min)
    return torch.logsumexp(logits, dim=-1) - torch.diagonal(logits, dim1=0, dim2=2).T


def _next_of_another_video(other: Tensor) -> Tensor:
    """`[B, B]` bool: for each sample, the first of the samples after it (cyclically) that is of another video."""
    size = len(other)
    distance = (
        torch.arange(size, device=other.device)[None] - torch.arange(size, device=other.device)[:, None]
    ) % size
    distance = distance.masked_fill(~other, size)
    return (distance == distance.amin(dim=1, keepdim=True)) & other


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum(-1) / where.sum(-1).clamp(min=1)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return float(value)
