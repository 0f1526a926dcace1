"""Tasks from files are trained, scored and reported as those of the package are."""

import json

import numpy as np
import pytest
import torch
from downstream_data import VOCABULARY, arguments, make_pair_tokenizer, sentence
from helpers import WORDS, make_config
from task_files import write_table, write_task
from transformers import BertForMaskedLM

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.card import finetuning_results, zero_shot_results
from vidlankd_hf.evaluation.finetune import finetune
from vidlankd_hf.evaluation.metrics import load_metric
from vidlankd_hf.evaluation.significance import STATISTICS, paired_test
from vidlankd_hf.evaluation.task_files import add_task_file
from vidlankd_hf.evaluation.zero_shot import evaluate_zero_shot


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    """Task files add to `TASKS`."""
    before = dict(TASKS)
    yield
    for name in set(TASKS) - set(before):
        del TASKS[name]


def words(count: int, start: int = 0) -> str:
    return " ".join(WORDS[2 + (start + i) % 50] for i in range(count))


ROWS = {
    "classification": lambda i: {"text": sentence(i, i), "label": ("sad", "glad")[i % 2]},
    "pair": lambda i: {"first": sentence(i, i), "second": sentence(i), "label": ("sad", "glad")[i % 2]},
    "regression": lambda i: {"text": sentence(i, i), "label": i % 5 / 2},
    "choice": lambda i: {"context": sentence(i), "choices": [sentence(j, j == i % 2) for j in (0, 1)], "label": i % 2},
    "span": lambda i: {"question": WORDS[i], "context": words(20, i), "answers": words(2, i + 5)},
}  # fmt: skip


def make_task(folder, kind, **content):
    files = {"train": "train.jsonl", "validation": "dev.jsonl", "hard": "hard.jsonl"}
    for split, count in (("train", 12), ("dev", 9), ("hard", 5)):
        write_table(folder / f"{split}.jsonl", [ROWS[kind](i) for i in range(count)])
    content = {"labels": ["sad", "glad"], **content} if kind in ("classification", "pair") else content
    return write_task(folder / f"own_{kind}.yaml", kind=kind, files=files, **content)


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_is_fine_tuned_and_scored_on_all_its_splits(kind, model, tmp_path):
    (name,) = add_task_file(make_task(tmp_path, kind, recipe={"max_length": 40}))
    result = finetune(model, name, arguments(tmp_path / "run"))
    assert name == f"own_{kind}" and (result["train_size"], result["eval_size"]) == (12, 9)
    assert list(result["scores"]) == ["validation", "hard"] and TASKS[name].main in result["scores"]["hard"]
    assert result["max_length"] == 40 and "left_out" not in result
    for entry in finetuning_results(TASKS[name], name, [result]):
        assert (entry.dataset_type, entry.dataset_name) == (name, name)


def test_a_finished_run_is_not_used_for_other_data_of_the_same_task(model, tmp_path):
    path = make_task(tmp_path, "pair")
    add_task_file(path)
    finetune(model, "own_pair", arguments(tmp_path / "run"))
    write_table(tmp_path / "hard.jsonl", [ROWS["pair"](7)])
    add_task_file(path)
    with pytest.raises(ValueError, match="holds a run with other settings .*task_data"):
        finetune(model, "own_pair", arguments(tmp_path / "run"))


def test_rows_that_are_left_out_are_in_the_result(model, tmp_path):
    path = make_task(tmp_path, "classification", leave_out=["-"])
    write_table(
        tmp_path / "dev.jsonl", [{"text": sentence(i, i), "label": ("sad", "glad", "-")[i % 3]} for i in range(9)]
    )
    add_task_file(path)
    result = finetune(model, "own_classification", arguments(tmp_path / "run"))
    assert result["left_out"] == ["validation: 3 of 9 rows, which have the label '-' (row 3, row 6, row 9)"]
    assert result["eval_size"] == 6


def test_questions_without_an_answer_are_scored_as_in_squad_2(model, tmp_path):
    path = make_task(tmp_path, "span", unanswerable=True, recipe={"max_length": 40})
    write_table(
        tmp_path / "dev.jsonl", [{**ROWS["span"](i), "answers": None if i % 2 else words(1, i)} for i in range(6)]
    )
    add_task_file(path)
    result = finetune(model, "own_span", arguments(tmp_path / "run"))
    assert {"HasAns_f1", "NoAns_f1"} <= set(result["scores"]["validation"]) and result["constant_score"] == 50.0


def test_a_name_that_is_taken_and_data_twice_are_refused(model, tmp_path):
    path = make_task(tmp_path, "pair")
    path.rename(tmp_path / "rte.yaml")
    with pytest.raises(ValueError, match="defines the task 'rte', but another task has this name: rename the file"):
        add_task_file(tmp_path / "rte.yaml")
    (name,) = add_task_file(make_task(tmp_path, "pair"))
    with pytest.raises(ValueError, match="own_pair.yaml names the files of own_pair: leave out --data"):
        finetune(model, name, arguments(tmp_path / "run"), data="tasks")


