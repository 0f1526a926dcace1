"""What a student's training step computes, so that runs can be compared at equal compute."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
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
    """FLOPs of the matrix products of one training step: student forward and backward, and the teacher's forward.

    Counted by torch on shapes alone; nothing is computed and neither model is changed.

    Args:
        student: With its objectives.
        teacher: `None` where no objective needs one.
        sequences: Sequences a step.
        length: Tokens of each, special ones included.
        mlm_probability: Share of the ordinary tokens at which language-model heads run.
    """
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused attention
        student, teacher = _without_weights(student), _without_weights(teacher)
        input_ids = torch.zeros(sequences, length, dtype=torch.long)
        positions = torch.zeros(sequences, max(1, round(mlm_probability * (length - 2))), dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            inputs = {"input_ids": input_ids, "masked_positions": positions, "masked_labels": positions}
            if "vokens" in student.needs:
                inputs["voken_ids"] = input_ids
            if student.teacher_needs:
                with torch.no_grad():
                    asked = {"masked_positions": positions} if "logits" in student.teacher_needs else {}
                    output = teacher(input_ids=input_ids, **asked)
                inputs |= {"teacher_states": output.last_hidden_state, "teacher_logits": output.get("logits")}
            student(**inputs).loss.backward()
    return counter.get_total_flops()


def _without_weights(model: nn.Module | None) -> nn.Module | None:
    """A model of the same configuration without weights."""
    return None if model is None else type(model)(model.config).train(model.training)
