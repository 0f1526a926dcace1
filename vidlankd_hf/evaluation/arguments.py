"""`TrainingArguments` of fine-tuning."""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from ..reliability.arguments import FaultTolerantArguments


@dataclass
class FinetuningArguments(FaultTolerantArguments):
    """[`FaultTolerantArguments`] with the defaults for fine-tuning; a task's recipe replaces some of them."""

    output_dir: str = HfArg(default="outputs/finetuned", help="folder of the results")
    per_device_eval_batch_size: int = HfArg(default=64, help="Sequences in an evaluation batch.")
    save_strategy: str = HfArg(default="no", help="When a checkpoint is saved; default: never.")
