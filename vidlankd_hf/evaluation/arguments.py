"""`TrainingArguments` of fine-tuning."""

from dataclasses import dataclass, field

from ..reliability.arguments import FaultTolerantArguments


@dataclass
class FinetuningArguments(FaultTolerantArguments):
    """[`FaultTolerantArguments`] with the defaults for fine-tuning; a task's recipe replaces some of them."""

    output_dir: str = field(default="outputs/finetuned", metadata={"help": "Where results are written."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sequences in an evaluation batch."})
    save_strategy: str = field(default="no", metadata={"help": "When a checkpoint is saved; default: never."})
