"""Distillation objectives: the losses with which a student learns from a teacher.

Dimensions: B sequences, L tokens, M masked positions, Ds and Dt widths of student and teacher states, V vocabulary.
With a teacher that has another tokenizer, segments of the text take the place of tokens (see segments.py).

A distillation objective is a module without parameters that returns a scalar, computed in float32 or better with
autocast off. Its class attributes tell the student and the trainer how to use it:

- `needs`: what it compares, and thus what the teacher computes.
    - `{"hidden"}`: `loss(student_states [B, L, Ds], teacher_states [B, L, Dt], mask [B, L])`. The states are unit
      vectors for each token ([`VidLanKDStudent`] normalizes both sides). `mask` is the attention mask: special tokens
      are included, padding changes neither value nor gradient.
    - `{"logits"}`: `loss(student_logits [B, M, V], teacher_logits [B, M, V], mask [B, M])`, where `mask` is true for
      the masked positions and false for unused slots.
    - `{"vokens"}`: `loss(voken_logits [B, L, K], voken_ids [B, L])`, from the student's head over K vokens.
- `mean_over`: what the scalar is a mean over, so that the trainer can weight micro-batches exactly.
- `same_width`: whether Ds must equal Dt (for `{"hidden"}`).
- `contrastive`: whether the loss takes a fourth argument `others`: the `(teacher_states, mask)` of other processes,
  which are used as further negatives.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def at_least_float32(*states: Tensor) -> list[Tensor]:
    """Converts bfloat16 and float16 to float32."""
    return [s.to(torch.promote_types(s.dtype, torch.float32)) for s in states]


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values [B, L]` over the tokens where `mask [B, L]` is true; 0 if there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def diagonal_cross_entropy(logits: Tensor, candidates: Tensor) -> Tensor:
    """Cross-entropy `[B, L]` of `logits [B, L, C]` with class b for row b, over the classes in `candidates` only."""
    logits = logits.masked_fill(~candidates, torch.finfo(logits.dtype).min)
    return torch.logsumexp(logits, dim=-1) - torch.diagonal(logits, dim1=0, dim2=2).T


def positive(name: str, value: float) -> float:
    """Returns `value`, or raises a `ValueError` if it is not greater than 0."""
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}")
    return float(value)


def _check_equal_width(what: str, student: Tensor, teacher: Tensor) -> None:
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"{what} compares states of equal width, but the student's have {student.shape[-1]} features and the "
            f"teacher's {teacher.shape[-1]}: use the student's distillation head"
        )


def _same_position_similarities(
    student: Tensor, teacher: Tensor, mask: Tensor, others: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Compares each student token with the teacher's tokens at the same position of all C sequences.

    Returns:
        similarities: `[B, L, C]`; `[b, i, c]` is the dot product of student token i of sequence b and teacher token i
            of sequence c. The B sequences of the batch come first, then those of `others`.
        candidates: `[B, L, C]` bool, true where both tokens are real.
    """
    real = mask.bool()
    all_teacher, all_real = teacher, real
    if others is not None:
        all_teacher, all_real = torch.cat([teacher, *at_least_float32(others[0])]), torch.cat([real, others[1].bool()])
    if len(all_teacher) < 2:
        raise ValueError(
            "a contrastive objective takes its negatives from other sequences, but the batch has only 1 sequence: "
            "use a batch size of 2 or more"
        )
    _check_equal_width("a contrastive objective", student, teacher)
    similarities = torch.einsum("bld,cld->blc", student, all_teacher)
    return similarities, real[:, :, None] & all_real.T[None]


