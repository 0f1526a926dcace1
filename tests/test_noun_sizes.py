"""The benchmark of the sizes of nouns: explained variance, its interval, and comparisons."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "noun_sizes.py"


@pytest.fixture(scope="module")
def benchmark_of_sizes():
    spec = importlib.util.spec_from_file_location("noun_sizes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_explained_variance_equals_that_of_scikit_learn(benchmark_of_sizes):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    sizes = generator.normal(size=50)
    predicted = sizes + generator.normal(size=50)
    assert benchmark_of_sizes.explained(predicted, sizes) == pytest.approx(metrics.r2_score(sizes, predicted))


def test_the_interval_of_a_better_model_is_above_zero_and_that_of_the_same_model_is_zero(benchmark_of_sizes):
    generator = np.random.default_rng(1)
    sizes = generator.normal(size=300)
    noises = generator.normal(size=(2, 300)) * [[1.0], [3.0]]  # the second seed is worse, with both models
    good, bad = sizes + 0.5 * noises, sizes + noises
    low, high = benchmark_of_sizes.interval(good, bad, sizes)
    exact = np.mean(
        [benchmark_of_sizes.explained(g, sizes) - benchmark_of_sizes.explained(b, sizes) for g, b in zip(good, bad)]
    )
    assert 0 < low < exact < high
    assert benchmark_of_sizes.interval(bad, bad, sizes) == [0, 0]


def test_a_comparison_is_decided_by_the_larger_prediction(benchmark_of_sizes):
    items = [
        {"object": "ant", "other": "truck", "label": 1},
        {"object": "truck", "other": "ant", "label": 0},
        {"object": "ant", "other": "coin", "label": 1},
    ]
    assert benchmark_of_sizes.decided({"ant": 0.5, "coin": 0.1, "truck": 9.0}, items) == pytest.approx(2 / 3)
