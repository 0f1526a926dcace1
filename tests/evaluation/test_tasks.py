"""Every task, from a folder in its official layout to a score and a submission file; and files with other layouts."""

import json
import lzma

import pytest
from downstream_data import ROWS, arguments
from helpers import WORDS

from vidlankd_hf.evaluation import TASKS, reading
from vidlankd_hf.evaluation.finetune import finetune
from vidlankd_hf.evaluation.glue import DIAGNOSTICS
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.evaluation.task import Task

TUNED = [name for name, task in TASKS.items() if isinstance(task, Task) and name != "world"]


SUBMISSIONS = {
    "cola": {"CoLA.tsv": ("index\tprediction", {"0", "1"})},
    "sst2": {"SST-2.tsv": ("index\tprediction", {"0", "1"})},
    "mrpc": {"MRPC.tsv": ("index\tprediction", {"0", "1"})},
    "stsb": {"STS-B.tsv": ("index\tprediction", None)},
    "qqp": {"QQP.tsv": ("index\tprediction", {"0", "1"})},
    "mnli": {
        "MNLI-m.tsv": ("index\tprediction", {"entailment", "neutral", "contradiction"}),
        "MNLI-mm.tsv": ("index\tprediction", {"entailment", "neutral", "contradiction"}),
        "AX.tsv": ("index\tprediction", {"entailment", "neutral", "contradiction"}),
    },
    "qnli": {"QNLI.tsv": ("index\tprediction", {"entailment", "not_entailment"})},
    "rte": {"RTE.tsv": ("index\tprediction", {"entailment", "not_entailment"})},
    "wnli": {"WNLI.tsv": ("index\tprediction", {"0", "1"})},
    "swag": {"predictions.csv": (",pred", {"0", "1", "2", "3"})},
    "piqa": {"predictions.lst": (None, {"0", "1"})},
    "tracie": {"eval_results_lm.txt": (None, {"answer: positive", "answer: negative"})},
    "tracie_uniform": {"eval_results_lm.txt": (None, {"answer: positive", "answer: negative"})},
}


@pytest.mark.parametrize("name", TUNED)
def test_task_is_trained_scored_and_its_submission_written(name, data, model, tmp_path):
    result = finetune(model, name, arguments(tmp_path / "run"), str(data), submission=True)
    task = TASKS[name]
    assert result["steps"] == 12 // 4 and result["train_size"] == 12
    assert set(task.evaluate_on) <= set(result["scores"])
    top = 100 if task.percent else 1
    assert -1 <= result["score"] <= top and result["score"] == (
        result["scores"][task.evaluate_on[0]][task.main] or 0.0
    )
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(result))
    for file, (header, values) in SUBMISSIONS.get(name, {}).items():
        lines = (tmp_path / "run" / file).read_text().splitlines()
        if header is not None:
            assert lines.pop(0) == header
            ids, lines = zip(*(line.replace("\t", ",").split(",") for line in lines))
            assert ids == tuple(map(str, range(len(lines))))
        count = 4 if file == "AX.tsv" else 8 if file == "eval_results_lm.txt" else ROWS["test"]
        assert len(lines) == count
        assert values is None or set(lines) <= values
        if name == "stsb":
            assert all(0 <= float(line) <= 5 for line in lines)


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
def test_submitted_answers_are_spans_of_their_contexts(name, data, model, tmp_path):
    finetune(model, name, arguments(tmp_path), str(data), submission=True)
    answers = json.loads((tmp_path / "predictions.json").read_text())
    rows = {row["id"]: row for row in read_rows(TASKS[name], str(data), "test")}
    assert answers.keys() == rows.keys()
    for key, answer in answers.items():
        assert answer in rows[key]["context"] and (answer or name == "squad_v2")
    best = json.loads((tmp_path / "nbest_predictions.json").read_text())
    for entries in best.values():
        shares = [entry["probability"] for entry in entries]
        assert sum(shares) == pytest.approx(1) and shares == sorted(shares, reverse=True)
        assert any(entry["text"] == "" for entry in entries) == (name == "squad_v2")
    assert (tmp_path / "null_odds.json").exists() == (name == "squad_v2")


def test_mnli_model_is_scored_on_the_labeled_diagnostics_by_category(data, model, tmp_path):
    scores = finetune(model, "mnli", arguments(tmp_path), str(data))["scores"]
    assert set(scores) == {"validation_matched", "validation_mismatched", "GLUE diagnostics"}
    expected = {"Lexical Semantics: Factivity", "Logic: Negation", "Logic: Conditionals", "Knowledge: World knowledge"}
    assert expected < set(scores["GLUE diagnostics"])
    assert not (tmp_path / "AX.tsv").exists()


