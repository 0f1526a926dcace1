"""`TrainingArguments` of a [`FaultTolerantTrainer`]."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from .launch import check_launch, requested_launch


@dataclass
class FaultTolerantArguments(TrainingArguments):
    """`TrainingArguments` of a [`FaultTolerantTrainer`]; also checks that the launch is what was asked for.

    Args:
        preempt_exit_code: What a process exits with after SIGTERM or SIGUSR1 to any process, once it saved.
        hang_timeout: Seconds without a step, an evaluation batch or a checkpoint after which a process ends with the
            stacks of its threads on stderr; 0 waits forever.
    """

    preempt_exit_code: int = field(
        default=143, metadata={"help": "Exit code after SIGTERM or SIGUSR1, once a checkpoint was written."}
    )
    hang_timeout: float = field(
        default=1800.0,
        metadata={"help": "Seconds without a step after which a process ends and shows its stacks; 0: never."},
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the collators read columns that the model does not."}
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "False: a loss that is not finite is logged as it is, and no step waits for it."},
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available,
        metadata={"help": "Pin batches in memory; default: where there is a GPU."},
    )
    accelerator_config: dict | str | None = field(
        default_factory=lambda: {"non_blocking": True} if torch.cuda.is_available() else None,
        metadata={"help": "Settings of accelerate as JSON; default: batches are copied to a GPU without waiting."},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "False: every parameter is used in every step."}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "Must stay end: --push_to_hub pushes the finished model, no checkpoints."}
    )

    def __post_init__(self):
        # The launcher tells its processes neither this nor that there is no GPU; they would not know of each other.
        (processes, on_cpu), cpu_given = requested_launch(), self.use_cpu
        self.use_cpu = cpu_given or bool(on_cpu) or not torch.accelerator.is_available()
        super().__post_init__()
        if not 0 <= self.preempt_exit_code <= 255:
            raise ValueError(f"preempt_exit_code is {self.preempt_exit_code}: an exit code is 0 to 255")
        if not self.hang_timeout >= 0:
            raise ValueError(f"hang_timeout is {self.hang_timeout}: give seconds, or 0 to wait forever")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must be false: the collators read columns that the model does not")
        if self.push_to_hub and self.hub_strategy != HubStrategy.END:
            raise ValueError(
                f"hub_strategy is {self.hub_strategy.value!r}, but only 'end' is possible: what is pushed is the "
                "finished model, and a checkpoint is none (a student's holds heads and optimizer). To keep a "
                "checkpoint on the Hub: hf upload REPO OUTPUT_DIR/checkpoint-N checkpoint-N"
            )
        if self.n_gpu > 1:
            raise ValueError(
                f"one process sees {self.n_gpu} GPUs; losses would be wrong under torch.nn.DataParallel: start it "
                "with `accelerate launch`, or choose one GPU with CUDA_VISIBLE_DEVICES=0"
            )
        check_launch(self, processes, on_gpus=on_cpu is False and not cpu_given)
