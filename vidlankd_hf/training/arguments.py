"""`TrainingArguments` that the teacher's and the student's training share."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..reliability.arguments import FaultTolerantArguments
from ..reliability.trainer_options import REFUSED, Refused

MATMUL_PRECISIONS = ("highest", "high", "medium")


@dataclass
class PretrainingArguments(FaultTolerantArguments):
    """[`FaultTolerantArguments`] with the defaults for pre-training on video and text.

    Args:
        mlm_probability: Share of the ordinary tokens of a sequence that is masked, strictly between 0 and 1.
        matmul_precision: `torch.set_float32_matmul_precision`: "highest" is full float32; "high" and "medium" allow
            TF32 on GPUs, bfloat16 on CPUs with AMX and faster float32 kernels on other CPUs.

    Raises:
        ValueError: For a value out of range, or an option that is refused.
    """

    refused: ClassVar[dict[str, Refused]] = {
        **REFUSED,
        "tf32": Refused(None, "give --matmul_precision high or highest, which sets it"),
        "eval_accumulation_steps": Refused(
            None, "evaluation keeps its results on the device; if memory runs out, lower --per_device_eval_batch_size"
        ),
    }

    mlm_probability: float = field(
        default=0.15,
        metadata={"help": "Share of the ordinary tokens of a sequence that is masked, strictly between 0 and 1."},
    )
    matmul_precision: str = field(
        default="highest",
        metadata={
            "help": "Precision of float32 matrix products: highest, high or medium (TF32 on GPUs, bf16 on AMX CPUs)."
        },
    )
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of AdamW; the paper's 1e-6."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW; the paper's 0.01."})
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Gradients are clipped to this norm; the paper's 1.0."}
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability is {self.mlm_probability}: give a share between 0 and 1, such as 0.15")
        if self.matmul_precision not in MATMUL_PRECISIONS:
            raise ValueError(
                f"matmul_precision is {self.matmul_precision!r}: choose one of {', '.join(MATMUL_PRECISIONS)}"
            )
