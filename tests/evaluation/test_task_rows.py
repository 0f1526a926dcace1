"""Rows of task files: every format and kind, and rows that cannot be used."""

import pytest
from task_files import write_table, write_task

from vidlankd_hf.evaluation.task_rows import read_split
from vidlankd_hf.evaluation.task_spec import read_spec


def rows_of(folder, name, rows, **content):
    """The rows of a task whose only file holds `rows`."""
    write_table(folder / name, rows)
    rows, left_out = read_split(read_spec(write_task(folder / "t.yaml", files={"test": name}, **content)), "test")
    return [{name: value for name, value in row.items() if name != "id"} for row in rows], left_out


PAIR = {"kind": "pair", "labels": ["no", "yes"]}


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "t.parquet"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    rows = [{"a": "one, two" if name != "t.csv" else '"one, two"', "b": "x", "y": 1}, {"a": "three", "b": "z", "y": 0}]
    content = {**PAIR, "columns": {"first": "a", "second": "b", "label": "y"}, "labels": {0: "no", 1: "yes"}}
    assert rows_of(tmp_path, name, rows, **content)[0] == [
        {"texts": ["one, two", "x"], "label": 1},
        {"texts": ["three", "z"], "label": 0},
    ]


def test_several_labels_of_the_files_may_be_one_class(tmp_path):
    rows = [{"first": "a", "second": "b", "label": label} for label in ("neutral", "entailment", "contradiction")]
    labels = {"entailment": "yes", "neutral": "no", "contradiction": "no"}
    found, _ = rows_of(tmp_path, "t.tsv", rows, kind="pair", labels=labels)
    assert [row["label"] for row in found] == [1, 0, 1]


def test_a_regression_has_one_or_two_texts(tmp_path):
    assert rows_of(tmp_path, "t.tsv", [{"text": "a", "label": "2.5"}], kind="regression")[0] == [
        {"texts": ["a"], "label": 2.5}
    ]
    rows, columns = [{"l": "a", "r": "b", "label": 1}], {"first": "l", "second": "r"}
    (row,), _ = rows_of(tmp_path, "u.jsonl", rows, kind="regression", columns=columns)
    assert row == {"texts": ["a", "b"], "label": 1.0}


def test_choices_are_columns_or_a_list_and_labels_their_numbers_or_names(tmp_path):
    rows = [{"context": "c", "x": "one", "y": "two", "label": 1}]
    (row,), _ = rows_of(tmp_path, "t.csv", rows, kind="choice", columns={"choices": ["x", "y"]})
    assert row == {"texts": [["c", "one"], ["c", "two"]], "label": 1}
    rows = [{"context": "c", "choices": ["one", "two"], "label": "B"}]
    assert rows_of(tmp_path, "t.jsonl", rows, kind="choice", labels=["A", "B"])[0] == [row]


@pytest.mark.parametrize(
    "answer, start",
    [
        ("red hat", None),
        (["red hat", "hat"], None),
        ({"text": ["red hat"], "answer_start": [2]}, None),
        ("red hat", 2),
    ],
)
def test_answers_are_a_text_a_list_or_squads(tmp_path, answer, start):
    row = {"question": "q", "context": "a red hat", "answers": answer}
    content = {} if start is None else {"columns": {"start": "begin"}}
    (found,), _ = rows_of(tmp_path, "t.jsonl", [{**row, "begin": start}], kind="span", **content)
    assert (found["answers"]["text"][0], found["answers"]["answer_start"][0]) == ("red hat", 2)


ATTRIBUTE = {"kind": "attribute", "labels": ["red", "green", "blue"], "templates": ["{object} {word}"]}


@pytest.mark.parametrize(
    "name, row, more",
    [
        ("t.jsonl", {"object": "o", "label": ["green", "red"]}, {}),
        ("t.tsv", {"object": "o", "label": "green; red"}, {"separator": ";"}),
        ("t.csv", {"object": "o", "l1": "green", "l2": "red", "l3": ""}, {"columns": {"label": ["l1", "l2", "l3"]}}),
    ],
)
def test_several_answers_may_be_right(tmp_path, name, row, more):
    (item,), _ = rows_of(tmp_path, name, [row], **ATTRIBUTE, **more)
    assert item == {"object": "o", "label": 1, "answers": [1, 0]}


def test_labels_that_are_left_out_are_counted_by_row(tmp_path):
    rows = [{"first": "a", "second": "b", "label": label} for label in ("yes", "-", "no", "-")]
    found, left_out = rows_of(tmp_path, "t.tsv", rows, **PAIR, leave_out=["-"])
    assert len(found) == 2 and left_out == ["row 2", "row 4"]
    with pytest.raises(ValueError, match="holds no rows: `leave_out` leaves out all 2"):
        rows_of(tmp_path, "u.tsv", rows[1::2], **PAIR, leave_out=["-"])