class NSTLoss(nn.Module):
    r"""Neuron Selectivity Transfer (NST): matches *which tokens* the neurons of the two models respond to.

    The loss is the squared maximum mean discrepancy, with the kernel (x.y)^2, between the two models' sets of neurons.
    A neuron is represented by its L2-normalized activations over the tokens of a sequence (`s_i`, `t_j` in R^L):

        L = mean_{i,i'} (s_i.s_i')^2 - 2 mean_{i,j} (s_i.t_j)^2 + mean_{j,j'} (t_j.t_j')^2

    This equals `|A_s A_s^T / Ds - A_t A_t^T / Dt|_F^2`, where A is the L x D matrix of normalized activations. That
    form needs no D x D matrix, and the widths may differ. The loss is 0 if the neurons respond to the same tokens.

    Args:
        axis: `"neurons"`, the paper's, compares the sets of neurons, as above: it matches which tokens are alike,
            whatever the directions of their states. `"tokens"` compares the sets of token states: it matches these
            directions, and needs Ds = Dt. With S and T for the L x D matrices of states, the loss is then
            `|S^T S - T^T T|_F^2 / L^2`.

    Shapes: student states `[B, L, Ds]`, teacher states `[B, L, Dt]`, mask `[B, L]`; a mean over sequences.

    Scale: over neurons, about 0.1 at the start, later 0.01. With weight 1 it is negligible compared to the MLM loss
    (about 6); see docs/objectives.md for weights that work. Over tokens, about 0.5 at the start, later 0.1.

    Source: Huang and Wang, 2017 (arXiv 1707.01219), eq. 6; VidLanKD (arXiv 2107.02681), section 3.3.

    Example:

        student.add_objectives({"nst": 1000.0}, teacher_hidden_size=768)
    """

    mean_over = "sequences"
    needs = frozenset({"hidden"})

    def __init__(self, axis: str = "neurons"):
        super().__init__()
        if axis not in ("neurons", "tokens"):
            raise ValueError(f"axis must be 'neurons' or 'tokens', got {axis!r}")
        self.axis = axis

    @property
    def same_width(self) -> bool:
        """Whether Ds must equal Dt."""
        return self.axis == "tokens"

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
        student, teacher = at_least_float32(student_states, teacher_states)
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
    r"""Contrastive Representation Distillation (CRD): classifies pairs of states as same token or different token.

    With `h(s, t) = e^{s.t/tau} / (e^{s.t/tau} + N/M)`, the loss of a token is

        L = -log h(s, t+) - sum_{t-} log(1 - h(s, t-))

    The positive t+ is the teacher's state of the same token. The negatives t- are the teacher's states at the same
    position of the other sequences. Computed as `softplus(-z+) + sum softplus(z-)` with `z = s.t/tau - log(N/M)`.

    Args:
        temperature: tau.
        noise_ratio: N/M, the number of negatives divided by the size of the set that they are drawn from. Keep it near
            1. If M is the size of the data set, as in CRD for images, in-batch negatives give no learning signal.

    Shapes: student and teacher states `[B, L, D]`, mask `[B, L]`; a mean over real tokens.

    Scale: grows with the number of sequences in the micro-batch (and in `others`), since it is a sum over negatives.

    Source: Tian, Krishnan and Isola, ICLR 2020 (arXiv 1910.10699), eq. 9 and 10; VidLanKD, section 3.3.

    Example:

        student.add_objectives({"crd": {"weight": 1.0, "temperature": 0.1}}, teacher_hidden_size=768)
    """

    mean_over, needs, same_width, contrastive = "tokens", frozenset({"hidden"}), True, True

    def __init__(self, temperature: float = 0.07, noise_ratio: float = 1.0):
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.noise_ratio = positive("noise_ratio", noise_ratio)

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor, others=None) -> Tensor:
        student, teacher = at_least_float32(student_states, teacher_states)
        similarities, candidates = _same_position_similarities(student, teacher, mask, others)
        z = similarities / self.temperature - math.log(self.noise_ratio)
        positive = torch.eye(len(z), z.shape[-1], dtype=torch.bool, device=z.device)[:, None]
        terms = F.softplus(torch.where(positive, -z, z))
        return token_mean((terms * candidates).sum(-1), mask)


