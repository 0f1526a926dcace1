"""Arguments of a distillation run."""

import json
from dataclasses import dataclass
from typing import Any

from transformers.hf_argparser import HfArg

from ..models.losses import OBJECTIVES
from ..models.objectives import objectives_recipe, own_losses
from .arguments import PretrainingArguments

DEFAULT_OBJECTIVES = {"nst": 1000.0, "crd": 1.0}


@dataclass
class DistillationConfig(PretrainingArguments):
    """`TrainingArguments` of the student; the defaults are the paper's (AdamW at 2e-4, linear warm-up and decay).

    Args:
        objectives: Name to weight or instance, as in [`DistillationStudent.add_objectives`]; JSON on the command line.
            `{}` trains on text only.
        gather_negatives: Contrastive objectives also see the negatives of the other processes: the loss is that of
            one process with their batches together.

    Raises:
        ValueError: An objective is unknown, or an option is refused.
    """

    output_dir: str | None = HfArg(default="outputs/student", help="Where the student is written.")
    learning_rate: float = HfArg(default=2e-4, help="Peak learning rate of AdamW; the paper's 2e-4.")
    objectives: dict[str, Any] | str | None = HfArg(
        default_factory=lambda: dict(DEFAULT_OBJECTIVES),
        help="""What to learn from the teacher, name to weight, as JSON: '{"nst": 1000, "crd": 1}'. """
        "{} trains on text only.",
    )
    gather_negatives: bool = HfArg(default=False, help="CRD and InfoNCE also see the other processes' negatives.")

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.objectives, str):
            try:
                self.objectives = json.loads(self.objectives)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"objectives {self.objectives:.200} is not JSON: write '{{\"nst\": 1000}}'"
                ) from error
        if not isinstance(self.objectives, dict):
            raise ValueError(
                f"objectives is {self.objectives!r}: give a mapping of names to weights, {{}} for text only"
            )
        objectives_recipe(self.objectives)

    @property
    def teacher_needs(self) -> set[str]:
        """What a teacher must compute for the objectives: `"hidden"`, `"logits"`, both or nothing."""
        known = {**OBJECTIVES, **own_losses(self.objectives)}
        return set().union(*(known[name].needs for name in self.objectives)) & {"hidden", "logits"}

    def to_dict(self) -> dict:
        return {**super().to_dict(), "objectives": objectives_recipe(self.objectives)}
