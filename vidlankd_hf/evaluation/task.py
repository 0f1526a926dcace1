"""A downstream task on which a model is fine-tuned."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .heads import Classification, Head
from .metrics import load_metric


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: where its data are, which head it needs, how it is scored, and its recipe.

    Rows are dicts with `label` (`None` in unlabeled data) and `texts`: one or two strings or, for multiple choice,
    pairs `[context, candidate]`. Span tasks have `question`, `context` and `answers` instead of `texts`. Rows without
    an `id` are numbered from 0.

    Args:
        title: Name in tables and model cards.
        head: One of the heads in `heads.py`.
        data: Hub data set and its configuration, or `None` if the task is not on the Hub.
        folder: Official folder, relative to a folder of tasks.
        files: Official file of each split.
        parse: Reads an official file and a split into rows.
        row: Converts a row of the Hub data set into a row of the task.
        metric: Makes the `evaluate.Metric`.
        main: Name of the metric's value by which models are compared.
        recipe: Training arguments and `max_length`, from the paper where it gives them.
        labels: Names of the classes.
        evaluate_on: Splits that are scored. Models are compared on the first one.
        test: Name of the official submission file of each unlabeled split.
        write_submission: Function that writes such a file, called with `(path, task, rows, predictions)`.
        reference: Function that returns what the metric compares a row's prediction with.
        also: Other tasks on which the fine-tuned model is scored if their data are available.
        percent: Whether the metric's values go up to 100 instead of 1.
        own: Data from a task file, an `OwnData`; the task then needs neither folder nor parser.
    """

    title: str
    head: Head = field(default_factory=Classification)
    data: tuple[str, str | None] | None = None
    folder: str = ""
    files: dict[str, str]
    parse: Callable[[Path, str], list[dict]] | None = None
    row: Callable[[dict], dict] | None = None
    metric: Callable[[], Any] = partial(load_metric, "accuracy")
    main: str = "accuracy"
    recipe: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    evaluate_on: tuple[str, ...] = ("validation",)
    test: dict[str, str] = field(default_factory=dict)
    write_submission: Callable[[Path, "Task", list[dict], Any], None] | None = None
    reference: Callable[[dict], Any] = lambda row: row["label"]
    also: "tuple[Task, ...]" = ()
    percent: bool = False
    own: Any = None

    def constants(self, rows: list[dict]) -> list[list]:
        """Returns every constant prediction for these rows."""
        return [[value] * len(rows) for value in range(len(self.labels))]

    def examples(self, rows: list[dict], predictions: list) -> dict[str, list]:
        """Returns what [`paired_test`] needs: the predictions and labels, or the scores, of all rows."""
        return {"predictions": list(predictions), "labels": [row["label"] for row in rows]}

    def score(self, rows: list[dict], predictions: list) -> dict[str, float]:
        """Returns the metric's values for labeled rows."""
        return self.metric().compute(predictions=predictions, references=[self.reference(row) for row in rows])


def make_recipe(learning_rate: float, epochs: float, batch_size: int, max_length: int) -> dict[str, Any]:
    """Returns a recipe with 10 % warm-up steps.

    Args:
        learning_rate: Peak learning rate.
        epochs: Passes over the training data.
        batch_size: Sequences per process and micro-batch.
        max_length: Maximum length of a sequence in tokens, with special tokens.
    """
    return {
        "learning_rate": learning_rate,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "warmup_steps": 0.1,
        "max_length": max_length,
    }
