import itertools
import math

import numpy as np
import pytest

from cptlab.errors import UserError
from cptlab.metrics.statistics import bootstrap_ci, paired_difference, pass_at_k


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(range(n), k))
            share = sum(min(subset) < c for subset in subsets) / len(subsets)  # samples 0 to c-1 are right
            assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_is_exact_for_large_n():
    for n, c, k in [(100, 1, 100), (200, 7, 100), (1000, 3, 10), (100, 0, 5), (20, 20, 20)]:
        exact = 1 - math.comb(n - c, k) / math.comb(n, k)
        assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)


def test_pass_at_k_refuses_k_above_n():
    with pytest.raises(UserError, match="20 samples"):
        pass_at_k(20, 0, 21)
    for wrong in [(5, 6, 1), (5, -1, 1), (5, 2, 0)]:
        with pytest.raises(ValueError):
            pass_at_k(*wrong)


def test_bootstrap_repeats_and_contains_the_mean():
    values = np.random.default_rng(3).normal(5, 2, 200)
    low, high = bootstrap_ci(values)
    assert (low, high) == bootstrap_ci(list(values)) != bootstrap_ci(values, seed=1)
    assert low < values.mean() < high
    half = 1.96 * values.std() / math.sqrt(200)  # normal theory
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)
    narrow = bootstrap_ci(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_ci(generator.binomial(1, 0.3, 60), seed=seed, resamples=300)
        hits += low <= 0.3 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_bootstrap_edges():
    assert bootstrap_ci([4.0]) == (4.0, 4.0)
    with pytest.raises(ValueError):
        bootstrap_ci([])


def test_paired_difference_uses_the_pairs():
    first = np.random.default_rng(1).normal(5, 3, 100)
    difference, low, high = paired_difference(first, first + 1)
    assert (difference, low, high) == pytest.approx((1, 1, 1))
    difference, low, high = paired_difference(first, first[::-1])
    assert difference == pytest.approx(0) and low < 0 < high
    with pytest.raises(ValueError):
        paired_difference([1], [1, 2])
