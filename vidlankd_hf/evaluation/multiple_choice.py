"""Multiple choice: which of four endings comes next (SWAG, Zellers et al., EMNLP 2018), and which of two solutions
reaches a goal (PIQA, Bisk et al., AAAI 2020)."""

from pathlib import Path

from ..utils.messages import number_of
from .heads import Choice
from .reading import class_of, companion_file, numbered_lines, read_json_lines, read_table
from .task import Task, make_recipe

ENDINGS = tuple(f"ending{i}" for i in range(4))
SOLUTIONS = ("sol1", "sol2")


def read_swag(path: Path, split: str) -> list[dict]:
    """Reads the official CSV; that of the test split has no labels."""
    to_label = class_of(ENDINGS, path)
    rows = read_table(path, ("sent1", "sent2", *ENDINGS), delimiter=",", quoted=True)
    return [_swag_row(row, to_label(row["label"]) if "label" in row else None) for row in rows]


def read_piqa(path: Path, split: str) -> list[dict]:
    """Reads `train.jsonl` and `train-labels.lst` next to it; the test split, `tests.jsonl`, has no labels.

    Raises:
        FileNotFoundError: The file of labels is missing.
        ValueError: A line is malformed, or there are not as many labels as rows.
    """
    rows = read_json_lines(path, ("goal", *SOLUTIONS))
    if split == "test":
        return [_piqa_row(row, None) for row in rows]
    labels_path = companion_file(path, f"{path.name.partition('.')[0]}-labels.lst", "the labels, one per line,")
    to_label = class_of(SOLUTIONS, labels_path)
    labels = [to_label(line) for _, line in numbered_lines(labels_path)]
    if len(labels) != len(rows):
        raise ValueError(
            f"{labels_path} has {number_of(len(labels), 'label')}, but {path.name} has {number_of(len(rows), 'row')}: "
            "give the official files "
            "of one split"
        )
    return list(map(_piqa_row, rows, labels))


def _swag_row(row: dict, label: int | None) -> dict:
    return {"texts": [[row["sent1"], f"{row['sent2']} {row[ending]}"] for ending in ENDINGS], "label": label}


def _piqa_row(row: dict, label: int | None) -> dict:
    return {"texts": [[row["goal"], row[solution]] for solution in SOLUTIONS], "label": label}


def write_swag(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    """Writes row numbers and predictions as CSV."""
    path.write_text("\n".join([",pred", *(f"{row['id']},{value}" for row, value in zip(rows, predictions))]) + "\n")


def write_piqa(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    """Writes one prediction per line."""
    path.write_text("\n".join(map(str, predictions)) + "\n")


SWAG = Task(
    title="SWAG",
    head=Choice(),
    data=("allenai/swag", "regular"),
    folder="swag",
    files={"train": "train.csv", "validation": "val.csv", "test": "test.csv"},
    parse=read_swag,
    row=lambda row: _swag_row(row, None if row["label"] == -1 else row["label"]),
    recipe=make_recipe(5e-5, epochs=3.0, batch_size=16, max_length=80),
    labels=ENDINGS,
    test={"test": "predictions.csv"},
    write_submission=write_swag,
)
PIQA = Task(
    title="PIQA",
    head=Choice(),
    data=("baber/piqa", None),
    folder="piqa",
    files={"train": "train.jsonl", "validation": "valid.jsonl", "test": "tests.jsonl"},
    parse=read_piqa,
    row=lambda row: _piqa_row(row, None if row["label"] == -1 else row["label"]),
    recipe=make_recipe(5e-5, epochs=3.0, batch_size=16, max_length=126),
    labels=SOLUTIONS,
    test={"test": "predictions.lst"},
    write_submission=write_piqa,
)
MULTIPLE_CHOICE = {"swag": SWAG, "piqa": PIQA}
