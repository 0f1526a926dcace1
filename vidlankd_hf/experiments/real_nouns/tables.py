"""The teachers and students of the experiment, and their recipe."""

from dataclasses import dataclass, field

BASE = "base"  # MiniLM with a trained head; teachers and students start from it
LENGTH = 24  # tokens of captions and of blocks of text

_TRAINING = {"per_device_eval_batch_size": 64, "logging_steps": 20, "save_steps": 200, "save_total_limit": 1,
             "warmup_steps": 30, "report_to": "none"}  # fmt: skip
BASE_RECIPE = {**_TRAINING, "max_steps": 2000, "per_device_train_batch_size": 24, "learning_rate": 5e-4, "seed": 0}
TEACHER_RECIPE = {
    **_TRAINING, "max_steps": 1000, "per_device_train_batch_size": 48, "learning_rate": 3e-4, "bf16": True,
    "held_out_videos": 200, "max_length": LENGTH, "streams": ["color", "middle"],
}  # fmt: skip
STUDENT_RECIPE = {
    **_TRAINING, "max_steps": 400, "per_device_train_batch_size": 24, "learning_rate": 3e-4, "bf16": True,
}  # fmt: skip

# Settings in which each teacher differs from the ordinary one.
TEACHERS: dict[str, dict] = {
    "teacher": {},
    "shuffled_teacher": {"shuffle_videos": True},
    "text_teacher": {"losses": "mlm"},
    "object_teacher": {"streams": ["objects", "color", "middle"]},
}


@dataclass(frozen=True)
class Row:
    """One student.

    Args:
        label: Name in tables and figures.
        objectives: Objectives, as in [`DistillationConfig`].
        teacher: Name in `TEACHERS`.
    """

    label: str
    objectives: dict = field(default_factory=dict)
    teacher: str = "teacher"


def _regression(weight: float, head: bool = False) -> dict:
    return {"regression": {"weight": weight, "head": head}}


ROWS = {
    "text_only": Row("text only"),
    "regression_headless_10": Row("regression (weight 10), no head", _regression(10.0)),
    "shuffled": Row("the same, shuffled pictures", _regression(10.0), "shuffled_teacher"),
    "by_text_teacher": Row("the same, teacher of captions only", _regression(10.0), "text_teacher"),
    "by_object_teacher": Row("the same, teacher with EfficientNet", _regression(10.0), "object_teacher"),
    "regression_headless_1": Row("regression (weight 1), no head", _regression(1.0)),
    "regression_10": Row("regression (weight 10)", _regression(10.0, head=True)),
    "regression_1": Row("regression (weight 1)", _regression(1.0, head=True)),
    "nst": Row("NST (weight 1000)", {"nst": 1000.0}),
    "nst_tokens": Row(
        "NST (weight 30), token axis, no head", {"nst": {"weight": 30.0, "axis": "tokens", "head": False}}
    ),
    "crd": Row("CRD (weight 1)", {"crd": 1.0}),
    "infonce": Row("InfoNCE (weight 1)", {"infonce": 1.0}),
}  # fmt: skip
BEST = "regression_headless_10"  # the row of the figure