class InfoNCELoss(nn.Module):
    r"""InfoNCE, a softmax contrast: classifies which of the teacher's states belongs to the same token.

        L = -log(e^{s.t+/tau} / sum_t e^{s.t/tau})

    The candidates t are those of [`CRDLoss`]: the positive t+ and all negatives.

    Args:
        temperature: tau.

    Shapes: student and teacher states `[B, L, D]`, mask `[B, L]`; a mean over real tokens.

    Scale: log of the number of sequences at chance, 0 at best.

    Source: van den Oord, Li and Vinyals, 2018 (arXiv 1807.03748), eq. 4.

    Example:

        student.add_objectives({"infonce": 1.0}, teacher_hidden_size=768)
    """

    mean_over, needs, same_width, contrastive = "tokens", frozenset({"hidden"}), True, True

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor, others=None) -> Tensor:
        student, teacher = at_least_float32(student_states, teacher_states)
        similarities, candidates = _same_position_similarities(student, teacher, mask, others)
        return token_mean(diagonal_cross_entropy(similarities / self.temperature, candidates), mask)


class RegressionLoss(nn.Module):
    r"""Squared L2 distance `|s - t|^2` between the two models' states of a token, summed over features.

    Shapes: student and teacher states `[B, L, D]`, mask `[B, L]`; a mean over real tokens.

    Scale: 2 for unrelated unit vectors, 0 at best.

    Source: Romero et al., 2015 (FitNets, arXiv 1412.6550), eq. 3; VidLanKD, section 5.2 (table 4).

    Example:

        student.add_objectives({"regression": 1.0}, teacher_hidden_size=768)
    """

    mean_over, needs, same_width = "tokens", frozenset({"hidden"}), True

    def forward(self, student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
        student, teacher = at_least_float32(student_states, teacher_states)
        _check_equal_width("regression", student, teacher)
        return token_mean((student - teacher).square().sum(-1), mask)


class SoftLabelLoss(nn.Module):
    r"""Matches the teacher's predictions of masked tokens: `T^2 KL(softmax(t/T) || softmax(s/T))`.

    Compares the logits of the two MLM heads, so it adds no distillation head.

    Args:
        temperature: T. The factor T^2 keeps the magnitude of the gradients.

    Shapes: student and teacher logits `[B, M, V]`, mask `[B, M]`; a mean over masked tokens.

    Scale: comparable to the MLM loss at the start, 0 if the predictions agree.

    Source: Hinton, Vinyals and Dean, 2015 (arXiv 1503.02531), section 2; VidLanKD, section 5.2 (table 4).

    Example:

        student.add_objectives({"soft_label": {"weight": 1.0, "temperature": 2.0}})
    """

    mean_over, needs = "masked_tokens", frozenset({"logits"})

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> Tensor:
        student, teacher = (
            F.log_softmax(logits / self.temperature, dim=-1)
            for logits in at_least_float32(student_logits, teacher_logits)
        )
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
        return self.temperature**2 * token_mean(divergence, mask)


class VokenLoss(nn.Module):
    r"""Voken classification: `-log softmax(z_i)[v_i]`, where the voken v_i is the clip (of K) nearest to token i.

    The student predicts the voken of every token, masked or not, with a [`VokenHead`].

    Args:
        num_vokens: K, the number of clips (50,000 images in Vokenization).

    Shapes: logits z `[B, L, K]`, voken ids `[B, L]` (-100 for tokens without a voken); a mean over vokens.

    Scale: log K at chance.

    Source: Tan and Bansal, EMNLP 2020 (arXiv 2010.06775), section 3.1; VidLanKD, section 5.2 (table 4).

    Example:

        student.add_objectives({"voken": {"weight": 1.0, "num_vokens": 1000}})
    """

    mean_over, needs = "vokens", frozenset({"vokens"})

    def __init__(self, num_vokens: int = 50_000):
        super().__init__()
        if num_vokens < 2:
            raise ValueError(f"num_vokens must be 2 or more, got {num_vokens!r}")
        self.num_vokens = num_vokens

    def forward(self, voken_logits: Tensor, voken_ids: Tensor) -> Tensor:
        (logits,) = at_least_float32(voken_logits)
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
