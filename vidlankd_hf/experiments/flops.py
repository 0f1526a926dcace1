"""Counts the FLOPs of a training step, to compare runs at equal compute."""

from itertools import chain

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..models.student import VidLanKDStudent
from ..models.teacher import VidLanKDTeacher


def step_flops(
    student: VidLanKDStudent,
    teacher: VidLanKDTeacher | None,
    sequences: int,
    length: int,
    mlm_probability: float = 0.15,
) -> int:
    """Counts the FLOPs of a step's matrix products: student forward and backward, teacher forward.

    PyTorch counts from the shapes; nothing is computed and neither model changes.

    Args:
        student: Student with its objectives.
        teacher: Its teacher; `None` if no objective needs one.
        sequences: Sequences per step.
        length: Tokens per sequence, special tokens included.
        mlm_probability: Share of the ordinary tokens that are masked; language-model heads run only there.

    Returns:
        FLOPs per step; a product of `[m, k]` and `[k, n]` counts 2mkn.
    """
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):  # the counter does not support the CPU's fused attention
        input_ids, positions = _text(sequences, length, mlm_probability)
        with FlopCounterMode(display=False) as counter:
            inputs = {"input_ids": input_ids, "masked_positions": positions, "masked_labels": positions}
            if "vokens" in student.needs:
                inputs["voken_ids"] = input_ids
            if student.teacher_needs:
                with torch.no_grad():
                    asked = {"masked_positions": positions} if "logits" in student.teacher_needs else {}
                    output = _call(teacher, {"input_ids": input_ids, **asked})
                inputs |= {"teacher_states": output.last_hidden_state, "teacher_logits": output.get("logits")}
            _call(student, inputs).loss.backward()
    return counter.get_total_flops()


def teacher_step_flops(
    teacher: VidLanKDTeacher, sequences: int, length: int, video_steps: int, mlm_probability: float = 0.15
) -> int:
    """Counts the FLOPs of a training step of a teacher, in the same way.

    Args:
        teacher: The teacher.
        sequences: Windows per step.
        length: Tokens per window, special tokens included.
        video_steps: Video steps per window.
        mlm_probability: As in [`step_flops`].
    """
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):
        input_ids, positions = _text(sequences, length, mlm_probability)
        inputs = {"input_ids": input_ids}
        if "mlm" in teacher.loss_terms:
            inputs |= {"masked_positions": positions, "masked_labels": positions}
        if teacher.video_encoder is not None:
            inputs["video_features"] = torch.zeros(sequences, video_steps, teacher.config.video_config.feature_size)
        with FlopCounterMode(display=False) as counter:
            _call(teacher, inputs).loss.backward()
    return counter.get_total_flops()


def _text(sequences: int, length: int, mlm_probability: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of a step and the positions that are masked."""
    masked = max(1, round(mlm_probability * (length - 2)))
    return torch.zeros(sequences, length, dtype=torch.long), torch.zeros(sequences, masked, dtype=torch.long)


def _call(model: nn.Module, inputs: dict[str, torch.Tensor]):
    """Calls a model with fake tensors instead of its weights."""
    weights = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    return functional_call(model, weights, (), inputs)