# ---- without fine-tuning ----

COLOURS = ("red", "green", "blue")
TEMPLATES = ["the {object} is {word}.", "most {object} is {word}."]


@pytest.fixture(scope="module")
def tokenizer():
    return make_pair_tokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def masked_lm(tokenizer):
    torch.manual_seed(0)
    return BertForMaskedLM(make_config(tokenizer)).eval()


def attribute_task(folder, files, **content):
    for number, name in enumerate(files.values()):
        rows = [{"object": WORDS[10 * number + i], "label": [COLOURS[i % 3], COLOURS[0]]} for i in range(9)]
        write_table(folder / name, rows)
    content = {"labels": list(COLOURS), "templates": TEMPLATES, **content}
    return write_task(folder / "own_colours.yaml", kind="attribute", title="Colours", files=files, **content)


def test_each_split_of_an_attribute_set_is_scored_with_all_right_answers(tmp_path, masked_lm, tokenizer):
    path = attribute_task(tmp_path, {"train": "train.jsonl", "common": "common.jsonl", "rare": "rare.jsonl"})
    assert add_task_file(path) == ["own_colours_common", "own_colours_rare"]
    for split in ("common", "rare"):
        task = TASKS[f"own_colours_{split}"]
        result = evaluate_zero_shot(task, masked_lm, tokenizer, None, masked_lm)
        assert (task.title, result["size"], result["chance"]) == (f"Colours: {split}", 9, 1 / 3)
        assert result["majority"] == 1.0, "red is among the right answers of every object"
        assert len(result["masked"]["right"]) == 9 and "spearman" not in result["masked"]
        entries = zero_shot_results(task, f"own_colours_{split}", result)
        assert {(e.dataset_type, e.dataset_split) for e in entries} == {(f"own_colours_{split}", split)}


def test_training_objects_that_a_probe_must_not_see_are_named(tmp_path):
    path = attribute_task(tmp_path, {"train": "train.jsonl", "test": "test.jsonl"})
    rows = [{"object": WORDS[i], "label": [COLOURS[i % 3]]} for i in range(7, 16)]
    write_table(tmp_path / "train.jsonl", rows)
    add_task_file(path)
    (text,) = TASKS["own_colours"].own.left_out
    assert text.startswith("train: 6 of 9 rows, because test has the same objects (") and "1 more" in text


def test_comparisons_are_scored_and_need_enough_objects(tmp_path, masked_lm, tokenizer):
    things = WORDS[:5]
    rows = [{"first": a, "second": b, "label": ("larger", "smaller")[a < b]} for a in things for b in things if a != b]
    write_table(tmp_path / "t.tsv", rows)
    content = {"kind": "comparison", "files": {"test": "t.tsv"}, "labels": ["larger", "smaller"]}
    path = write_task(tmp_path / "own_sizes.yaml", **content, templates=["{first} is {word} than {second}."])
    assert add_task_file(path) == ["own_sizes"]
    result = evaluate_zero_shot(TASKS["own_sizes"], masked_lm, tokenizer, None, masked_lm)
    assert (result["size"], result["majority"]) == (20, 0.5)
    write_table(tmp_path / "t.tsv", rows[:6])
    with pytest.raises(ValueError, match="have fewer than two labels, so no probe can be fitted"):
        add_task_file(path)


def test_sets_to_which_no_probe_can_be_fitted_are_refused(tmp_path):
    path = attribute_task(tmp_path, {"test": "test.jsonl"})
    write_table(tmp_path / "test.jsonl", [{"object": WORDS[i], "label": [COLOURS[i == 4]]} for i in range(9)])
    with pytest.raises(ValueError, match="has 9 rows, of which 1 have another answer"):
        add_task_file(path)
    write_table(tmp_path / "test.jsonl", [{"object": WORDS[i], "label": [COLOURS[i % 2]]} for i in range(4)])
    with pytest.raises(ValueError, match="has 4 rows: give at least 5, or a train split"):
        add_task_file(path)


# ---- the metrics that task files add ----


def test_macro_f1_and_the_rank_correlation_are_those_of_sklearn_and_scipy():
    from scipy.stats import spearmanr
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 3, 40), generator.integers(0, 4, (2, 40))
    expected = [f1_score(labels, p, labels=[0, 1, 2], average="macro") for p in predictions]
    assert STATISTICS["macro_f1"](predictions, labels) == pytest.approx(expected)
    metric = load_metric("f1").compute(predictions=predictions[0], references=labels)
    assert metric == {"macro_f1": pytest.approx(expected[0]), "accuracy": (predictions[0] == labels).mean()}
    numbers = generator.normal(size=(2, 40))
    expected = [spearmanr(n, labels).statistic for n in numbers]
    assert STATISTICS["spearmanr"](numbers, labels) == pytest.approx(expected)
    run = [{"predictions": labels.tolist(), "labels": labels.tolist()}]
    assert paired_test("macro_f1", run, run) == 1.0 and json.dumps(metric)
