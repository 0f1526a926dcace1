"""The benchmark of the sizes of nouns: the interval of a difference in explained variance, and comparisons."""

import numpy as np
import pytest

from .helpers import script


@pytest.fixture(scope="module")
def benchmark_of_sizes():
    return script("benchmarks", "noun_sizes")


def test_the_interval_of_a_better_model_is_above_zero_and_that_of_the_same_model_is_zero(benchmark_of_sizes):
    generator = np.random.default_rng(1)
    sizes = generator.normal(size=300)
    noises = generator.normal(size=(2, 300)) * [[1.0], [3.0]]  # the second seed is worse, with both models
    good, bad = sizes + 0.5 * noises, sizes + noises
    low, high = benchmark_of_sizes.interval(good, bad, sizes)
    variance = ((sizes - sizes.mean()) ** 2).sum()
    exact = np.mean([((b - sizes) ** 2 - (g - sizes) ** 2).sum() / variance for g, b in zip(good, bad)])
    assert 0 < low < exact < high
    assert benchmark_of_sizes.interval(bad, bad, sizes) == [0, 0]


def test_a_comparison_is_decided_by_the_larger_prediction(benchmark_of_sizes):
    items = [
        {"object": "ant", "other": "truck", "label": 1},
        {"object": "truck", "other": "ant", "label": 0},
        {"object": "ant", "other": "coin", "label": 1},
    ]
    assert benchmark_of_sizes.decided({"ant": 0.5, "coin": 0.1, "truck": 9.0}, items) == pytest.approx(2 / 3)