def test_rows_say_what_the_files_say(data):
    def first(name, split="train"):
        return read_rows(TASKS[name], str(data), split)[1]

    assert first("cola")["label"] == 1 and first("cola")["texts"][0].startswith(WORDS[0])
    assert first("mrpc")["texts"][0].startswith('" '), "a quotation mark in a TSV is a character, not a quotation"
    assert first("stsb")["label"] == 1.25
    assert first("mnli")["label"] == 1 and first("rte")["label"] == 1 and first("wnli")["label"] == 1
    assert first("swag")["label"] == 1 and "," in first("swag")["texts"][0][1]
    assert [pair[0] for pair in first("piqa")["texts"]] == [first("piqa")["texts"][0][0]] * 2
    row = first("squad_v2")
    start, text = row["answers"]["answer_start"][0], row["answers"]["text"][0]
    assert row["context"][start : start + len(text)] == text
    assert read_rows(TASKS["squad_v2"], str(data), "train")[0]["answers"] == {"text": [], "answer_start": []}
    row = first("tracie")
    assert row["label"] == 1 and "starts after" in row["texts"][0] and "answer" not in row["texts"][1]
    assert all(r["label"] is None for r in read_rows(TASKS["sst2"], str(data), "test"))


def test_compressed_files_and_folders_at_every_level_are_found(data, tmp_path):
    expected = read_rows(TASKS["rte"], str(data), "train")
    assert read_rows(TASKS["rte"], str(data / "glue"), "train") == expected
    assert read_rows(TASKS["rte"], str(data / "glue" / "RTE"), "train") == expected
    with lzma.open(tmp_path / "train.tsv.xz", "wb") as file:
        file.write((data / "glue" / "RTE" / "train.tsv").read_bytes())
    assert read_rows(TASKS["rte"], str(tmp_path), "train") == expected


@pytest.mark.parametrize("name", ["piqa", "coda"])
def test_a_second_file_may_be_compressed_too(name, data, tmp_path):
    task = TASKS[name]
    folder = data / task.folder
    for file in folder.iterdir():
        with lzma.open(tmp_path / f"{file.name}.xz", "wb") as compressed:
            compressed.write(file.read_bytes())
    read = task.items if name == "coda" else lambda source: read_rows(task, source, "train")
    assert read(str(tmp_path)) == read(str(folder))


def test_broken_lines_of_qqp_are_skipped_with_a_warning_and_are_errors_in_other_tables(data, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(reading.logger, "warning", warnings.append)
    table = (data / "glue" / "QQP" / "train.tsv").read_text()
    (tmp_path / "train.tsv").write_text(table + "\tWas he a real figure?\t0\n" + table.partition("\n")[2])
    rows, expected = (read_rows(TASKS["qqp"], str(folder), "train") for folder in (tmp_path, data))
    assert [row["texts"] for row in rows] == [row["texts"] for row in expected] * 2
    assert len(warnings) == 1 and warnings[0].startswith("Skipped 1 broken line, the first because line 14 of ")
    (tmp_path / "test.tsv").write_text("id\tquestion1\tquestion2\n0\ta\n")
    with pytest.raises(ValueError, match="line 2 of .* has 2 fields"):
        read_rows(TASKS["qqp"], str(tmp_path), "test")


def test_a_limit_takes_the_same_rows_every_time(data):
    some = read_rows(TASKS["rte"], str(data), "train", limit=5)
    assert some == read_rows(TASKS["rte"], str(data), "train", limit=5) and len(some) == 5
    everything = read_rows(TASKS["rte"], str(data), "train")
    assert all(row in everything for row in some)
    assert len(read_rows(TASKS["rte"], str(data), "train", limit=99)) == 12


@pytest.mark.parametrize(
    "name, file, content, message",
    [
        ("sst2", "train.tsv", "text\tlabel\na\t1\n", "no 'sentence', only 'text', 'label'"),
        ("sst2", "train.tsv", "sentence\tlabel\na b\n", "line 2 of .* has 1 field, but the header has 2"),
        ("sst2", "train.tsv", "sentence\tlabel\na\t2\n", "label '2', but only 0, 1 are allowed"),
        ("sst2", "train.tsv", "sentence\tlabel\n", "holds no rows"),
        ("cola", "train.tsv", "sentence\tlabel\na\t1\n", "line 1 of .* has 2 fields; CoLA's have 4"),
        ("rte", "train.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n", "no 'label'"),
        ("squad", "train-v1.1.json", "[]", "is a list"),
        ("squad", "train-v1.1.json", '{"data": [{"title": "x"}]}', "no 'paragraphs'"),
        (
            "squad",
            "train-v1.1.json",
            '{"data": [{"paragraphs": [{"context": "abc", "qas": [{"id": "q", "question": "?", "answers": '
            '[{"text": "b", "answer_start": 0}]}]}]}]}',
            "has the answer 'b', but its context has 'a' at that position",
        ),
        (
            "squad",
            "train-v1.1.json",
            '{"data": [{"paragraphs": [{"context": "abc", "qas": [{"id": "q", "question": "?", "answers": '
            '[{"text": "b"}]}]}]}]}',
            r"not in the official layout \(KeyError: 'answer_start'\)",
        ),
        ("swag", "train.csv", "sent1,sent2\na,b\n", "no 'ending0'"),
        ("piqa", "train.jsonl", '{"goal": "g", "sol1": "a", "sol2": "b"}\n', "train-labels.lst is missing"),
        ("piqa", "train.jsonl", "{goal\n", "line 1 of .* is not a JSON object"),
        ("tracie", "tracie_train.txt", "event: a starts before b\tanswer: positive\n", "not in TRACIE's layout"),
        ("tracie", "tracie_train.txt", "event: a story: b\tanswer: maybe\n", "label 'maybe'"),
    ],
)  # fmt: skip
def test_wrong_layout_is_an_error_that_says_what_is_wrong(name, file, content, message, tmp_path):
    (tmp_path / file).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_rows(TASKS[name], str(tmp_path), "train")


def test_piqa_must_have_as_many_labels_as_rows(data, tmp_path):
    (tmp_path / "train.jsonl").write_bytes((data / "piqa" / "train.jsonl").read_bytes())
    (tmp_path / "train-labels.lst").write_text("0\n1\n")
    with pytest.raises(ValueError, match="has 2 labels, but train.jsonl has 12 rows"):
        read_rows(TASKS["piqa"], str(tmp_path), "train")


def test_missing_split_folder_and_labels_are_errors(data, model, tmp_path):
    (tmp_path / "dev.tsv").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"train split is in train.tsv, but .* contains only dev.tsv: put"):
        read_rows(TASKS["rte"], str(tmp_path), "train")
    with pytest.raises(
        FileNotFoundError, match="is not a folder: give the folder of RTE, or omit --data to read from the Hub"
    ):
        read_rows(TASKS["rte"], str(tmp_path / "nothing"), "train")
    with pytest.raises(FileNotFoundError, match="put the file there$"):
        read_rows(TASKS["tracie"], str(tmp_path), "train")
    with pytest.raises(ValueError, match="no split 'dev'"):
        read_rows(TASKS["rte"], str(data), "dev")
    with pytest.raises(ValueError, match="3 of 3 rows of RTE's test split .* have no label"):
        read_rows(TASKS["rte"], str(data), "test", labelled=True)
    with pytest.raises(ValueError, match="there is no task 'sst3'; did you mean sst2.: choose one of cola, "):
        finetune(model, "sst3", arguments(tmp_path / "run"), str(data))
    with pytest.raises(ValueError, match="scored without fine-tuning"):
        finetune(model, "coda", arguments(tmp_path / "run"), str(data))
    with pytest.raises(ValueError, match="TRACIE, i.i.d. is not on the Hub: give --data"):
        read_rows(TASKS["tracie"], None, "train")
    assert not (tmp_path / "run").exists(), "errors come before anything is written"


