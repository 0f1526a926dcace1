"""Metrics compared with scikit-learn, scipy and cases worked out by hand from the official scorers' rules."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import evaluate
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from vidlankd_hf.evaluation import metrics
from vidlankd_hf.evaluation.metrics import load_metric
from vidlankd_hf.evaluation.metrics.squad import normalize, question_scores
from vidlankd_hf.evaluation.significance import STATISTICS, accuracy, matthews_correlation, pearson

RNG = np.random.default_rng(0)
BINARY = [
    (RNG.integers(0, 2, 50), RNG.integers(0, 2, 50)),
    (np.zeros(20, int), RNG.integers(0, 2, 20)),
    (np.ones(20, int), RNG.integers(0, 2, 20)),
    (RNG.integers(0, 2, 20), np.zeros(20, int)),
    (np.zeros(5, int), np.zeros(5, int)),
    (np.array([1, 0]), np.array([0, 1])),
]
exactly = partial(pytest.approx, rel=0, abs=1e-12)


def f1_of_positives(predictions, labels):
    both = 2 * ((predictions == 1) & (labels == 1)).sum(-1)
    return both / max((predictions == 1).sum(-1) + (labels == 1).sum(-1), 1)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("predictions, labels", BINARY, ids=range(len(BINARY)))
def test_classification_scores_equal_their_formulas_even_for_constant_predictions(predictions, labels):
    def score(task):
        return load_metric("glue", task).compute(predictions=predictions, references=labels)

    right, f1 = accuracy(predictions, labels), f1_of_positives(predictions, labels)
    assert score("cola") == {"matthews_correlation": exactly(matthews_correlation(predictions, labels))}
    assert score("mrpc") == score("qqp") == exactly({"accuracy": right, "f1": f1})
    assert score("sst2") == score("rte") == exactly({"accuracy": right})
    assert load_metric("accuracy").compute(predictions=predictions, references=labels) == exactly({"accuracy": right})


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_equal_their_formulas_with_and_without_ties(ties):
    predictions, labels = RNG.normal(size=(2, 40))
    if ties:
        predictions, labels = predictions.round(), labels.round()
    scores = load_metric("glue", "stsb").compute(predictions=predictions, references=labels)
    ranks = scipy.stats.rankdata(predictions), scipy.stats.rankdata(labels)
    assert scores == exactly({"pearson": float(pearson(predictions, labels)), "spearmanr": float(pearson(*ranks))})


@pytest.mark.parametrize("predictions", [[2.7] * 4, [2.7]])
def test_correlations_of_constant_predictions_are_undefined(predictions):
    labels = [1.0, 2.0, 3.0, 3.5][: len(predictions)]
    scores = load_metric("glue", "stsb").compute(predictions=predictions, references=labels)
    assert np.isnan(scores["pearson"]) and np.isnan(scores["spearmanr"])


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_statistics_of_the_paired_test_are_those_of_scikit_learn_and_scipy():
    for classes in (2, 3, 5):
        predictions, labels = RNG.integers(0, classes, (2, 60))
        assert accuracy(predictions, labels) == exactly(sklearn.metrics.accuracy_score(labels, predictions))
        expected = sklearn.metrics.matthews_corrcoef(labels, predictions)
        assert matthews_correlation(predictions, labels) == exactly(expected)
        assert pearson(predictions, labels) == exactly(scipy.stats.pearsonr(predictions, labels).statistic)
    assert matthews_correlation(np.zeros(4), np.array([0, 1, 0, 1])) == 0 and np.isnan(pearson(np.ones(4), labels[:4]))


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_of_a_stack_are_those_of_its_rows(name):
    statistic = STATISTICS[name]
    stack, labels = RNG.integers(0, 3, (2, 4, 30)), RNG.integers(0, 3, 30)
    one_by_one = [[statistic(row, labels) for row in part] for part in stack]
    np.testing.assert_allclose(statistic(stack, labels), one_by_one)


CASES = {  # arguments of `load_metric`: predictions, references, scores
    ("accuracy", None): ([1, 0, 1], [1, 1, 1], {"accuracy": 2 / 3}),
    ("f1", None): ([0, 2, 2], [0, 1, 2], {"macro_f1": 5 / 9, "accuracy": 2 / 3}),
    ("glue", "mrpc"): ([1, 0, 1], [1, 1, 1], {"accuracy": 2 / 3, "f1": 0.8}),
    ("tracie", None): (
        [1],
        [{"label": 1, "event": "a starts before b", "story": "s"}],
        {"accuracy": 1.0, "start_accuracy": 1.0, "story_exact_match": 1.0},
    ),
    ("squad", "squad"): (
        [{"id": "q", "text": "the cat", "null_odds": 0.0, "best": "the cat"}],
        [{"id": "q", "answers": {"text": ["cat"], "answer_start": [0]}}],
        {"exact_match": 100.0, "f1": 100.0},
    ),
}


def test_each_metric_loads_with_evaluate_from_its_path(tmp_path):
    """In a separate process, because `evaluate` copies the file below HF_HOME."""
    folder = Path(metrics.__file__).parent
    assert {name for name, _ in CASES} == {path.stem for path in folder.glob("[a-z]*.py")}
    code = f"""
