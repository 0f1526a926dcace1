"""Reads task files: YAML that names a task's files, columns and labels. An error lists all mistakes at once."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from ..data.caption_formats import suffix_of
from ..data.tables import TABLE_SUFFIXES, is_hub_id
from ..utils.messages import nearest
from ..utils.yaml_files import read_yaml

# Kind -> roles of its columns. `start` of spans is optional; a regression may also have `first` and `second`.
ROLES = {
    "classification": ("text", "label"),
    "pair": ("first", "second", "label"),
    "regression": ("text", "label"),
    "choice": ("context", "choices", "label"),
    "span": ("question", "context", "answers"),
    "attribute": ("object", "label"),
    "comparison": ("first", "second", "label"),
}
# Kind -> metrics by which models can be compared, the default first. Kinds without fine-tuning have none.
METRICS = {
    "classification": ("accuracy", "macro_f1", "matthews_correlation"),
    "pair": ("accuracy", "macro_f1", "matthews_correlation"),
    "regression": ("pearson", "spearmanr"),
    "choice": ("accuracy",),
    "span": ("f1",),
}
RECIPE = {"learning_rate": float, "epochs": float, "batch_size": int, "max_length": int}
# Key -> the kinds that have it.
ONLY = {
    "labels": ("classification", "pair", "choice", "attribute", "comparison"),
    "leave_out": ("classification", "pair", "choice", "attribute", "comparison"),
    "metric": tuple(METRICS),
    "recipe": tuple(METRICS),
    "model_labels": ("classification", "pair"),
    "templates": ("attribute", "comparison"),
    "separator": ("attribute",),
    "unanswerable": ("span",),
}
KEYS = ("title", "kind", "files", "columns", "quotes", *ONLY)
YAML_WORDS = "yes, no, on, off, true and false mean true or false in YAML: write them in quotation marks"


@dataclass(frozen=True)
class TaskSpec:
    """The content of a task file.

    Args:
        path: The task file; its name without suffix names the task.
        kind: Key of `ROLES`.
        title: Name in tables and model cards.
        files: Split -> file or Hub data set. `train` is trained on; all others are scored, and models are compared on
            the first of them.
        columns: Role -> name of its column, or several names.
        labels: Label as the files have it -> name of the class; several labels may be the same class.
        leave_out: Labels whose rows are left out, and counted.
        metric: Metric by which models are compared; empty without fine-tuning.
        templates: Sentences with `{word}` and the names of roles in braces.
        separator: Separator of several right answers in one field.
        unanswerable: Whether questions may have no answer.
        quotes: Whether fields of CSV and TSV may be in quotation marks. `None`: yes in CSV; in TSV, a field that
            begins with a quotation mark is an error.
        recipe: Default training arguments: some of `RECIPE`.
        model_labels: Label of a fine-tuned model -> label of this task, where their names differ.
    """

    path: Path
    kind: str
    title: str
    files: dict[str, str]
    columns: dict[str, str | list[str]]
    labels: dict[str, str] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    metric: str = ""
    templates: tuple[str, ...] = ()
    separator: str | None = None
    unanswerable: bool = False
    quotes: bool | None = None
    recipe: dict[str, float] = field(default_factory=dict)
    model_labels: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name.partition(".")[0]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.labels.values()))


def read_spec(path: str | Path) -> TaskSpec:
    """Reads and checks a task file.

    Raises:
        ValueError: The file is not a task file. The message names every mistake, what is allowed and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--task_file {path} is not a file: give a YAML file with kind, files and columns")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} describes no task: write lines such as `kind: classification` and `files:`")
    checks = _Checks(path)
    values = checks.values(content)
    if checks.problems:
        raise ValueError("\n  ".join([f"{path} describes no task:", *checks.problems]))
    return TaskSpec(path=path, **values)


