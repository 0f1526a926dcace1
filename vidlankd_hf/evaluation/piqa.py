"""PIQA (Bisk et al., AAAI 2020): which of two solutions reaches a goal."""

from functools import partial
from pathlib import Path

from .heads import Choice
from .metrics import AccuracyMetric
from .reading import beside, class_of, open_text, read_json_lines
from .task import Task

SOLUTIONS = ("sol1", "sol2")


def read_piqa(path: Path, split: str) -> list[dict]:
    """`train.jsonl` and, beside it, `train-labels.lst`; the test split (`tests.jsonl`) has no labels."""
    rows = read_json_lines(path, ("goal", *SOLUTIONS))
    if split == "test":
        return [{"id": i, **_row(row, None)} for i, row in enumerate(rows)]
    labels_path = beside(path, f"{path.name.partition('.')[0]}-labels.lst", "the labels, one a line,")
    to_label = class_of(SOLUTIONS, labels_path)
    with open_text(labels_path) as file:
        labels = [to_label(line.strip()) for line in file if line.strip()]
    if len(labels) != len(rows):
        raise ValueError(f"{labels_path} has {len(labels)} labels, but {path.name} has {len(rows)} rows")
    return [{"id": i, **_row(row, label)} for i, (row, label) in enumerate(zip(rows, labels))]


def _row(row: dict, label: int | None) -> dict:
    return {"texts": [[row["goal"], row[solution]] for solution in SOLUTIONS], "label": label}


def write_piqa(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    path.write_text("\n".join(map(str, predictions)) + "\n")


PIQA = Task(
    title="PIQA",
    head=Choice(),
    data=("baber/piqa", None),
    folder="piqa",
    files={"train": "train.jsonl", "validation": "valid.jsonl", "test": "tests.jsonl"},
    parse=read_piqa,
    row=lambda row: _row(row, None if row["label"] == -1 else row["label"]),
    metric=partial(AccuracyMetric, keep_in_memory=True),
    main="accuracy",
    recipe={
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 16,
        "warmup_steps": 0.1,
        "max_length": 126,
    },
    labels=SOLUTIONS,
    test={"test": "predictions.lst"},
    write_submission=write_piqa,
)
