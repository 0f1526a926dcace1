"""Turns a task file, YAML that names tables, columns and labels, into an entry of `TASKS`."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.tables import is_hub_id
from ..utils.messages import number_of
from . import TASKS
from .heads import Choice, Classification, Head, Regression, Spans
from .metrics import load_metric
from .probing import FOLDS, probe_attributes, probe_pairs
from .squad import SquadTask
from .task import Task, make_recipe
from .task_rows import describe_left_out, read_split
from .task_spec import TaskSpec, read_spec
from .zero_shot import ZeroShot

HEADS: dict[str, Head] = {
    "classification": Classification(), "pair": Classification(), "regression": Regression(), "choice": Choice()
}  # fmt: skip
RECIPES = {
    "choice": {"learning_rate": 5e-5, "epochs": 3.0, "batch_size": 16, "max_length": 126},
    "span": {"learning_rate": 3e-5, "epochs": 2.0, "batch_size": 12, "max_length": 384},
}
TEXT_RECIPE = {"learning_rate": 1e-4, "epochs": 3.0, "batch_size": 32, "max_length": 126}
METRIC_MODULES = {
    "accuracy": ("accuracy",), "macro_f1": ("f1",), "matthews_correlation": ("glue", "cola"),
    "pearson": ("glue", "stsb"), "spearmanr": ("glue", "stsb"),
}  # fmt: skip


@dataclass(frozen=True)
class OwnData:
    """The data that a task file names.

    Args:
        path: The task file.
        rows: Rows of each split.
        left_out: Sentences that say which rows are left out, and why.
        fingerprint: Hash of rows and labels.
        model_labels: Label of a fine-tuned model -> label of the task, where their names differ.
    """

    path: Path
    rows: dict[str, list[dict]]
    left_out: list[str]
    fingerprint: str
    model_labels: dict[str, str]


def name_of_task(own) -> str:
    """Returns the name that --task gives, or reads --task_file and returns the name of its task.

    Args:
        own: [`TaskArguments`].

    Raises:
        ValueError: Both options are given, or neither.
    """
    if (own.task is None) == (own.task_file is None):
        raise ValueError(f"--task is {own.task} and --task_file is {own.task_file}: give exactly one of them")
    return own.task or add_task_file(own.task_file)[0]


def add_task_file(path: str | Path) -> list[str]:
    """Reads and checks a task file with all its data, and adds its task to `TASKS`.

    Returns:
        Its names in `TASKS`: the file's name without suffix. A task without fine-tuning has one entry per scored
        split, named `NAME_SPLIT` if there are several.

    Raises:
        ValueError: The task file or its data are wrong, or another task has its name.
    """
    spec = read_spec(path)
    added = {spec.name: _task(spec)} if spec.metric else _zero_shot(spec)
    for name in added:
        own = getattr(TASKS.get(name), "own", None)
        if name in TASKS and (own is None or own.path.resolve() != spec.path.resolve()):
            raise ValueError(f"{path} defines the task {name!r}, but another task has this name: rename the file")
    TASKS.update(added)
    return list(added)


def _read(spec: TaskSpec) -> OwnData:
    rows, left_out = {}, []
    for split in spec.files:
        rows[split], places = read_split(spec, split)
        if places:
            left_out.append(describe_left_out(spec, split, len(rows[split]), places))
    identity = json.dumps([spec.kind, spec.classes, spec.templates, spec.model_labels, rows])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return OwnData(spec.path, rows, left_out, fingerprint, spec.model_labels)


def _task(spec: TaskSpec) -> Task:
    own = _read(spec)
    first = next(split for split in spec.files if split != "train")
    source = spec.files[first]
    recipe = make_recipe(**{**RECIPES.get(spec.kind, TEXT_RECIPE), **spec.recipe})
    hub_name, _, rest = source.partition(":")
    common: dict[str, Any] = {
        "title": spec.title,
        "data": (hub_name, rest.partition(":")[0] or None) if is_hub_id(source) else None,
        "files": spec.files,
        "recipe": recipe,
        "evaluate_on": tuple(split for split in spec.files if split != "train"),
        "main": spec.metric,
        "own": own,
    }
    if spec.kind == "span":
        metric = partial(load_metric, "squad", "squad_v2" if spec.unanswerable else "squad")
        return SquadTask(head=Spans(spec.unanswerable), metric=metric, percent=True, **common)
    labels = spec.classes
    if spec.kind == "choice":
        counts = {split: len(rows[0]["texts"]) for split, rows in own.rows.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"{spec.path}: the splits have different numbers of choices ({counts}): give all the same number"
            )
        labels = labels or tuple(map(str, range(counts[first])))
    metric = partial(load_metric, *METRIC_MODULES[spec.metric])
    return Task(head=HEADS[spec.kind], metric=metric, labels=labels, **common)


def _zero_shot(spec: TaskSpec) -> dict[str, ZeroShot]:
    """Returns one entry per scored split, since each split asks about different objects."""
    own = _read(spec)
    scored = [split for split in own.rows if split != "train"]
    if "train" in own.rows and spec.kind == "comparison":
        raise ValueError(
            f"{spec.path}: files has train, but the probe of comparisons is fitted to the other comparisons of the "
            "scored split: remove train"
        )
    sets = {}
    for split in scored:
        left_out = [text for text in own.left_out if text.partition(":")[0] in ("train", split)]
        left_out += _check_probe(spec, own.rows, split)
        several = len(scored) > 1
        sets[f"{spec.name}_{split}" if several else spec.name] = ZeroShot(
            title=f"{spec.title}: {split}" if several else spec.title,
            folder="",
            files={name: source for name, source in spec.files.items() if name in ("train", split)},
            candidates=spec.classes,
            templates=spec.templates,
            probe=probe_pairs if spec.kind == "comparison" else probe_attributes,
            split=split,
            own=OwnData(own.path, own.rows, left_out, own.fingerprint, {}),
        )
    return sets


def _check_probe(spec: TaskSpec, rows: dict[str, list[dict]], split: str) -> list[str]:
    """Checks that a linear probe can be fitted; returns a sentence about training rows that it may not use, if any."""
    where, items = f"{spec.files[split]} ({split} of {spec.path})", rows[split]
    if spec.kind == "comparison":
        names = {frozenset((item["object"], item["other"])) for item in items}
        for pair in names:
            seen = {item["label"] for item in items if not pair & {item["object"], item["other"]}}
            if len(seen) < 2:
                raise ValueError(
                    f"{where}: the comparisons of objects other than {' and '.join(sorted(pair))} have fewer than two "
                    "labels, so no probe can be fitted to them: give more comparisons, of at least four objects"
                )
        return []
    if "train" not in rows:
        counts = Counter(item["label"] for item in items)
        others = len(items) - max(counts.values())
        if len(items) < FOLDS:
            raise ValueError(f"{where} has {number_of(len(items), 'row')}: give at least {FOLDS}, or a train split")
        if others <= -(-len(items) // FOLDS):
            raise ValueError(
                f"{where} has {number_of(len(items), 'row')}, of which {others} have another answer than the most "
                "frequent one. The probe is fitted to four fifths of the rows, which must have two different answers: "
                "add rows with other answers, or a train split"
            )
        return []
    objects = {item["object"] for item in items}
    seen = [item["object"] for item in rows["train"] if item["object"] in objects]
    kept = {item["label"] for item in rows["train"] if item["object"] not in objects}
    if len(kept) < 2:
        raise ValueError(
            f"{spec.files['train']} (train of {spec.path}): the rows whose objects are not in {split} have "
            f"{number_of(len(kept), 'different label')}, but the probe is fitted to them and needs two: add rows of "
            "other objects"
        )
    more = f", ... ({len(seen) - 5} more)" if len(seen) > 5 else ""
    what = f"train: {len(seen)} of {len(rows['train'])} rows, because {split} has the same objects"
    return [f"{what} ({', '.join(seen[:5])}{more})"] if seen else []
