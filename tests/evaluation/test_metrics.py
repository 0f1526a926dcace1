"""Metrics against scikit-learn, scipy and cases worked out by hand from the official scorers' rules."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from vidlankd_hf.evaluation.metrics import (
    AccuracyMetric,
    DiagnosticsMetric,
    GlueMetric,
    GroupedAccuracyMetric,
    TracieMetric,
    f1_of_positives,
    matthews_correlation,
    pearson,
    spearman,
)
from vidlankd_hf.evaluation.squad_metric import SquadMetric, normalize, question_scores

RNG = np.random.default_rng(0)
BINARY = [
    (RNG.integers(0, 2, 50), RNG.integers(0, 2, 50)),
    (np.zeros(20, int), RNG.integers(0, 2, 20)),
    (np.ones(20, int), RNG.integers(0, 2, 20)),
    (RNG.integers(0, 2, 20), np.zeros(20, int)),
    (np.zeros(5, int), np.zeros(5, int)),
    (np.array([1, 0]), np.array([0, 1])),
]


@pytest.mark.parametrize("predictions, labels", BINARY, ids=range(len(BINARY)))
def test_classification_scores_are_scikit_learns_also_of_constant_predictions(predictions, labels):
    def score(task):
        return GlueMetric(task, keep_in_memory=True).compute(predictions=predictions, references=labels)

    right = sklearn.metrics.accuracy_score(labels, predictions)
    assert score("cola") == {
        "matthews_correlation": pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predictions))
    }
    f1 = sklearn.metrics.f1_score(labels, predictions, zero_division=0)
    assert score("mrpc") == score("qqp") == pytest.approx({"accuracy": right, "f1": f1})
    assert score("sst2") == score("rte") == {"accuracy": right}
    metric = AccuracyMetric(keep_in_memory=True)
    assert metric.compute(predictions=predictions, references=labels) == {"accuracy": right}


def test_matthews_correlation_of_several_classes_is_scikit_learns():
    for classes in (3, 5):
        predictions, labels = RNG.integers(0, classes, (2, 60))
        assert matthews_correlation(predictions, labels) == pytest.approx(
            sklearn.metrics.matthews_corrcoef(labels, predictions)
        )


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_scipys_also_with_ties(ties):
    predictions, labels = RNG.normal(size=(2, 40))
    if ties:
        predictions, labels = predictions.round(), labels.round()
    scores = GlueMetric("stsb", keep_in_memory=True).compute(predictions=predictions, references=labels)
    assert scores["pearson"] == pytest.approx(scipy.stats.pearsonr(predictions, labels).statistic)
    assert scores["spearmanr"] == pytest.approx(scipy.stats.spearmanr(predictions, labels).statistic)


def test_correlations_of_constant_predictions_are_undefined_as_scipys():
    scores = GlueMetric("stsb", keep_in_memory=True).compute(predictions=[2.7] * 4, references=[1.0, 2.0, 3.0, 3.5])
    assert np.isnan(scores["pearson"]) and np.isnan(scores["spearmanr"])


@pytest.mark.parametrize("statistic", [matthews_correlation, f1_of_positives, pearson, spearman])
def test_statistics_of_a_stack_are_those_of_its_rows(statistic):
    stack, labels = RNG.integers(0, 3, (2, 4, 30)), RNG.integers(0, 3, 30)
    one_by_one = [[statistic(row, labels) for row in part] for part in stack]
    np.testing.assert_allclose(statistic(stack, labels), one_by_one)


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="0 predictions for 0"):
        AccuracyMetric(keep_in_memory=True)._compute([], [])


def test_tracie_counts_a_story_only_without_any_mistake():
    references = [
        {"label": 1, "event": "a starts before b", "story": "one"},
        {"label": 0, "event": "a starts after b", "story": "one"},
        {"label": 1, "event": "a ends before b", "story": "one"},
        {"label": 1, "event": "a starts after b", "story": "two"},
    ]
    metric = TracieMetric(keep_in_memory=True)
    assert metric.compute(predictions=[1, 0, 0, 1], references=references) == {
        "accuracy": 0.75,
        "start_accuracy": 1.0,
        "end_accuracy": 0.0,
        "story_exact_match": 0.5,
    }
    assert "end_accuracy" not in metric.compute(predictions=[1, 0], references=references[:2])


def test_diagnostics_are_scored_by_category():
    references = [
        {"label": label, "categories": categories}
        for label, categories in [(0, "Logic;Logic: Negation"), (1, "Logic"), (2, "Knowledge"), (0, "Logic;Knowledge")]
    ]
    predictions = [0, 1, 2, 1]
    scores = DiagnosticsMetric(keep_in_memory=True).compute(predictions=predictions, references=references)
    assert set(scores) == {"matthews_correlation", "Logic", "Logic: Negation", "Knowledge"}
    labels = [0, 1, 2, 0]
    assert scores["matthews_correlation"] == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predictions))
    assert scores["Logic"] == pytest.approx(sklearn.metrics.matthews_corrcoef([0, 1, 0], [0, 1, 1]))
    assert scores["Logic: Negation"] == 0.0


def test_accuracy_by_group():
    references = [{"label": 1, "group": "a"}, {"label": 2, "group": "b"}, {"label": 3, "group": "b"}]
    scores = GroupedAccuracyMetric(keep_in_memory=True).compute(predictions=[1, 2, 2], references=references)
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
def test_answers_are_normalised_as_by_the_official_script(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    "answer, golds, version_2, scores",
    [
        ("the Normans", ["Normans", "a Norman"], False, (1.0, 1.0)),
        ("in 1066 and 1067", ["1066"], False, (0.0, 2 * (1 / 4) / (1 / 4 + 1))),
        ("b b c", ["b c c"], False, (0.0, 2 / 3)),
        ("the", ["a"], False, (1.0, 0.0)),  # both empty once normalised: version 1.1 gives no F1 for it
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
    return SquadMetric(version, keep_in_memory=True).compute(predictions=predictions, references=references)


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
    metric = SquadMetric("squad", keep_in_memory=True)
    references = [{"id": "a", "answers": {"text": ["x"], "answer_start": [0]}}]
    with pytest.raises(ValueError, match="1 of 1 questions have no prediction"):
        metric._compute([], references)
    with pytest.raises(ValueError, match="SQuAD 2.0 has such questions"):
        squad("squad", [("x", 0, "")], [[]])