import evaluate, pytest
for (name, config), (predictions, references, scores) in {CASES!r}.items():
    metric = evaluate.load({str(folder)!r} + f"/{{name}}.py", config, keep_in_memory=True)
    assert metric.compute(predictions=predictions, references=references) == pytest.approx(scores), name
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_metrics_combine():
    combined = evaluate.combine([load_metric("accuracy"), load_metric("glue", "cola")])
    scores = combined.compute(predictions=[1, 0, 1, 0], references=[1, 0, 1, 1])
    assert scores == pytest.approx({"accuracy": 0.75, "matthews_correlation": 1 / 3**0.5})
    both = evaluate.combine([load_metric("accuracy"), load_metric("glue", "mrpc")])
    assert set(both.compute(predictions=[1], references=[1])) == {"accuracy_accuracy", "glue_accuracy", "f1"}


@pytest.mark.parametrize("name, config", [*CASES, ("accuracy", "by_group"), ("glue", "ax"), ("squad", "squad_v2")])
def test_nothing_to_score_is_an_error(name, config):
    with pytest.raises(ValueError, match="there is nothing to score"):
        load_metric(name, config).compute(predictions=[], references=[])


def test_an_install_without_extras_imports_every_module_and_names_the_extra_when_it_is_needed():
    code = """
import importlib, pkgutil, sys
heavy = ("evaluate", "sklearn", "scipy", "matplotlib")
for name in heavy[1:]:
    sys.modules[name] = None  # as if it were not installed
import vidlankd_hf.evaluation as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.rpartition(".")[0] != package.__name__ + ".metrics":
        importlib.import_module(module.name)
assert "evaluate" not in sys.modules, "it takes seconds to import"
from vidlankd_hf.evaluation.probing import cross_validated
from vidlankd_hf.evaluation.report import _figure
for call in (package.TASKS["rte"].metric, lambda: cross_validated([[0.0]], [0], 2), lambda: _figure({}, None)):
    try:
        call()
    except ImportError as error:
        assert 'is not installed: install it with pip install "vidlankd_hf[downstream]"' in str(error), error
    else:
        raise AssertionError("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_tracie_counts_a_story_only_without_any_mistake():
    references = [
        {"label": 1, "event": "a starts before b", "story": "one"},
        {"label": 0, "event": "a starts after b", "story": "one"},
        {"label": 1, "event": "a ends before b", "story": "one"},
        {"label": 1, "event": "a starts after b", "story": "two"},
    ]
    assert load_metric("tracie").compute(predictions=[1, 0, 0, 1], references=references) == {
        "accuracy": 0.75,
        "start_accuracy": 1.0,
        "end_accuracy": 0.0,
        "story_exact_match": 0.5,
    }
    assert "end_accuracy" not in load_metric("tracie").compute(predictions=[1, 0], references=references[:2])


def test_diagnostics_are_scored_by_category():
    references = [
        {"label": label, "categories": categories}
        for label, categories in [(0, "Logic;Logic: Negation"), (1, "Logic"), (2, "Knowledge"), (0, "Logic;Knowledge")]
    ]
    predictions = [0, 1, 2, 1]
    scores = load_metric("glue", "ax").compute(predictions=predictions, references=references)
    assert set(scores) == {"matthews_correlation", "Logic", "Logic: Negation", "Knowledge"}
    labels = [0, 1, 2, 0]
    assert scores["matthews_correlation"] == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predictions))
    assert scores["Logic"] == pytest.approx(sklearn.metrics.matthews_corrcoef([0, 1, 0], [0, 1, 1]))
    assert scores["Logic: Negation"] == 0.0


def test_accuracy_by_group():
    references = [{"label": 1, "group": "a"}, {"label": 2, "group": "b"}, {"label": 3, "group": "b"}]
    scores = load_metric("accuracy", "by_group").compute(predictions=[1, 2, 2], references=references)
    assert scores == {"accuracy": pytest.approx(2 / 3), "a": 1.0, "b": 0.5}


@pytest.mark.parametrize(
    "text, normal",
    [
        ("The  Cat!", "cat"),
        ("a.b", "ab"),  # punctuation goes before articles do
        ("An a-frame, the 'theatre'", "aframe theatre"),
        ("“quoted”", "“quoted”"),  # only ASCII punctuation
        ("...", ""),
        ("A THE an", ""),
        ("10,000", "10000"),
    ],
)
def test_answers_are_normalized_as_by_the_official_script(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    "answer, golds, version_2, scores",
    [
        ("the Normans", ["Normans", "a Norman"], False, (1.0, 1.0)),
        ("in 1066 and 1067", ["1066"], False, (0.0, 2 * (1 / 4) / (1 / 4 + 1))),
        ("b b c", ["b c c"], False, (0.0, 2 / 3)),
        ("the", ["a"], False, (1.0, 0.0)),  # both are empty after normalization: version 1.1 gives no F1 for that
        ("the", ["a"], True, (1.0, 1.0)),  # version 2.0 has no gold answer left: unanswerable
        ("", [], True, (1.0, 1.0)),
        ("something", [], True, (0.0, 0.0)),
        ("", ["something"], True, (0.0, 0.0)),
        ("", ["something"], False, (0.0, 0.0)),
        ("x", ["the", "x"], True, (1.0, 1.0)),
    ],
)
def test_a_question_is_scored_as_by_the_official_scripts(answer, golds, version_2, scores):
    assert question_scores(answer, golds, version_2) == pytest.approx(scores)


def squad(version, answers, golds):
    """`answers`: (text, null_odds, best)."""
    predictions = [{"id": str(i), "text": t, "null_odds": n, "best": b} for i, (t, n, b) in enumerate(answers)]
    references = [
        {"id": str(i), "answers": {"text": gold, "answer_start": [0] * len(gold)}} for i, gold in enumerate(golds)
    ]
    return load_metric("squad", version).compute(predictions=predictions, references=references)


def test_squad_scores_are_means_to_100():
    scores = squad("squad", [("the cat", 0, ""), ("big dog", 0, "")], [["cat"], ["dog"]])
    assert scores == pytest.approx({"exact_match": 50.0, "f1": (100 + 200 / 3) / 2})


def test_squad_2_scores_by_answerability_and_finds_the_best_threshold():
    answers = [("", 3.0, "cat"), ("dog", -2.0, "dog"), ("cow", -1.0, "cow"), ("", 5.0, "pig")]
    scores = squad("squad_v2", answers, [["cat"], ["dog"], [], []])
    assert scores["exact_match"] == scores["f1"] == 50.0
    assert (scores["HasAns_exact_match"], scores["NoAns_exact_match"]) == (50.0, 50.0)
    # Answering all four in turn: 2 (none), 3 (dog), 2 (cow), 3 (cat), 2 (pig): the first best moment is at dog.
    assert (scores["best_exact_match"], scores["best_exact_match_threshold"]) == (75.0, -2.0)
    assert (scores["best_f1"], scores["best_f1_threshold"]) == (75.0, -2.0)


def test_squad_refuses_missing_predictions_and_questions_without_answer():
    metric = load_metric("squad", "squad")
    references = [{"id": "a", "answers": {"text": ["x"], "answer_start": [0]}}]
    with pytest.raises(ValueError, match="1 of 1 questions have no prediction"):
        metric._compute([], references)
    with pytest.raises(ValueError, match="only SQuAD 2.0 allows"):
        squad("squad", [("x", 0, "")], [[]])
