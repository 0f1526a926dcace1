"""The report, the paired test and the model card of results, and the commands `finetune` and `evaluate`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from downstream_data import VOCABULARY, make_data, make_pair_tokenizer, result_of
from helpers import make_config
from huggingface_hub import EvalResult, ModelCard
from scipy.stats import permutation_test
from transformers import BertForMaskedLM

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.card import finetuning_results, update_card, zero_shot_results
from vidlankd_hf.evaluation.report import best_recipe, summarize, write_report
from vidlankd_hf.evaluation.significance import STATISTICS, paired_test

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


def run_of(seed, score, rate=1e-4, collapsed=None, task="rte", predictions=None):
    labels = [0, 1] * 20
    metric = TASKS[task].main
    return {
        "task": task,
        "seed": seed,
        "score": score,
        "learning_rate": rate,
        "collapsed": collapsed,
        "scores": {TASKS[task].evaluate_on[0]: {metric: score}},
        "metric": metric,
        "constant_score": 0.5,
        "epochs": 3.0,
        "train_size": 8,
        "eval_size": 40,
        "seconds": 30.0,
        "train_rows": None,
        "eval_rows": None,
        "examples": {"predictions": predictions or labels, "labels": labels},
    }


@pytest.mark.parametrize("metric", ["accuracy", "matthews_correlation"])
def test_paired_test_estimates_the_exact_p_value_of_scipys_permutation_test(metric):
    """For three seeds, a metric that is a mean over examples and one that is not, over all 2^10 swaps."""
    labels = np.array([0, 1] * 5)
    first, second = np.random.default_rng(2).integers(0, 2, (2, 3, 10))
    second[:, :4] = labels[:4]
    both = np.concatenate([first, second], axis=1)

    def statistic(a, b):
        means = [STATISTICS[metric](both[:, places], labels).mean() for places in (a, b)]
        return abs(means[0] - means[1])

    places = np.arange(10), np.arange(10, 20)  # the predictions of all seeds are swapped together
    exact = permutation_test(
        places, statistic, permutation_type="samples", alternative="greater", n_resamples=np.inf, vectorized=False
    )
    assert len(exact.null_distribution) == 2**10 and 0.1 < exact.pvalue < 0.9
    runs = [[{"predictions": p.tolist(), "labels": labels.tolist()} for p in model] for model in (first, second)]
    assert paired_test(metric, *runs) == pytest.approx(exact.pvalue, abs=0.04)


def test_equal_models_have_a_p_value_of_one_and_different_ones_a_small_one():
    labels = RNG.integers(0, 2, 200).tolist()
    right = [{"predictions": labels, "labels": labels}] * 3
    wrong = [{"predictions": RNG.integers(0, 2, 200).tolist(), "labels": labels}] * 3
    assert paired_test("accuracy", right, right) == 1.0
    assert paired_test("accuracy", right, wrong) < 0.001
    constant = [{"predictions": [1.0] * 200, "labels": labels}]
    assert paired_test("pearson", right, constant) < 0.001, "an undefined correlation counts as 0"
    assert paired_test("f1", [{"scores": [1.0] * 50}], [{"scores": [0.0] * 50}]) < 0.001


def test_seeds_that_agree_are_no_more_evidence_than_one():
    """The predictions of all seeds of an example are swapped together."""
    labels = [0, 1] * 20
    first, second = [1 - labels[0], *labels[1:]], [1 - label for label in labels[:5]] + labels[5:]
    one, three = (
        paired_test("accuracy", *([{"predictions": p, "labels": labels}] * count for p in (first, second)))
        for count in (1, 3)
    )
    assert one == three == pytest.approx(2 / 2**4, abs=0.03)


def test_models_scored_on_other_examples_are_not_compared():
    a = [{"predictions": [0, 1], "labels": [0, 1]}]
    with pytest.raises(ValueError, match="not scored on the same examples"):
        paired_test("accuracy", a, [{"predictions": [0, 1], "labels": [1, 1]}])
    with pytest.raises(ValueError, match="3 and 2 examples"):
        paired_test("f1", [{"scores": [1.0] * 3}], [{"scores": [1.0] * 2}])


def test_the_best_learning_rate_is_that_of_the_best_median():
    runs = [run_of(s, v, 1e-4, "constant" if v < 0.6 else None) for s, v in ((1, 0.95), (2, 0.5), (3, 0.5))]
    runs += [run_of(s, v, 5e-5) for s, v in ((3, 0.7), (1, 0.8), (2, 0.75))]
    best = best_recipe(runs)
    assert [run["learning_rate"] for run in best] == [5e-5] * 3 and [run["seed"] for run in best] == [1, 2, 3]


@pytest.fixture
def summary():
    worse = [0, 0, 1, 1] * 10
    tuned = {
        "rte": {
            "text": [run_of(1, 0.5, 1e-4, "chance"), run_of(2, 0.9, 1e-4), run_of(3, 0.7, 1e-4)]
            + [run_of(s, 0.5, 5e-5, "constant") for s in (1, 2, 3)],
            "video": [run_of(s, 0.5, rate, predictions=worse) for rate in (1e-4, 5e-5) for s in (1, 2, 3)],
        }
    }
    scored = {"vicomte_color": {"text": result_of(0.3, head=False), "video": result_of(0.8)}}
    return summarize(tuned, scored, ["text", "video"])


def test_report_shows_median_spread_best_rate_and_every_collapsed_seed(summary, tmp_path):
    path = write_report(summary, tmp_path / "report")
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.json", "report.md", "report.png"]
    assert json.loads((path.parent / "report.json").read_text()) == json.loads(json.dumps(summary))
    lines = path.read_text().splitlines()
    (row,) = [line for line in lines if line.startswith("| RTE | text")]
    assert "| accuracy | 70.0 | 50.0 - 90.0 | 50.0 | **4 of 6** (" in row
    for collapsed in ("seed 1 at 0.0001: chance", "seed 1 at 5e-05: constant", "seed 3 at 5e-05: constant"):
        assert collapsed in row
    assert "| 0.0001 (best of 5e-05, 0.0001) |  | 8 / 40 | 3.0 |" in row
    (row,) = [line for line in lines if line.startswith("| RTE | video")]
    assert "| 0 of 6 |" in row and "< 0.001" in row
    assert "The learning rate was chosen on the evaluation data." in lines


def test_report_shows_chance_majority_templates_and_models_without_head(summary, tmp_path):
    lines = write_report(summary, tmp_path).read_text().splitlines()
    (first, second) = [line for line in lines if line.startswith("| ViComTe colour")]
    assert first == "| ViComTe colour | 10 | 8.3 | 40.0 | text | no language-model head |  |  | 30.0 |  |"
    assert second.startswith(
        "| ViComTe colour | 10 | 8.3 | 40.0 | video | 80.0 (70.0 - 80.0) |  | contrast 0.75 | 80.0 |"
    )


def entries(folder) -> dict:
    results = ModelCard.load(folder / "README.md").data.eval_results
    found = {(r.dataset_config, r.dataset_split, r.metric_name): r for r in results}
    assert len(found) == len(results), "no entry stands twice"
    return found


def test_card_holds_task_data_metric_value_and_seeds_and_keeps_what_others_wrote(tmp_path):
    others = EvalResult("text-classification", "nyu-mll/glue", "GLUE", "accuracy", 0.123, dataset_config="rte",
                        dataset_split="validation", metric_name="theirs")  # fmt: skip
    text = "# My model\n\nIt is mine.\n"
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\ntags:\n- mine\n---\n{text}")
    update_card(tmp_path, [others])
    runs = [run_of(1, 0.6), run_of(2, 0.9), run_of(3, 0.5, collapsed="constant")]
    update_card(tmp_path, finetuning_results(TASKS["rte"], "rte", runs))
    update_card(tmp_path, finetuning_results(TASKS["cola"], "cola", [run_of(1, 0.3, task="cola")]))
    update_card(tmp_path, zero_shot_results(TASKS["coda"], "coda", result_of(0.5)))
    card = ModelCard.load(tmp_path / "README.md")
    assert text.strip() in card.text and card.data.license == "mit" and card.data.tags == ["mine"]
    found = entries(tmp_path)
    ours = found["rte", "validation", "accuracy, median over seeds, fine-tuned"]
    assert (ours.task_type, ours.dataset_type, ours.metric_type) == ("text-classification", "nyu-mll/glue", "accuracy")
    assert ours.metric_value == 0.6
    assert ours.metric_args == {"seeds": [1, 2, 3], "min": 0.5, "max": 0.9, "collapsed_seeds": [3],
                                "learning_rate": 1e-4, "epochs": 3.0}  # fmt: skip
    assert len(found) == 5

    update_card(tmp_path, finetuning_results(TASKS["rte"], "rte", [run_of(1, 0.8), run_of(2, 0.8)]))
    again = entries(tmp_path)
    assert again.keys() == found.keys()
    changed = {key for key in again if again[key] != found[key]}
    assert changed == {("rte", "validation", "accuracy, median over seeds, fine-tuned")}
    assert again[changed.pop()].metric_args["seeds"] == [1, 2]
    subset = [{**run_of(1, 0.8), "train_rows": 100}]
    update_card(tmp_path, finetuning_results(TASKS["rte"], "rte", subset))
    assert ("rte", "validation", "accuracy, median over seeds, fine-tuned (100 train rows)") in entries(tmp_path)
    assert len(entries(tmp_path)) == 6


def test_rows_of_the_users_own_are_named_after_their_folder_and_not_after_the_hub():
    runs = [{**run_of(1, 61.23456), "data": "/home/me/my_rows"}]
    (entry,) = finetuning_results(TASKS["rte"], "rte", runs)
    assert (entry.dataset_type, entry.dataset_name, entry.dataset_config) == ("my_rows", "RTE (my_rows)", "rte")
    assert entry.metric_value == 61.23
    (other,) = finetuning_results(TASKS["mrpc"], "mrpc", [{**run_of(1, 0.5, task="mrpc"), "data": "/home/me/my_rows"}])
    assert other.dataset_config == "mrpc", "or the entries of two tasks would replace each other"
    assert summarize({"rte": {"a": runs}}, {}, ["a"])["tasks"][0]["title"] == "RTE (my_rows)"
    (entry,) = finetuning_results(TASKS["rte"], "rte", [{**runs[0], "data": None}])
    assert (entry.dataset_type, entry.dataset_name, entry.dataset_config) == ("nyu-mll/glue", "RTE", "rte")


def test_a_model_without_card_gets_one(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    update_card(folder, zero_shot_results(TASKS["coda"], "coda", result_of(0.5, head=False)))
    card = ModelCard.load(folder / "README.md")
    assert card.data.model_name == "model" and card.data.library_name == "transformers"
    assert [r.metric_name for r in card.data.eval_results] == ["accuracy, linear probe on held-out objects"]


# ---- the commands ----


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Two models, `text` and `video`, and the data."""
    folder = tmp_path_factory.mktemp("commands")
    make_data(folder / "data")
    tokenizer = make_pair_tokenizer(VOCABULARY)
    for seed, name in enumerate(("text", "video")):
        torch.manual_seed(seed)
        BertForMaskedLM(make_config(tokenizer)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


QUICK = "--num_train_epochs 1 --per_device_train_batch_size 4 --use_cpu true --disable_tqdm true".split()


def command(workplace, script, *arguments, expect=0):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=workplace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_finetune_command_runs_each_seed_with_the_tasks_recipe_and_writes_the_card(workplace, tmp_path):
    arguments = ["--model", "video", "--task", "mrpc", "--data", "data", "--seeds", 2, "--output_dir", tmp_path]
    arguments += ["--report_to", "none", *QUICK]
    output = command(workplace, "finetune.py", *arguments)
    assert "MRPC, lr 0.0001, seed 2: accuracy" in output
    settings = json.loads((tmp_path / "lr-0.0001" / "seed-2" / "run.json").read_text())["settings"]
    assert (settings["max_length"], settings["warmup_steps"], settings["seed"]) == (126, 0.1, 2)
    (entry,) = [
        r for r in entries(workplace / "video").values() if (r.dataset_config, r.metric_type) == ("mrpc", "f1")
    ]
    assert entry.metric_args["seeds"] == [1, 2]
    results = [tmp_path / "lr-0.0001" / f"seed-{seed}" / "result.json" for seed in (1, 2, 3)]
    before = [path.read_bytes() for path in results[:2]]
    arguments[arguments.index("--seeds") + 1] = 3
    assert "seed 1: 12 training rows" not in command(workplace, "finetune.py", *arguments)
    assert [path.read_bytes() for path in results[:2]] == before and results[2].exists()


@pytest.mark.slow
def test_evaluate_all_prints_the_report_and_resumes(workplace, tmp_path):
    arguments = ["--models", "text", "video", "--tasks", "rte", "memory_colors", "--data", "data", "--seeds", 2]
    arguments += ["--learning_rates", "1e-3", "1e-4", "--train_rows", "rte=8", "--output_dir", tmp_path, *QUICK]
    output = command(workplace, "evaluate_all.py", *arguments)
    report = (tmp_path / "report.md").read_text()
    assert report in output and (tmp_path / "report.png").stat().st_size > 1000
    for line in ("| RTE (data) | text |", "| RTE (data) | video |", "| 8 / 9 |", "Memory Colors"):
        assert line in report
    assert {r.dataset_name for r in entries(workplace / "text").values()} >= {"RTE (data)", "Memory Colors"}
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(stamps) == 2 * (4 + 1)
    lost = tmp_path / "video" / "rte" / "lr-0.001" / "seed-2"
    for path in (*lost.iterdir(), tmp_path / "video" / "rte" / "arguments.json"):
        path.unlink()
    output = command(workplace, "evaluate_all.py", *arguments)
    assert output.count("training rows") == 1
    changed = {p for p in tmp_path.rglob("result.json") if p.stat().st_mtime_ns != stamps[p]}
    assert changed == {lost / "result.json"} and (tmp_path / "report.md").read_text().count("RTE") == 2


@pytest.mark.slow
def test_two_processes_fine_tune_as_one_does(workplace, tmp_path):
    torch.manual_seed(0)
    BertForMaskedLM(make_config(make_pair_tokenizer(VOCABULARY), dropout=0.0)).save_pretrained(tmp_path / "model")
    make_pair_tokenizer(VOCABULARY).save_pretrained(tmp_path / "model")
    common = [
        "--model",
        tmp_path / "model",
        "--task",
        "stsb",
        "--data",
        "data",
        "--use_cpu",
        "true",
        "--report_to",
        "none",
    ]
    common += ["--num_train_epochs", 3, "--learning_rate", "1e-3", "--disable_tqdm", "true", "--no_card", "true"]
    common += ["--per_device_eval_batch_size", 2]
    command(workplace, "finetune.py", *common, "--per_device_train_batch_size", 6, "--output_dir", tmp_path / "one")
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        ROOT / "examples" / "finetune.py",
    ]
    two = [*common, "--per_device_train_batch_size", 3, "--output_dir", tmp_path / "two"]
    done = subprocess.run([sys.executable, *map(str, [*launch, *two])], capture_output=True, text=True, timeout=400,
                          cwd=workplace, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        json.loads((tmp_path / name / "lr-0.001" / "seed-1" / "result.json").read_text()) for name in ("one", "two")
    )
    assert one["steps"] == two["steps"] == 6
    assert two["examples"]["labels"] == one["examples"]["labels"]
    assert two["examples"]["predictions"] == pytest.approx(one["examples"]["predictions"], rel=1e-3)


@pytest.mark.slow
def test_commands_refuse_what_cannot_be_done(workplace, tmp_path):
    output = command(workplace, "finetune.py", "--model", "text", "--task", "coda", "--use_cpu", "true", expect=1)
    assert "coda is scored without fine-tuning: use `vidlankd evaluate`" in output
    output = command(workplace, "evaluate_all.py", "--models", "text", "--tasks", "coda", expect=2)
    assert "coda need --data" in output
    output = command(workplace, "evaluate_all.py", "--models", "text", "data/../text", "--tasks", "rte", expect=2)
    assert "give each model its own name with --names" in output
    missing = ["--models", "text", "--tasks", "squad", "qqp", "--data", "data/squad"]
    output = command(workplace, "evaluate_all.py", *missing, expect=2)
    assert "QQP's train split is in train.tsv" in output and "training rows" not in output
