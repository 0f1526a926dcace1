"""`TrainingArguments` that the teacher's and the student's training share."""

from dataclasses import dataclass
from typing import ClassVar

from transformers.hf_argparser import HfArg

from ..reliability.arguments import FaultTolerantArguments
from ..reliability.trainer_options import REFUSED, Refused
from ..utils.messages import nearest

MATMUL_PRECISIONS = ("highest", "high", "medium")


@dataclass
class PretrainingArguments(FaultTolerantArguments):
    """[`FaultTolerantArguments`] with the defaults for pre-training on video and text.

    Args:
        mlm_probability: Share of the ordinary tokens of a sequence that is masked, strictly between 0 and 1.
        matmul_precision: `torch.set_float32_matmul_precision`: "highest" is full float32; "high" and "medium" allow
            TF32 on GPUs, bfloat16 on CPUs with AMX and faster float32 kernels on other CPUs.

    Raises:
        ValueError: A value is out of range, or an option is refused.
    """

    refused: ClassVar[dict[str, Refused]] = {
        **REFUSED,
        "tf32": Refused(None, "give --matmul_precision high or highest, which sets it"),
        "eval_accumulation_steps": Refused(
            None, "evaluation keeps its results on the device; if memory runs out, lower --per_device_eval_batch_size"
        ),
    }

    mlm_probability: float = HfArg(default=0.15, help="share of a sequence's ordinary tokens that is masked")
    matmul_precision: str = HfArg(
        default="highest",
        help="precision of float32 matrix products: highest, high or medium (TF32 on GPUs, bf16 on AMX CPUs)",
    )
    adam_epsilon: float = HfArg(default=1e-6, help="Epsilon of AdamW; the paper's 1e-6.")
    weight_decay: float = HfArg(default=0.01, help="Weight decay of AdamW; the paper's 0.01.")
    max_grad_norm: float = HfArg(default=1.0, help="Gradients are clipped to this norm; the paper's 1.0.")

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability is {self.mlm_probability}: give a share between 0 and 1, such as 0.15")
        if self.matmul_precision not in MATMUL_PRECISIONS:
            raise ValueError(
                f"matmul_precision is {self.matmul_precision!r}: choose one of "
                f"{', '.join(MATMUL_PRECISIONS)}{nearest(self.matmul_precision, MATMUL_PRECISIONS)}"
            )
