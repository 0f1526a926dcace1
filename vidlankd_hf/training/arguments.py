"""`TrainingArguments` that the teacher's and the student's training share."""

from dataclasses import dataclass, field

from ..reliability.arguments import FaultTolerantArguments

MATMUL_PRECISIONS = ("highest", "high", "medium")


@dataclass
class PretrainingArguments(FaultTolerantArguments):
    """[`FaultTolerantArguments`] with the defaults that pre-training on video and text needs.

    Args:
        mlm_probability: Share of a sequence's ordinary tokens that is masked.
        matmul_precision: `torch.set_float32_matmul_precision`: "highest" is full float32; "high" and "medium" allow
            TF32 on GPUs, bfloat16 on CPUs with AMX and faster float32 kernels on other CPUs.
    """

    mlm_probability: float = field(
        default=0.15,
        metadata={"help": "Share of a sequence's ordinary tokens that is masked, strictly between 0 and 1."},
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
