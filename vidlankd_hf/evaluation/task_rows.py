"""Reads the rows of a task file's tables. An error names the rows that cannot be used."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.caption_formats import suffix_of
from ..data.tables import Table
from ..utils.folders import listed
from ..utils.messages import nearest, number_of
from .task_spec import TaskSpec

MOST_MISTAKES = 5  # listed for one file in a message


class _LeftOut(Exception):
    """The row has a label whose rows are left out."""


def read_split(spec: TaskSpec, split: str) -> tuple[list[dict], list[str]]:
    """Reads the rows of a split.

    Returns:
        The rows, and the places of those that `leave_out` leaves out, such as "row 3".

    Raises:
        ValueError: A column or value is missing or wrong, or there are no rows.
    """
    source = spec.files[split]
    tsv = suffix_of(Path(source)) == ".tsv"
    table = Table(source, quoted=not tsv if spec.quotes is None else spec.quotes)
    columns = list(dict.fromkeys(name for names in spec.columns.values() for name in _as_list(names)))
    _check_columns(spec, source, table.columns, columns)
    parse, rows, left_out, mistakes = PARSERS[spec.kind], [], [], []
    for number, record in enumerate(table.rows(columns), 1):
        try:
            if tsv and spec.quotes is None:
                _refuse_quotes(record, columns)
            rows.append({"id": str(number), **parse(spec, record)})  # a string, as the metric of spans requires
        except _LeftOut:
            left_out.append(f"row {number}")
        except ValueError as error:
            mistakes.append(f"row {number} {error}")
    if spec.kind == "choice":
        mistakes += _check_counts(spec, rows)
    if mistakes:
        more = len(mistakes) - MOST_MISTAKES
        ending = [f"and {more} more"] if more > 0 else []
        raise ValueError("\n  ".join([f"{source} ({split} of {spec.path}):", *mistakes[:MOST_MISTAKES], *ending]))
    if not rows:
        why = f": `leave_out` leaves out all {len(left_out)}" if left_out else ""
        raise ValueError(f"{source} ({split} of {spec.path}) holds no rows{why}: give a file with rows")
    return rows, left_out


def _check_columns(spec: TaskSpec, source: str, available: list[str], wanted: list[str]) -> None:
    for role, names in spec.columns.items():
        for name in _as_list(names):
            if name not in available:
                marks = f'"{name}"' in available
                hint = ", or write `quotes: true`, as fields are in quotation marks" if marks else ""
                has = ", ".join(map(repr, available)) or "nothing"
                raise ValueError(
                    f"{source} has no column {name!r} for {role}, only {has}{nearest(name, available) or '.'} Name it "
                    f"in {spec.path}: `columns: {{{role}: COLUMN}}`{hint}"
                )
            if available.count(name) > 1:
                raise ValueError(f"{source} has the column {name!r} {available.count(name)} times: rename all but one")


def _refuse_quotes(record: dict, columns: list[str]) -> None:
    for name in columns:
        if isinstance(record[name], str) and record[name].startswith('"'):
            raise ValueError(
                f"begins {name!r} with a quotation mark: write `quotes: true` in the task file if such marks only "
                "enclose fields, or `quotes: false` if they belong to the text"
            )


def _as_list(names: str | list[str]) -> list[str]:
    return names if isinstance(names, list) else [names]


def _value(spec: TaskSpec, record: dict, role: str) -> Any:
    name = spec.columns[role]
    if name not in record:
        raise ValueError(f"has no {name!r}: give every row all columns")
    return record[name]


def _text(spec: TaskSpec, record: dict, role: str) -> str:
    return _as_text(_value(spec, record, role), str(spec.columns[role]))


def _as_text(value: Any, name: str) -> str:
    if value is None or value == "":
        raise ValueError(f"has nothing in {name!r}: give a text, or remove the row")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"has {str(value)[:80]!r} in {name!r}: give a string or a number")
    return str(value)


def _label_text(spec: TaskSpec, value: Any) -> str:
    """Returns a label as a string; a file may hold it as a string, a number or a boolean."""
    if isinstance(value, bool):
        value = str(value).lower()
    whole = isinstance(value, float) and value.is_integer()
    text = "" if value is None else str(int(value)) if whole else str(value)
    if text in spec.leave_out:
        raise _LeftOut
    return text


def _label(spec: TaskSpec, value: Any) -> int:
    """Returns the class index of a label."""
    text = _label_text(spec, value)
    if text not in spec.labels:
        raise ValueError(
            f"has the label {text!r}: allowed are {', '.join(map(repr, spec.labels))}; add it to `labels`, or leave "
            f"its rows out with `leave_out: [{text!r}]`{nearest(text, spec.labels)}"
        )
    return spec.classes.index(spec.labels[text])


def _classification(spec: TaskSpec, record: dict) -> dict:
    label = _label(spec, _value(spec, record, "label"))
    return {"texts": [_text(spec, record, "text")], "label": label}


def _pair(spec: TaskSpec, record: dict) -> dict:
    label = _label(spec, _value(spec, record, "label"))
    return {"texts": [_text(spec, record, role) for role in ("first", "second")], "label": label}


def _regression(spec: TaskSpec, record: dict) -> dict:
    value = _value(spec, record, "label")
    try:
        label = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        label = math.nan
    if not math.isfinite(label):
        raise ValueError(f"has {str(value)!r} in {spec.columns['label']!r}: give a finite number")
    return {"texts": [_text(spec, record, role) for role in spec.columns if role != "label"], "label": label}


def _choice(spec: TaskSpec, record: dict) -> dict:
    names, context = spec.columns["choices"], _text(spec, record, "context")
    if isinstance(names, list):
        choices = [_as_text(record.get(name), name) for name in names]
    else:
        given = _value(spec, record, "choices")
        if not isinstance(given, list) or len(given) < 2:
            raise ValueError(
                f"has {str(given)[:80]!r} in {names!r}: give a list of at least two, or name one column for each in "
                "`columns: {choices: [COLUMN, ...]}`"
            )
        choices = [_as_text(choice, names) for choice in given]
    value = _value(spec, record, "label")
    if spec.labels:
        label = _label(spec, value)
    else:
        text = _label_text(spec, value)
        if text not in map(str, range(len(choices))):
            raise ValueError(
                f"has the label {text!r}: allowed are 0 to {len(choices) - 1}, the number of the right choice; name "
                "others in `labels`, in the order of the choices"
            )
        label = int(text)
    return {"texts": [[context, choice] for choice in choices], "label": label}


def _check_counts(spec: TaskSpec, rows: list[dict]) -> list[str]:
    count = len(spec.classes) or (len(rows[0]["texts"]) if rows else 0)
    what = "`labels` has" if spec.labels else "the first one has"
    return [
        f"row {row['id']} has {number_of(len(row['texts']), 'choice')}, but {what} {count}: give every row the same "
        "number"
        for row in rows
        if len(row["texts"]) != count
    ]


def _span(spec: TaskSpec, record: dict) -> dict:
    """Answers are a text, a list of texts, or SQuAD's {"text": [...], "answer_start": [...]}."""
    question, context = _text(spec, record, "question"), _text(spec, record, "context")
    given = _value(spec, record, "answers")
    starts = _value(spec, record, "start") if "start" in spec.columns else None
    if isinstance(given, dict):
        given, starts = given.get("text"), given.get("answer_start", starts)
    texts = [] if given in (None, "") else given if isinstance(given, list) else [given]
    texts = [_as_text(text, str(spec.columns["answers"])) for text in texts]
    places = [None] * len(texts) if starts in (None, "") else starts if isinstance(starts, list) else [starts]
    if not texts and not spec.unanswerable:
        raise ValueError("has no answer: give one, or write `unanswerable: true` in the task file")
    if len(places) != len(texts) and texts:
        raise ValueError(
            f"has {number_of(len(texts), 'answer')} but {number_of(len(places), 'start')}: give one for each"
        )
    found = [_place(context, text, place) for text, place in zip(texts, places)]
    return {"question": question, "context": context, "answers": {"text": texts, "answer_start": found}, "label": 0}


