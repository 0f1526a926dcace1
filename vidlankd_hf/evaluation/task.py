"""A downstream task that a model is fine-tuned on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import evaluate

from .heads import Head


@dataclass(frozen=True)
class Task:
    """A task: where its data are, what head it needs, how it is scored, and the recipe.

    Rows are dicts: `id`; `texts` (one or two strings, or for a choice the pairs `[context, candidate]`) or, for spans,
    `question`, `context` and `answers`; `label`, `None` where the data have none.

    Args:
        title: Its name in tables and cards.
        head: Of `heads.py`.
        data: Hub data set and its configuration, or `None`.
        folder: The official folder, below a folder of tasks.
        files: Split -> the official file.
        parse: Official file and split -> rows.
        row: Row of the Hub data set -> row.
        metric: Makes the `evaluate.Metric`.
        main: The metric's value that models are compared by.
        recipe: Training arguments and `max_length`: the paper's, where it has one.
        labels: Names of the classes.
        evaluate_on: Splits that are scored; the first one is what models are compared by.
        test: Unlabelled splits -> the name of the official submission file.
        write_submission: Writes it: `(path, task, rows, predictions)`.
        reference: What the metric compares with, of a row.
        also: Other tasks that the fine-tuned model is scored on where their data are there.
        percent: Values of the metric go to 100, not to 1.
    """

    title: str
    head: Head
    data: tuple[str, str | None] | None
    folder: str
    files: dict[str, str]
    parse: Callable[[Path, str], list[dict]]
    row: Callable[[dict], dict] | None
    metric: Callable[[], evaluate.Metric]
    main: str
    recipe: dict[str, Any]
    labels: tuple[str, ...] = ()
    evaluate_on: tuple[str, ...] = ("validation",)
    test: dict[str, str] = field(default_factory=dict)
    write_submission: Callable[[Path, "Task", list[dict], Any], None] | None = None
    reference: Callable[[dict], Any] = lambda row: row["label"]
    also: "tuple[Task, ...]" = ()
    percent: bool = False

    def constants(self, rows: list[dict]) -> list[list]:
        """Every constant prediction for these rows."""
        return [[value] * len(rows) for value in range(len(self.labels))]

    def examples(self, rows: list[dict], predictions: list) -> dict[str, list]:
        """What a paired test needs: predictions and labels, or scores, of every row."""
        return {"predictions": list(predictions), "labels": [row["label"] for row in rows]}

    def score(self, rows: list[dict], predictions: list) -> dict[str, float]:
        """The metric's values for labelled rows."""
        return self.metric().compute(predictions=predictions, references=[self.reference(row) for row in rows])
