"""Summaries over seeds: against numpy on the same values, and against the summary of one seed."""

import numpy as np
import pytest

from cptlab.metrics.over_seeds import compare_seeds, summarise_seeds
from cptlab.metrics.programs import JudgedProgram
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.metrics.summary import compare, summarise
from cptlab.records import Prompt, Quality, Task, Verdict

LEVELS = ("introductory", "interview")
TASKS = [Task(f"t{i}", "toy", "test", LEVELS[i % 2], "call", Prompt("p")) for i in range(8)]


def programs(seed):
    draw = np.random.default_rng(seed)
    return {
        task.id: [
            JudgedProgram(
                Quality(float(draw.uniform(0, 10)), 3, False),
                Verdict(str(draw.choice(["passed", "failed"]))),
            )
            for _ in range(5)
        ]
        for task in TASKS
    }


def test_one_seed_is_the_plain_summary():
    one, other = programs(1), programs(2)
    assert summarise_seeds(TASKS, [one]) == summarise(TASKS, one)
    assert compare_seeds(TASKS, [one], [other]) == compare(TASKS, one, other)


def test_means_and_intervals_of_several_seeds():
    runs = [programs(seed) for seed in range(3)]
    found = summarise_seeds(TASKS, runs)["all"]
    for metric, of_task in {
        "pylint_mean": lambda some: np.mean([one.quality.score for one in some]),
        "pylint_min": lambda some: min(one.quality.score for one in some),
        "pass@1": lambda some: np.mean([one.verdict.status == "passed" for one in some]),
    }.items():
        values = np.array([[of_task(run[task.id]) for task in TASKS] for run in runs])
        assert found[metric] == pytest.approx(values.mean())
        assert found[f"{metric}_ci"] == pytest.approx(hierarchical_ci(values))


def test_a_change_is_paired_by_seed_and_task():
    before, after = [programs(seed) for seed in range(3)], [programs(seed) for seed in range(5, 8)]
    same = compare_seeds(TASKS, before, before)["all"]
    assert same["pylint_mean"] == 0 and same["pylint_mean_ci"] == [0, 0]
    found = compare_seeds(TASKS, before, after)["interview"]
    means = [summarise_seeds(TASKS, side)["interview"]["pylint_mean"] for side in (before, after)]
    assert found["pylint_mean"] == pytest.approx(means[1] - means[0])


def test_a_single_reference_goes_with_every_seed_and_other_numbers_do_not():
    one, three = [programs(0)], [programs(seed) for seed in range(3)]
    assert compare_seeds(TASKS, one, three) == compare_seeds(TASKS, one * 3, three)
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_seeds(TASKS, three[:2], three)
