"""SWAG (Zellers et al., EMNLP 2018): which of four endings comes next."""

from functools import partial
from pathlib import Path

from .heads import Choice
from .metrics import AccuracyMetric
from .reading import class_of, read_table
from .task import Task

ENDINGS = tuple(f"ending{i}" for i in range(4))


def read_swag(path: Path, split: str) -> list[dict]:
    """The official CSV; that of the test split has no labels."""
    to_label = class_of(ENDINGS, path)
    rows = read_table(path, ("sent1", "sent2", *ENDINGS), delimiter=",", quoted=True)
    return [{"id": i, **_row(row, to_label(row["label"]) if "label" in row else None)} for i, row in enumerate(rows)]


def _row(row: dict, label: int | None) -> dict:
    return {"texts": [[row["sent1"], f"{row['sent2']} {row[ending]}"] for ending in ENDINGS], "label": label}


def write_swag(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    path.write_text("\n".join([",pred", *(f"{row['id']},{value}" for row, value in zip(rows, predictions))]) + "\n")


SWAG = Task(
    title="SWAG",
    head=Choice(),
    data=("allenai/swag", "regular"),
    folder="swag",
    files={"train": "train.csv", "validation": "val.csv", "test": "test.csv"},
    parse=read_swag,
    row=lambda row: _row(row, None if row["label"] == -1 else row["label"]),
    metric=partial(AccuracyMetric, keep_in_memory=True),
    main="accuracy",
    recipe={
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 16,
        "warmup_steps": 0.1,
        "max_length": 80,
    },
    labels=ENDINGS,
    test={"test": "predictions.csv"},
    write_submission=write_swag,
)