class _Checks:
    """Checks each entry of a task file and collects what is wrong with it."""

    def __init__(self, path: Path):
        self.path, self.problems = path, list[str]()

    def values(self, content: dict) -> dict[str, Any]:
        kind = content.get("kind")
        if kind not in ROLES:
            self.problems.append(f"kind is {kind!r}: choose one of {', '.join(ROLES)}{nearest(kind, ROLES)}")
            return {}
        allowed = [key for key in KEYS if kind in ONLY.get(key, ROLES)]
        for key in content:
            if key not in allowed:
                other = f" belongs to {', '.join(ONLY[key])}, not to {kind}" if key in ONLY else " is not a key"
                self.problems.append(f"{key!r}{other}: write any of {', '.join(allowed)}{nearest(key, allowed)}")
        if not re.fullmatch(r"\w[\w-]*", self.path.name.partition(".")[0]):
            self.problems.append("the file's name names the task: use letters, digits, _ and -")
        labels = self.labels(content.get("labels"), kind)
        classes = list(dict.fromkeys(labels.values()))
        return {
            "kind": kind,
            "title": self.text("title", content.get("title", self.path.name.partition(".")[0])),
            "files": self.files(content.get("files"), kind),
            "columns": (columns := self.columns(content.get("columns") or {}, kind)),
            "labels": labels,
            "leave_out": tuple(self.words("leave_out", content.get("leave_out") or [])),
            "metric": self.metric(content.get("metric"), kind),
            "templates": self.templates(content.get("templates"), kind, columns),
            "separator": self.text("separator", content.get("separator"), optional=True),
            "unanswerable": self.boolean("unanswerable", content.get("unanswerable", False)),
            "quotes": self.boolean("quotes", content.get("quotes")),
            "recipe": self.recipe(content.get("recipe") or {}),
            "model_labels": self.model_labels(content.get("model_labels") or {}, classes),
        }

    def text(self, key: str, value: Any, optional: bool = False) -> str | None:
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value:
            self.problems.append(f"{key} is {value!r}: write a string")
        return str(value)

    def boolean(self, key: str, value: Any) -> Any:
        if not isinstance(value, bool | None):
            self.problems.append(f"{key} is {value!r}: write true or false")
        return value

    def words(self, key: str, values: Any) -> list[str]:
        """Returns a list of words and numbers as strings."""
        if not isinstance(values, list):
            self.problems.append(f"{key} is {values!r}: write a list, such as [a, b]")
            return []
        for value in values:
            if isinstance(value, bool):
                self.problems.append(f"{key} has {value!r}: {YAML_WORDS}")
            elif not isinstance(value, str | int | float):
                self.problems.append(f"{key} has {value!r}: write words or numbers")
        return [str(value) for value in values]

    def mapping(self, key: str, value: Any) -> dict[str, str]:
        names, targets = (self.words(key, list(part)) for part in (value, value.values()))
        return dict(zip(names, targets))

    def files(self, value: Any, kind: str) -> dict[str, str]:
        example = "files: {train: train.tsv, validation: dev.tsv}"
        if not isinstance(value, dict) or not value:
            self.problems.append(f"files is {value!r}: name the file of each split, such as `{example}`")
            return {}
        found: dict[str, str] = {}
        for split, source in value.items():
            if not isinstance(split, str) or not re.fullmatch(r"[A-Za-z]\w*", split):
                self.problems.append(f"files has the split {split!r}: use letters, digits and _")
            elif not isinstance(source, str):
                self.problems.append(f"files: {split} is {source!r}: name a file or a Hub data set")
            else:
                found[split] = self.source(split, source)
        if "train" in found and len(found) == 1:
            self.problems.append(f"files has only train: add a split to score, such as `{example}`")
        return found

    def source(self, split: str, source: str) -> str:
        local = self.path.parent / source
        if local.is_file() and suffix_of(local) in TABLE_SUFFIXES:
            return str(local)
        hub = "a Hub data set such as owner/name:configuration:split"
        kinds = f"{', '.join(TABLE_SUFFIXES)} (also compressed) or {hub}"
        if local.exists():
            self.problems.append(f"files: {split} is {local}: give a file that ends in {kinds}")
        elif not is_hub_id(source):
            self.problems.append(f"files: {split} is {local}, which does not exist: give a file ending in {kinds}")
        return source

    def columns(self, value: Any, kind: str) -> dict[str, str | list[str]]:
        roles = ROLES[kind]
        if kind == "regression" and isinstance(value, dict) and {"first", "second"} & set(value):
            roles = ROLES["pair"]
        more = {"span": ("start",), "regression": ("first", "second")}.get(kind, ())
        if not isinstance(value, dict):
            self.problems.append(f"columns is {value!r}: write `columns: {{{roles[0]}: COLUMN, ...}}`")
            value = {}
        found: dict[str, str | list[str]] = {role: role for role in roles}
        for role, column in value.items():
            several = isinstance(column, list) and (kind, role) in (("choice", "choices"), ("attribute", "label"))
            names = column if several else [column]
            if kind not in ONLY["templates"] and role not in (*roles, *more):
                self.problems.append(
                    f"columns has {role!r}: a {kind} has {', '.join((*roles, *more))}{nearest(role, roles)}"
                )
            elif not isinstance(role, str) or not role.isidentifier() or role == "word":
                self.problems.append(f"columns has {role!r}: use letters, digits and _, and not `word`")
            elif not names or not all(isinstance(name, str) and name for name in names):
                self.problems.append(f"columns: {role} is {column!r}: write the name of a column")
            else:
                found[role] = column
        return found

    def labels(self, value: Any, kind: str) -> dict[str, str]:
        if kind not in ONLY["labels"] or (kind == "choice" and value is None):
            return {}
        if not isinstance(value, list | dict):
            self.problems.append(f"labels is {value!r}: write a list such as [negative, positive], or {{0: negative}}")
            return {}
        if isinstance(value, dict):
            found = self.mapping("labels", value)
        else:
            words = self.words("labels", value)
            found = dict(zip(words, words))
            if len(found) < len(words):
                self.problems.append(f"labels has {max(words, key=words.count)!r} twice: keep one")
        fixed = 2 if kind == "comparison" else None
        count = len(set(found.values()))
        if count < 2 or (fixed and count != fixed):
            self.problems.append(f"labels are {', '.join(found.values()) or 'none'}: name {fixed or 'at least two'}")
        return found

    def metric(self, value: Any, kind: str) -> str:
        known = METRICS.get(kind, ())
        if value is not None and value not in known and known:
            self.problems.append(f"metric is {value!r}: choose one of {', '.join(known)}{nearest(value, known)}")
        return str(value) if value is not None else next(iter(known), "")

    def templates(self, value: Any, kind: str, columns: Collection[str]) -> tuple[str, ...]:
        if kind not in ONLY["templates"]:
            return ()
        fields = ["word", *(role for role in columns if role != "label")]
        names = ", ".join(f"{{{name}}}" for name in fields)
        if not isinstance(value, list) or not value:
            self.problems.append(f"templates is {value!r}: write a list of sentences with {names}")
            return ()
        for template in value:
            try:
                parts = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
            except (ValueError, TypeError):
                parts = [(None, "", None)]
            plain = all(name in fields and (spec, conversion) == ("", None) for name, spec, conversion in parts)
            if not plain or "word" not in {name for name, *_ in parts}:
                self.problems.append(
                    f"templates has {template!r}: write a sentence with {{word}} and any of {names}; for further "
                    "fields, name their columns in `columns`"
                )
        return tuple(map(str, value))

    def recipe(self, value: Any) -> dict[str, float]:
        known = ", ".join(RECIPE)
        if not isinstance(value, dict):
            self.problems.append(f"recipe is {value!r}: write any of {known}")
            return {}
        found = {}
        for name, given in value.items():
            if name not in RECIPE:
                self.problems.append(f"recipe has {name!r}: write any of {known}{nearest(name, RECIPE)}")
                continue
            try:  # YAML reads 1e-4 as a string
                found[name] = RECIPE[name](str(given))
            except ValueError:
                found[name] = 0
            if not found[name] > 0:
                wanted = "an integer" if RECIPE[name] is int else "a number"
                self.problems.append(f"recipe: {name} is {given!r}: write {wanted} above 0")
        return found

    def model_labels(self, value: Any, classes: list[str]) -> dict[str, str]:
        if not isinstance(value, dict):
            self.problems.append(f"model_labels is {value!r}: write lines `LABEL OF THE MODEL: LABEL OF THE TASK`")
            return {}
        found = self.mapping("model_labels", value)
        for target in set(found.values()) - set(classes):
            self.problems.append(f"model_labels has {target!r}: the labels of the task are {', '.join(classes)}")
        return found
