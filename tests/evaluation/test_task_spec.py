"""Task files with mistakes: each names the value, what is allowed and what to do, all at once."""

import pytest
from task_files import write_table, write_task

from vidlankd_hf.evaluation.task_spec import read_spec


@pytest.fixture
def good(tmp_path):
    """The content of a task file without mistakes, next to its data."""
    for split in ("train", "dev"):
        write_table(tmp_path / f"{split}.tsv", [{"text": "a", "label": "sad"}])
    files = {"train": "train.tsv", "validation": "dev.tsv"}
    return {"kind": "classification", "files": files, "labels": ["sad", "glad"]}


def test_a_task_file_has_defaults_for_what_it_leaves_out(tmp_path, good):
    spec = read_spec(write_task(tmp_path / "moods.yaml", **good))
    assert (spec.name, spec.title, spec.metric) == ("moods", "moods", "accuracy")
    assert spec.columns == {"text": "text", "label": "label"} and spec.classes == ("sad", "glad")
    assert spec.files == {"train": str(tmp_path / "train.tsv"), "validation": str(tmp_path / "dev.tsv")}


ATTRIBUTE = {"kind": "attribute", "templates": ["the {object} is {word}."]}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "clasification"}, "kind is 'clasification': choose one of .*did you mean classification"),
        ({"labls": ["a"]}, "'labls' is not a key: write any of title, .*did you mean labels"),
        ({"unanswerable": True}, "'unanswerable' belongs to span, not to classification"),
        ({"labels": None}, r"labels is None: write a list such as \[negative"),
        ({"labels": ["sad"]}, "labels are sad: name at least two"),
        ({"labels": ["sad", "glad", "sad"]}, "labels has 'sad' twice"),
        ({"labels": [True, False]}, "labels has True: yes, no, on, off.* write them in quotation marks"),
        ({"files": {"train": "train.tsv"}}, "files has only train: add a split to score"),
        ({"files": {"validation": "dve.tsv"}}, "dve.tsv, which does not exist"),
        ({"files": {"validation": "notes.txt"}}, "notes.txt, which does not exist: .* ending in .csv, .tsv, .parquet"),
        ({"files": {"my split": "dev.tsv"}}, "files has the split 'my split': use letters"),
        ({"columns": {"txt": "text"}}, "columns has 'txt': a classification has text, label; did you mean text"),
        ({"columns": {"text": ["a", "b"]}}, r"columns: text is \['a', 'b'\]: write the name of a column"),
        ({"metric": "acuracy"}, "metric is 'acuracy': choose one of accuracy, macro_f1.*did you mean accuracy"),
        ({"recipe": {"epoch": 3}}, "recipe has 'epoch': write any of .*did you mean epochs"),
        ({"recipe": {"batch_size": 2.5}}, "recipe: batch_size is 2.5: write an integer above 0"),
        ({"quotes": "perhaps"}, "quotes is 'perhaps': write true or false"),
        ({"model_labels": {"LABEL_0": "bad"}}, "model_labels has 'bad': the labels of the task are sad, glad"),
        ({**ATTRIBUTE, "templates": ["it is red"]}, "templates has 'it is red': write a sentence with {word} and any"),
        ({**ATTRIBUTE, "templates": ["{object.x} {word}"]}, "templates has '{object.x} {word}'"),
        ({**ATTRIBUTE, "templates": ["{objct} is {word}"]}, "any of {word}, {object}"),
        ({"kind": "comparison", "templates": ["{first} {word}"], "labels": ["a", "b", "c"]},
         "labels are a, b, c: name 2"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_named_with_what_is_allowed(tmp_path, good, change, message):
    with pytest.raises(ValueError, match=message):
        read_spec(write_task(tmp_path / "moods.yaml", **{**good, **change}))


def test_all_mistakes_are_named_at_once(tmp_path, good):
    wrong = {**good, "metric": "f2", "labels": ["sad"], "colums": {}, "files": {"validation": "x.tsv"}}
    with pytest.raises(ValueError) as error:
        read_spec(write_task(tmp_path / "moods.yaml", **wrong))
    assert len(str(error.value).splitlines()) == 5


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path, good):
    (tmp_path / "moods.yaml").write_text(
        write_task(tmp_path / "x.yaml", **good).read_text() + "recipe: {learning_rate: 1e-4}\n"
    )
    assert read_spec(tmp_path / "moods.yaml").recipe == {"learning_rate": 1e-4}


def test_what_is_no_task_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none.yaml is not a file: give a YAML file"):
        read_spec(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="describes no task: write lines"):
        read_spec(tmp_path / "list.yaml")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.system [ls]")
    with pytest.raises(ValueError, match="is not a YAML file of settings"):
        read_spec(tmp_path / "code.yaml")
