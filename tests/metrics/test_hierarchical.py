"""Intervals over seeds and tasks: against a brute-force bootstrap, and how often they hold the truth."""

import math

import numpy as np
import pytest

from cptlab.metrics.statistics import bootstrap_ci, hierarchical_ci


def brute_force(table, level=0.95, resamples=6000):
    """The interval as it is defined: draw seeds, draw tasks, average; then widen what the seeds add."""
    draw = np.random.default_rng(7)
    seeds, tasks = table.shape
    means = []
    for _ in range(resamples):
        columns = draw.integers(0, tasks, tasks)
        drawn = [table[draw.integers(0, seeds)][columns].mean() for _ in range(seeds)]
        every = table[:, columns].mean()
        means.append(every + math.sqrt(seeds / (seeds - 1)) * (np.mean(drawn) - every))
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2])


def simulated(draw, seeds, tasks, of_seeds, of_tasks, noise):
    """Values around 0: what a seed has on every task, what a task has under every seed, and noise."""
    parts = draw.normal(0, of_seeds, (seeds, 1)), draw.normal(0, of_tasks, (1, tasks))
    return parts[0] + parts[1] + draw.normal(0, noise, (seeds, tasks))


@pytest.mark.parametrize("spread", [(0.0, 2.0, 0.5), (0.5, 1.0, 1.0), (1.0, 0.1, 0.1)])
def test_it_is_the_brute_force_bootstrap(spread):
    table = simulated(np.random.default_rng(1), 4, 30, *spread)
    slow, fast = brute_force(table), np.array(hierarchical_ci(table, resamples=20_000))
    assert fast == pytest.approx(slow, abs=0.05 * (slow[1] - slow[0]))


def test_its_spread_is_that_of_its_parts():
    """Of seeds alone, it is the unbiased one: without the widening it would be a third less with three seeds."""
    table = np.tile([[0.0], [1.0], [2.0]], 400)
    low, high = hierarchical_ci(table, level=0.6827, resamples=100_000)
    draws = np.random.default_rng(0).multinomial(3, [1 / 3] * 3, 100_000) @ [0, 1, 2] / 3
    assert draws.var() == pytest.approx(np.var([0, 1, 2]) / 3, rel=0.02)  # what plain resampling has
    assert 1.5 * draws.var() == pytest.approx(np.var([0, 1, 2], ddof=1) / 3, rel=0.02)  # what it is widened to
    widened = 1 + math.sqrt(1.5) * (draws - 1)
    assert (low, high) == pytest.approx(tuple(np.quantile(widened, [0.15865, 0.84135])))


def test_with_one_seed_it_is_the_interval_over_tasks():
    values = np.random.default_rng(2).normal(5, 2, 50)
    assert hierarchical_ci([values], seed=3) == bootstrap_ci(values, seed=3)


def test_equal_seeds_add_nothing():
    values = np.random.default_rng(2).normal(5, 2, 200)
    low, high = hierarchical_ci([values] * 3)
    assert (low, high) == pytest.approx(bootstrap_ci(values), abs=0.05)


def test_an_end_never_lies_beyond_all_values():
    low, high = hierarchical_ci([[0.0] * 20, [0.0] * 20, [1.0] * 20])
    assert low == 0.0 and 0.6 < high <= 1.0


def test_it_repeats_and_refuses_what_is_no_table():
    table = simulated(np.random.default_rng(4), 3, 20, 1, 1, 1)
    assert hierarchical_ci(table) == hierarchical_ci(table.tolist()) != hierarchical_ci(table, seed=1)
    for wrong in ([], [[]], [1.0, 2.0]):
        with pytest.raises(ValueError):
            hierarchical_ci(wrong)


@pytest.mark.parametrize(
    ("seeds", "spread", "least"),
    [(3, (0.0, 1.0, 0.0), 0.91), (3, (0.1, 2.0, 1.0), 0.91), (5, (0.3, 2.0, 1.0), 0.90), (3, (1.0, 0.1, 0.1), 0.72)],
)
def test_it_covers_the_truth_as_often_as_the_documentation_says(seeds, spread, least):
    """95% where tasks differ more than seeds do; less with three seeds that differ more than tasks do."""
    draw, hits = np.random.default_rng(0), 0
    for seed in range(300):
        low, high = hierarchical_ci(simulated(draw, seeds, 60, *spread), seed=seed, resamples=400)
        hits += low <= 0 <= high
    assert hits / 300 >= least