ROW = {"first": "a", "second": "b", "label": "yes"}
SPAN = {"kind": "span"}
ANSWERED = {"question": "q", "context": "a red hat", "answers": "red"}


@pytest.mark.parametrize(
    "rows, content, message",
    [
        ([{**ROW, "label": "Yes"}], PAIR, r"the label 'Yes': allowed are 'no', 'yes'; .*leave_out: \['Yes'\]"),
        ([{**ROW, "label": None}], PAIR, "row 1 has the label ''"),
        ([ROW, {**ROW, "second": ""}], PAIR, "row 2 has nothing in 'second': give a text"),
        ([{**ROW, "second": ["b"]}], PAIR, "row 1 has .* in 'second': give a string or a number"),
        ([ROW, {"first": "a", "label": "yes"}], PAIR, "row 2 has no 'second': give every row all columns"),
        ([{"frist": "a", "second": "b", "label": 1}], PAIR, "no column 'first' for first, only 'frist'.*did you mean"),
        ([{"text": "a", "label": "much"}], {"kind": "regression"}, "'much' in 'label': give a finite number"),
        ([{"text": "a", "label": True}], {"kind": "regression"}, "give a finite number"),
        ([{"context": "c", "choices": ["a"], "label": 0}], {"kind": "choice"}, "give a list of at least two"),
        ([{"context": "c", "choices": ["a", "b"], "label": 2}], {"kind": "choice"}, "label '2': allowed are 0 to 1"),
        ([{"context": "c", "choices": ["a", "b"], "label": 0}, {"context": "c", "choices": ["a"] * 3, "label": 0}],
         {"kind": "choice"}, "row 2 has 3 choices, but the first one has 2"),
        ([{**ANSWERED, "answers": "blue"}], SPAN, "answer 'blue', which its context does not contain"),
        ([{**ANSWERED, "answers": None}], SPAN, "row 1 has no answer: .*unanswerable: true"),
        ([{**ANSWERED, "answers": {"text": ["red"], "answer_start": [0]}}], SPAN, "context has 'a r' at the start 0"),
        ([{"object": "o", "label": []}], ATTRIBUTE, "row 1 has no right answer"),
        ([], {**PAIR}, "no column 'first'"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(tmp_path, rows, content, message):
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path, "t.jsonl", rows, **content)


def test_many_wrong_rows_are_counted(tmp_path):
    with pytest.raises(ValueError, match=r"row 5 (.|\n)*and 4 more") as error:
        rows_of(tmp_path, "t.jsonl", [{**ROW, "label": "x"}] * 9, **PAIR)
    assert "row 6" not in str(error.value)


def test_a_header_with_a_column_twice_is_refused(tmp_path):
    (tmp_path / "t.tsv").write_text("text\tlabel\tlabel\na\tsad\tglad\n")
    spec = write_task(tmp_path / "t.yaml", kind="classification", files={"test": "t.tsv"}, labels=["sad", "glad"])
    with pytest.raises(ValueError, match="has the column 'label' 2 times: rename all but one"):
        read_split(read_spec(spec), "test")


def test_quotation_marks_in_tsv_need_to_be_explained(tmp_path):
    """GLUE's belong to the text, those of spreadsheets do not; a guess would change the text."""
    (tmp_path / "t.tsv").write_text('text\tlabel\n"so" he said\tsad\n" so\tglad\n')
    content = {"kind": "classification", "files": {"test": "t.tsv"}, "labels": ["sad", "glad"]}
    spec = write_task(tmp_path / "t.yaml", **content)
    with pytest.raises(ValueError, match="row 1 begins 'text' with a quotation mark: write `quotes: true`"):
        read_split(read_spec(spec), "test")
    rows, _ = read_split(read_spec(write_task(spec, **content, quotes=False)), "test")
    assert [row["texts"] for row in rows] == [['"so" he said'], ['" so']]
    (tmp_path / "t.tsv").write_text('"text"\t"label"\n"one two"\t"sad"\n')
    with pytest.raises(ValueError, match="no column 'text'.* or write `quotes: true`"):
        read_split(read_spec(write_task(spec, **content)), "test")
    rows, _ = read_split(read_spec(write_task(spec, **content, quotes=True)), "test")
    assert [row["texts"] for row in rows] == [["one two"]]


def test_a_hub_data_set_is_a_file_too(tmp_path, monkeypatch):
    import datasets

    table = datasets.Dataset.from_list([{"text": "a", "label": 1, "more": 2}])
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **o: asked.append((*a, o)) or table)
    spec = write_task(tmp_path / "t.yaml", kind="classification", files={"test": "owner/name:plain:dev"},
                      labels={0: "sad", 1: "glad"})  # fmt: skip
    assert read_split(read_spec(spec), "test")[0] == [{"id": "1", "texts": ["a"], "label": 1}]
    assert asked == [("owner/name", "plain", {"split": "dev"})]
