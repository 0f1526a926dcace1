"""SQuAD 1.1 and 2.0 (Rajpurkar et al., EMNLP 2016 and ACL 2018)."""

import json
from functools import partial
from pathlib import Path

from .heads import Spans
from .metrics import load_metric
from .reading import check_fields, open_text
from .spans import Span
from .task import Task, make_recipe


def read_squad(path: Path, split: str) -> list[dict]:
    """Reads the official JSON into one row per question.

    Raises:
        ValueError: The file has another layout, or an answer is not at its position in the context.
    """
    with open_text(path) as file:
        content = json.load(file)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is a list, but SQuAD's JSON is an object with 'data': give the official file")
    check_fields(path, content, ("data",))
    rows = []
    for article in content["data"]:
        check_fields(f"an article of {path}", article, ("paragraphs",))
        for paragraph in article["paragraphs"]:
            check_fields(f"a paragraph of {path}", paragraph, ("context", "qas"))
            for question in paragraph["qas"]:
                check_fields(f"a question of {path}", question, ("id", "question"))
                rows.append(_row(paragraph["context"], question, path))
    return rows


def _row(context: str, question: dict, path: Path) -> dict:
    answers = question.get("answers")
    for answer in answers or ():
        found = context[answer["answer_start"] : answer["answer_start"] + len(answer["text"])]
        if found != answer["text"]:
            raise ValueError(
                f"question {question['id']!r} of {path} has the answer {answer['text']!r}, but its context has "
                f"{found!r} at that position: give the official file"
            )
    unanswerable = question.get("is_impossible", False)
    known = [] if unanswerable or answers is None else answers
    return {
        "id": question["id"],
        "question": question["question"],
        "context": context,
        "answers": {key: [answer[key] for answer in known] for key in ("text", "answer_start")},
        "label": None if answers is None and not unanswerable else 0,
    }


def write_squad(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    """Writes `{id: text}`, and next to it `nbest_predictions.json` and, for SQuAD 2.0, `null_odds.json`."""
    files = {path.name: "text", "nbest_predictions.json": "n_best"}
    if task.head.may_be_unanswerable:
        files["null_odds.json"] = "null_odds"
    for name, field in files.items():
        content = {row["id"]: getattr(span, field) for row, span in zip(rows, predictions)}
        (path.parent / name).write_text(json.dumps(content, indent=1) + "\n")


class SquadTask(Task):
    """A task whose predictions are [`Span`]s."""

    def constants(self, rows):
        return [[Span("", 0.0, "", [])] * len(rows)]

    def examples(self, rows, predictions):
        from .metrics.squad import question_scores  # imports evaluate, which takes seconds

        version_2 = self.head.may_be_unanswerable
        pairs = [question_scores(span.text, row["answers"]["text"], version_2) for row, span in zip(rows, predictions)]
        return {"scores": [100 * f1 for _, f1 in pairs]}

    def score(self, rows, predictions):
        spans = [
            {"id": row["id"], "text": span.text, "null_odds": span.null_odds, "best": span.best}
            for row, span in zip(rows, predictions)
        ]
        references = [{"id": row["id"], "answers": row["answers"]} for row in rows]
        return self.metric().compute(predictions=spans, references=references)


def _squad(name: str, title: str, version: str, learning_rate: float) -> Task:
    return SquadTask(
        title=title,
        head=Spans(may_be_unanswerable=name == "squad_v2"),
        data=(f"rajpurkar/{name}", None),
        folder="squad",
        files={"train": f"train-{version}.json", "validation": f"dev-{version}.json", "test": f"test-{version}.json"},
        parse=read_squad,
        row=lambda row: {**row, "label": 0},
        metric=partial(load_metric, "squad", name),
        main="f1",
        recipe=make_recipe(learning_rate, epochs=2.0, batch_size=12, max_length=384),
        test={"test": "predictions.json"},
        write_submission=write_squad,
        percent=True,
    )


SQUAD = {
    "squad": _squad("squad", "SQuAD 1.1", "v1.1", 3e-5),
    "squad_v2": _squad("squad_v2", "SQuAD 2.0", "v2.0", 5e-5),
}
