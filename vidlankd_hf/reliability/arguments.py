"""`TrainingArguments` of a [`FaultTolerantTrainer`]."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import TrainingArguments
from transformers.hf_argparser import HfArg

from .launch import check_launch, fsdp_requested, requested_launch, requested_precision
from .trainer_options import REFUSED, Refused, check_accelerator_config, check_training_arguments


@dataclass
class FaultTolerantArguments(TrainingArguments):
    """`TrainingArguments` of a [`FaultTolerantTrainer`].

    Options that would have no effect are refused (see `vidlankd_hf.reliability.trainer_options`), and so is a launch
    that differs from what was requested.

    Args:
        preempt_exit_code: Exit code of every process after SIGTERM, SIGUSR1 or Ctrl-C to one of them, once a
            checkpoint is saved.
        hang_timeout: Seconds without a step, an evaluation batch or a checkpoint after which a process prints the
            stacks of its threads to stderr and exits; 0 waits forever.
        allow_changed: Names of settings, and of `train_data`, `eval_data`, `tokenizer` and `teacher`, that may differ
            from those of the run that is resumed. All others must be the same.

    Raises:
        ValueError: An option is refused, a value is out of range, or the launch differs from what was requested.
    """

    refused: ClassVar[dict[str, Refused]] = REFUSED

    preempt_exit_code: int = HfArg(
        default=143, help="exit code after SIGTERM, SIGUSR1 or Ctrl-C, once a checkpoint is saved"
    )
    hang_timeout: float = HfArg(
        default=1800.0, help="seconds without progress after which a process prints its stacks and exits; 0: never"
    )
    allow_changed: list[str] | None = HfArg(
        default=None,
        help="settings or parts (train_data, eval_data, tokenizer, teacher) that may differ when resuming; "
        "default: none",
    )
    remove_unused_columns: bool = HfArg(
        default=False, help="Must stay false: the collators read columns that the model does not."
    )
    logging_nan_inf_filter: bool = HfArg(
        default=False, help="False: no step waits for the device; a run stops at a loss that is not finite."
    )
    dataloader_pin_memory: bool = HfArg(
        default_factory=torch.cuda.is_available, help="Pin batches in memory; default: if there is a GPU."
    )
    accelerator_config: dict | str | None = HfArg(
        default_factory=lambda: {"non_blocking": True} if torch.cuda.is_available() else None,
        help="Settings of accelerate as JSON; default: copy batches to the GPU without waiting.",
    )
    ddp_find_unused_parameters: bool | None = HfArg(
        default=False, help="False: every parameter is used in every step."
    )
    hub_strategy: str = HfArg(
        default="end", help="Must stay end: --push_to_hub pushes the finished model, not checkpoints."
    )

    def __post_init__(self):
        check_training_arguments(self, self.refused)
        # The launcher does not tell the processes that there is no GPU; without use_cpu they could not connect.
        (processes, on_cpu), cpu_given = requested_launch(), self.use_cpu
        self.use_cpu = cpu_given or bool(on_cpu) or not torch.accelerator.is_available()
        precision = requested_precision()
        if precision != "no" and not (self.bf16 or self.fp16):
            setattr(self, precision, True)  # otherwise DeepSpeed would find two different answers and refuse them
        super().__post_init__()
        check_accelerator_config(self.accelerator_config)
        if any("\ud800" <= character <= "\udfff" for character in str(self.output_dir)):
            raise ValueError(f"output_dir is {str(self.output_dir)!r}, whose bytes are not UTF-8: give another name")
        if not 0 <= self.preempt_exit_code <= 255:
            raise ValueError(f"preempt_exit_code is {self.preempt_exit_code}: give an exit code from 0 to 255")
        if not self.hang_timeout >= 0:
            raise ValueError(f"hang_timeout is {self.hang_timeout}: give seconds, or 0 to wait forever")
        if self.save_on_each_node and (self.deepspeed_plugin is not None or fsdp_requested()):
            raise ValueError(
                "save_on_each_node is True, but with DeepSpeed or FSDP each machine would only have a part of a "
                "checkpoint: leave it out, and give an --output_dir that all machines share"
            )
        if self.n_gpu > 1:
            raise ValueError(
                f"one process sees {self.n_gpu} GPUs, and losses would be wrong under torch.nn.DataParallel: start it "
                "with `accelerate launch`, or choose one GPU with CUDA_VISIBLE_DEVICES=0"
            )
        check_launch(self, processes, on_gpus=on_cpu is False and not cpu_given)

    @property
    def order_seed(self) -> int:
        """Seed of the order of the samples: `data_seed`, or `seed` if that is not given."""
        return self.seed if self.data_seed is None else self.data_seed
