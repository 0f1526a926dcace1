"""The probe finds what states hold about nouns it was not fitted to, and comparisons are paired over nouns."""

import numpy as np
import pytest
from fruit import FRUIT

from vidlankd_hf.experiments.real_nouns import scores
from vidlankd_hf.experiments.real_nouns.scores import compare, cross_predicted, score_states, targets_of

COLOURS = sorted(set(FRUIT.values()))


def states_of_colours(noise: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: 3 * np.eye(8)[COLOURS.index(c)] + noise * rng.standard_normal(8) for n, c in FRUIT.items()}


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_probe_scores_states_that_hold_the_colour_and_not_those_that_do_not(benchmarks, monkeypatch):
    monkeypatch.setattr(scores, "PENALTIES", (1.0, 2.0))
    pictured = set(FRUIT) - {"pea", "fern"}
    knowing = score_states(states_of_colours(0.05), benchmarks, pictured)["probe"]["coda"]
    assert set(knowing["pictured"]) == pictured and set(knowing["not_pictured"]) == {"pea", "fern"}
    assert set(knowing["joint"]) == set(FRUIT)
    assert np.mean(list(knowing["joint"].values())) > 0.8
    ignorant = score_states({n: np.zeros(8) for n in FRUIT}, benchmarks, pictured)["probe"]["coda"]
    assert np.mean(list(ignorant["joint"].values())) < 0.6


def test_predicted_colours_are_distributions(benchmarks):
    colours = score_states(states_of_colours(0.05), benchmarks, set(FRUIT))["colours"]
    assert set(colours) == set(FRUIT) and all(sum(row) == pytest.approx(1, abs=0.01) for row in colours.values())


def test_only_pictured_nouns_of_the_large_sets_and_nouns_with_states_are_scored(benchmarks):
    found = score_states(states_of_colours(0.05), benchmarks, {"lime", "fern"})["probe"]
    assert found["vicomte_color"] == {"pictured": {}}  # one noun is too few for a probe
    assert "chair" not in str(found)


def test_a_noun_is_predicted_without_its_own_target():
    states = np.eye(6)
    targets = np.eye(6)
    assert (cross_predicted(states, targets, repeat=0).argmax(-1) != np.arange(6)).all()


def test_targets_are_peoples_distribution_where_there_is_one():
    targets = targets_of([{"label": 1, "distribution": [0.4, 0.6]}, {"label": 0}], 2)
    assert targets.tolist() == [[0.4, 0.6], [1.0, 0.0]]


def test_a_comparison_is_paired_over_nouns():
    better = {f"n{i}": float(i % 4 != 0) for i in range(100)}
    worse = {f"n{i}": float(i % 2 == 0 and i % 4 != 0) for i in range(100)}
    found = compare([better, better], [worse])
    assert found["nouns"] == 100 and found["difference"] == pytest.approx(0.5)
    assert 0.35 < found["interval"][0] < 0.5 < found["interval"][1] < 0.65 and found["p"] < 0.01
    same = compare([worse], [worse])
    assert same["difference"] == 0 and same["p"] == 1


def test_models_that_were_scored_on_other_nouns_are_not_compared():
    with pytest.raises(ValueError, match="same nouns"):
        compare([{"a": 1.0}], [{"b": 1.0}])
