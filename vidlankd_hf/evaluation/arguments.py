"""`TrainingArguments` of fine-tuning."""

from dataclasses import dataclass, field

from ..reliability.arguments import FaultTolerantArguments


@dataclass
class FinetuningArguments(FaultTolerantArguments):
    """[`FaultTolerantArguments`] as fine-tuning needs them; a task's recipe is put over them."""

    output_dir: str = field(default="outputs/finetuned", metadata={"help": "Where results are written."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sequences evaluated at a time."})
    save_strategy: str = field(default="no", metadata={"help": "Checkpoints to resume from; default: none."})