def _place(context: str, text: str, place: Any) -> int:
    """Returns the index of an answer's first character in its context: `place`, or where the answer first occurs."""
    if place is None:
        start = context.find(text)
        if start < 0:
            raise ValueError(
                f"has the answer {text[:80]!r}, which its context does not contain: give a part of the context"
            )
        return start
    start = int(place) if str(place).isdecimal() else -1
    if start < 0 or context[start : start + len(text)] != text:
        seen = context[start : start + len(text)] if start >= 0 else ""
        raise ValueError(
            f"has the answer {text[:80]!r}, but its context has {seen[:80]!r} at the start {place!r}: correct one"
        )
    return start


def _attribute(spec: TaskSpec, record: dict) -> dict:
    names = spec.columns["label"]
    if isinstance(names, list):
        given = [value for value in (record.get(name) for name in names) if value not in (None, "")]
    else:
        value = _value(spec, record, "label")
        given = value if isinstance(value, list) else [value]
        if spec.separator and isinstance(value, str):
            given = [part.strip() for part in value.split(spec.separator)]
    if not given:
        raise ValueError("has no right answer: give at least one")
    answers = list(dict.fromkeys(_label(spec, value) for value in given))
    return {**_fields(spec, record), "label": answers[0], "answers": answers}


def _comparison(spec: TaskSpec, record: dict) -> dict:
    label, fields = _label(spec, _value(spec, record, "label")), _fields(spec, record)
    if fields["first"] == fields["second"]:
        raise ValueError(f"compares {fields['first']!r} with itself: give two objects")
    return {**fields, "object": fields["first"], "other": fields["second"], "label": label}


def _fields(spec: TaskSpec, record: dict) -> dict[str, str]:
    return {role: _text(spec, record, role) for role in spec.columns if role != "label"}


PARSERS: dict[str, Callable[[TaskSpec, dict], dict]] = {
    "classification": _classification,
    "pair": _pair,
    "regression": _regression,
    "choice": _choice,
    "span": _span,
    "attribute": _attribute,
    "comparison": _comparison,
}


def describe_left_out(spec: TaskSpec, split: str, kept: int, places: list[str]) -> str:
    """Returns a sentence about the rows of a split that `leave_out` leaves out."""
    labels = ", ".join(map(repr, spec.leave_out))
    return f"{split}: {len(places)} of {kept + len(places)} rows, which have the label {labels} ({listed(places)})"
