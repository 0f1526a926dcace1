"""The paper's tables: their students, their tasks, and the published numbers that are known.

The subjects are the paper's. So are the numbers of tables 1 and 4; the numbers of the others may differ from it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

DIAGNOSTICS = "mnli/GLUE diagnostics/"
MODELS = "12 layers of width 768, trained on English Wikipedia"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Args:
        title: Its subject.
        rows: The students that take part, names in `ROWS`. The first is the baseline.
        columns: Beginnings of the names of the columns that belong to it; empty: the scores on all tasks.
        needs: What a table with `columns` needs.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ()
    needs: str = ""


CONTROLS = ("text_only", "text_only_equal_compute", "by_shuffled_teacher")
MAIN = (*CONTROLS, "voken_3000", "nst", "crd", "nst+crd")
TABLES = {
    1: PaperTable("Downstream tasks", MAIN),
    2: PaperTable(
        "World knowledge: GLUE diagnostics", MAIN, (DIAGNOSTICS,), "mnli, with diagnostic-full.tsv in --data"
    ),
    3: PaperTable("Physical and temporal reasoning", MAIN, ("piqa", "tracie"), "piqa, tracie or tracie_uniform"),
    4: PaperTable(
        "Distillation objectives",
        ("text_only", "soft_label", "regression", "voken_300", "voken_3000", "nst", "crd", "nst+crd", "infonce"),
    ),
    5: PaperTable(
        "Training objectives of the teacher",
        ("text_only", "by_text_teacher", "by_contrast_teacher", "by_hinge_teacher", "crd"),
    ),
    6: PaperTable(
        "Text, images or video", ("text_only", "by_text_teacher", "by_image_teacher", "by_shuffled_teacher", "crd")
    ),
    7: PaperTable("Video features", ("text_only", "by_frame_teacher", "by_clip_teacher", "crd")),
    8: PaperTable("Distillation, or training the teacher on the text", ("text_only", "continue", "crd")),
    9: PaperTable("With and without distillation head", ("text_only", "nst", "nst_headless", "crd", "crd_headless")),
}
# Published scores: table -> row -> column -> score. "Unverified" were written down from memory.
PUBLISHED = {
    1: {
        "the paper: text only": {"sst2": 89.3, "qnli": 87.9, "qqp": 83.2, "mnli": 79.4},
        "the paper's NST student, run again by its author": {"sst2": 92.2, "qnli": 89.8, "qqp": 89.5, "mnli": 83.4},
        "Vokenization: text only (unverified)": {
            "squad/validation/exact_match": 77.0, "squad": 85.3, "squad_v2/validation/exact_match": 67.7,
            "squad_v2": 71.1, "swag": 65.7,
        },
        "Vokenization: vokens (unverified)": {
            "sst2": 92.2, "qnli": 88.6, "qqp": 88.6, "mnli": 82.6, "squad/validation/exact_match": 78.8,
            "squad": 86.7, "squad_v2/validation/exact_match": 68.1, "squad_v2": 71.2, "swag": 70.6,
        },
    }
}  # fmt: skip


def students_of(numbers: Iterable[int], tasks: Collection[str]) -> list[str]:
    """Returns the students of tables that scores on these tasks can fill, each once.

    Args:
        numbers: Numbers of tables.
        tasks: Names of tasks.
    """
    found = dict[str, None]()
    for table in (TABLES[number] for number in numbers):
        beginnings = tuple(column.partition("/")[0] for column in table.columns)
        if not beginnings or any(task.startswith(beginnings) for task in tasks):
            found |= dict.fromkeys(table.rows)
    return list(found)
