"""The students of the ablations as points of the figure of knowledge against language modeling."""

from .report import row_of
from .tables import ROWS

# Teachers that have seen nothing that belongs to the words.
CONTROLS = ("text_teacher", "shuffled_teacher", "shuffled_clip_model")


def points(results: dict[int, dict[str, dict]]) -> list[dict]:
    """One point per student: the means over seeds of its MLM loss and of the share of the gap that it closes.

    Args:
        results: For each seed the stored results by row name.

    Returns:
        Entries with `student`, `mlm_loss`, `gap_closed`, `steps_factor` and `kind`: an objective, `"text_only"`,
        `"control"`, or `"continue"` for the teacher's own text encoder.
        Students of other model types or with fewer seeds than text-only are left out: their losses are not comparable.
    """
    found, seeds = [], row_of("text_only", results)["seeds"]
    for student, row in ROWS.items():
        if "student_model_type" in row.options:
            continue
        made = row_of(student, results)
        if made["seeds"] != seeds or not made["gap_closed"]:
            continue
        kind = next(reversed(row.objectives), "text_only")
        if row.teacher in CONTROLS:
            kind = "control"
        elif row.continues_teacher:
            kind = "continue"
        entry = {"student": student, "kind": kind, "steps_factor": row.steps_factor}
        entry["mlm_loss"], entry["gap_closed"] = (made[key]["mean"] for key in ("mlm_loss", "gap_closed"))
        found.append(entry)
    return found
