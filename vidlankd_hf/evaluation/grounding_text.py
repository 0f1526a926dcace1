"""Describes a grounding in words, and checks that a student was distilled from the given teacher."""

from pathlib import Path

from ..reliability.run_dir import RUN_FILE, read_settings
from ..reliability.same_run import weights_fingerprint
from .grounding import Grounding


def check_same_teacher(student: str, teacher: str) -> None:
    """Checks that a student was distilled from this teacher, if its run recorded the teacher's fingerprint.

    Args:
        student: Folder or Hub id of the student.
        teacher: Folder or Hub id of the teacher.

    Raises:
        ValueError: The student was distilled from another teacher.
    """
    if not (Path(student) / RUN_FILE).is_file():
        return
    learned_from = read_settings(student).get("fingerprints", {}).get("teacher")
    given = weights_fingerprint(teacher)
    if None not in (learned_from, given) and learned_from != given:
        raise ValueError(
            f"{student} was distilled from another teacher ({read_settings(student)['teacher']}), not from {teacher}, "
            "so its head does not fit: give that teacher with --teacher, or --no_student"
        )


def describe(grounding: Grounding, clip_ids) -> str:
    """Describes a grounding for the terminal: the sentence and, per model, the token that stands out most.

    Args:
        grounding: Result of [`ground`].
        clip_ids: Ids of the clips, by index.
    """
    lines = [f"\n{grounding.sentence}"]
    for name in ("teacher", "student"):
        scores = getattr(grounding, name)
        if scores is not None:
            deviations = scores.deviations(scores.similarity)[:, 0]
            token = int(deviations.argmax())
            lines.append(
                f"  {name}: {grounding.tokens[token]!r} is nearest to {clip_ids[int(scores.nearest[token, 0])]}, "
                f"cosine {scores.similarity[token, 0]:.2f}, {deviations[token]:+.1f} standard deviations"
            )
    return "\n".join(lines)
