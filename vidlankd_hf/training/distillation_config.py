"""Arguments of a distillation run."""

import json
from dataclasses import dataclass
from typing import Any

from transformers.hf_argparser import HfArg

from ..models.losses import OBJECTIVES
from ..models.objectives import objectives_recipe, own_losses
from ..utils.messages import nearest
from .arguments import PretrainingArguments

DEFAULT_OBJECTIVES = {"nst": 1000.0, "crd": 1.0}
TEACHER_INPUTS, TEACHER_POOLINGS = ("masked", "clean"), ("mean", "last")


@dataclass
class DistillationConfig(PretrainingArguments):
    """`TrainingArguments` of the student; the defaults are the paper's (AdamW at 2e-4, linear warm-up and decay).

    Args:
        objectives: Name to weight or instance, as in [`DistillationStudent.add_objectives`]; JSON on the command line.
            `{}` trains on text only.
        gather_negatives: Contrastive objectives also see the negatives of the other processes: the loss is that of
            one process with their batches together.
        teacher_input: What the teacher reads: `"masked"`, the student's masked tokens, or `"clean"`, the text without
            masks. By default masked, but clean for a teacher with another tokenizer, which cannot read the student's
            tokens.
        teacher_layer: The layer whose states teach: -1 is the last one, after the model's final norm, and 0 the
            embeddings. With several, the mean of their states.
        teacher_pooling: How the states of a teacher with another tokenizer are pooled to segments: `"mean"` over a
            segment's tokens, or those of its `"last"` token. By default the last for causal teachers, whose earlier
            tokens have not seen the segment's end, and otherwise the mean.

    Raises:
        ValueError: An objective is unknown, or an option is refused.
    """

    output_dir: str | None = HfArg(default="outputs/student", help="folder of the student")
    learning_rate: float = HfArg(default=2e-4, help="Peak learning rate of AdamW; the paper's 2e-4.")
    objectives: dict[str, Any] | str | None = HfArg(
        default_factory=lambda: dict(DEFAULT_OBJECTIVES),
        help="""objectives and their weights, as JSON; {} trains on text only; default: '{"nst": 1000, "crd": 1}'""",
    )
    gather_negatives: bool = HfArg(default=False, help="CRD and InfoNCE also use the negatives of the other processes")
    teacher_input: str | None = HfArg(
        default=None,
        help="what the teacher reads: masked (the student's masked tokens) or clean (the text without masks); "
        "default: masked, but clean if its tokenizer is not the student's",
    )
    teacher_layer: list[int] = HfArg(
        default_factory=lambda: [-1],
        help="layer of the teacher whose states teach, or several to average; default: -1, the last",
    )
    teacher_pooling: str | None = HfArg(
        default=None,
        help="state of a segment, for a teacher with another tokenizer: mean of its tokens, or last token; default: "
        "last for causal teachers, else mean",
    )

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
        for name, allowed in (("teacher_input", TEACHER_INPUTS), ("teacher_pooling", TEACHER_POOLINGS)):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"{name} is {value!r}: choose {' or '.join(allowed)}{nearest(value, allowed)}")
        if type(self.teacher_layer) is int:
            self.teacher_layer = [self.teacher_layer]
        layers = self.teacher_layer
        if not isinstance(layers, (list, tuple)) or not layers or any(type(layer) is not int for layer in layers):
            raise ValueError(
                f"teacher_layer is {layers!r}: give the number of a layer, such as -2, or several numbers"
            )
        if len(set(layers)) < len(layers):
            raise ValueError(f"teacher_layer is {layers!r}: give each layer once")
        self.teacher_layer = list(layers)

    def objectives_on(self, what: str) -> list[str]:
        """Names of the objectives that compare `what`: `"hidden"`, `"logits"` or `"vokens"`."""
        known = {**OBJECTIVES, **own_losses(self.objectives)}
        return [name for name in self.objectives if what in known[name].needs]

    @property
    def teacher_needs(self) -> set[str]:
        """What a teacher must compute for the objectives: `"hidden"`, `"logits"`, both or nothing."""
        return {what for what in ("hidden", "logits") if self.objectives_on(what)}

    def to_dict(self) -> dict:
        return {**super().to_dict(), "objectives": objectives_recipe(self.objectives)}