@pytest.mark.parametrize("name", [*TUNED, "diagnostics"])
def test_hub_rows_become_the_same_rows(name, monkeypatch):
    """Rows from the columns of the Hub's data sets equal the rows of the official files."""
    pair = {"idx": 4, "sentence1": "a", "sentence2": "b", "label": 1}
    rows = {
        "cola": {"idx": 4, "sentence": "a", "label": 1},
        "sst2": {"idx": 4, "sentence": "a", "label": 1},
        "mrpc": pair,
        "stsb": {**pair, "label": 0.0},
        "qqp": {"idx": 4, "question1": "a", "question2": "b", "label": 1},
        "mnli": {"idx": 4, "premise": "a", "hypothesis": "b", "label": 1},
        "diagnostics": {"idx": 4, "premise": "a", "hypothesis": "b", "label": -1},
        "qnli": {"idx": 4, "question": "a", "sentence": "b", "label": 1},
        "rte": pair,
        "wnli": {**pair, "label": -1},
        "swag": {"sent1": "a", "sent2": "b", **{f"ending{i}": str(i) for i in range(4)}, "label": 1},
        "piqa": {"goal": "a", "sol1": "0", "sol2": "1", "label": 1},
        "squad": {"id": "q", "question": "?", "context": "a", "answers": {"text": ["a"], "answer_start": [0]}},
        "squad_v2": {"id": "q", "question": "?", "context": "a", "answers": {"text": [], "answer_start": []}},
    }
    if name.startswith("tracie"):
        return
    asked = []

    def load(*arguments, split):
        asked.append((*arguments, split))
        return [rows[name]]

    monkeypatch.setattr("vidlankd_hf.evaluation.reading.load_dataset", load)
    task = DIAGNOSTICS if name == "diagnostics" else TASKS[name]
    (row,) = read_rows(task, None, "test" if name == "diagnostics" else task.evaluate_on[0])
    assert asked[0][:2] == task.data
    expected = {
        "cola": ["a"],
        "sst2": ["a"],
        "swag": [["a", f"b {i}"] for i in range(4)],
        "piqa": [["a", "0"], ["a", "1"]],
    }
    if name.startswith("squad"):
        assert row["answers"] == rows[name]["answers"] and row["context"] == "a"
    else:
        assert row["texts"] == expected.get(name, ["a", "b"])
    assert row["label"] == {"stsb": 0.0, "wnli": None, "diagnostics": None, "squad": 0, "squad_v2": 0}.get(name, 1)
