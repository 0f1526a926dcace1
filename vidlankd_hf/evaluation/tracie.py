"""TRACIE (Zhou et al., NAACL 2021): whether an event, often an implicit one, starts or ends before another."""

from functools import partial
from pathlib import Path

from .glue import RECIPE
from .metrics import load_metric
from .reading import class_of, numbered_lines
from .task import Task

LABELS = ("negative", "positive")


def read_tracie(path: Path, split: str) -> list[dict]:
    """Reads lines `event: ... story: ...<tab>answer: positive`; a line without a tab has no label.

    Raises:
        ValueError: A line has another layout or an unknown answer.
    """
    to_label, rows = class_of(LABELS, path), []
    for number, line in numbered_lines(path):
        query, tab, answer = line.partition("\t")
        event, marker, story = query.partition("story:")
        if not event.startswith("event:") or not marker or (tab and not answer.strip().startswith("answer:")):
            raise ValueError(
                f"line {number} of {path} is not in TRACIE's layout, `event: ... story: ...<tab>answer: ...`: "
                f"{line[:80]!r}"
            )
        event = event.removeprefix("event:").strip()
        label = to_label(answer.strip().removeprefix("answer:").strip()) if tab else None
        rows.append({"texts": [event, story.strip()], "story": story, "label": label})
    return rows


def write_tracie(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    """Writes one `answer: positive` or `answer: negative` per line."""
    path.write_text("".join(f"answer: {LABELS[value]}\n" for value in predictions))


def _tracie(title: str, folder: str, train: str) -> Task:
    return Task(
        title=title,
        folder=f"tracie/{folder}",
        files={"train": train, "test": "tracie_test.txt"},
        parse=read_tracie,
        metric=partial(load_metric, "tracie"),
        recipe=RECIPE,
        labels=LABELS,
        evaluate_on=("test",),
        test={"test": "eval_results_lm.txt"},
        write_submission=write_tracie,
        reference=lambda row: {"label": row["label"], "event": row["texts"][0], "story": row["story"]},
    )


TRACIE = {
    "tracie": _tracie("TRACIE, i.i.d.", "iid", "tracie_train.txt"),
    "tracie_uniform": _tracie("TRACIE, uniform prior", "uniform-prior", "tracie_train_uniform_prior.txt"),
}
