import json
from dataclasses import replace

import numpy as np
import pytest

from cptlab.errors import UserError
from cptlab.metrics.programs import JudgedProgram
from cptlab.metrics.statistics import bootstrap_ci, paired_difference
from cptlab.metrics.summary import compare, flat, flat_names, summarise
from cptlab.records import Prompt, Quality, Task, Test, Verdict

TASK = Task("", "kata", "test", "introductory", "call", Prompt("p"), "f", (Test(1),))
TASKS = [
    replace(TASK, id="a"),
    replace(TASK, id="b"),
    replace(TASK, id="c", difficulty="interview"),
]
SCORES = {"a": [10, 5, 0, 5], "b": [8, 8, 8, 8], "c": [1, 2, 3, 4]}
RIGHT = {"a": 2, "b": 0, "c": 4}


def program(score, verdict, statements=5):
    return JudgedProgram(Quality(float(score), statements, False), verdict)


def judged(scores=SCORES, right=RIGHT):
    return {
        task: [
            program(score, Verdict("passed" if sample < right[task] else "failed")) for sample, score in enumerate(some)
        ]
        for task, some in scores.items()
    }


def test_figures():
    result = summarise(TASKS, judged(), ks=(1, 2, 4))
    assert list(result) == ["introductory", "interview", "competition", "all"]
    row = result["introductory"]
    assert (row["pylint_mean"], row["pylint_max"], row["pylint_min"], row["tasks"]) == (6.5, 9.0, 4.0, 2)
    assert row["pass@1"] == pytest.approx(0.25)
    assert row["pass@2"] == pytest.approx((1 - 1 / 6) / 2)
    assert row["pass@4"] == pytest.approx(0.5)
    assert result["all"]["pylint_mean"] == pytest.approx((5 + 8 + 2.5) / 3)  # over tasks, not over difficulties
    assert result["all"]["pylint_mean_ci"] == list(bootstrap_ci([5, 8, 2.5]))
    assert result["interview"]["pass@1_ci"] == [1.0, 1.0]
    assert result["competition"]["tasks"] == 0
    assert result["competition"]["pylint_mean"] is result["competition"]["pylint_mean_ci"] is None
    assert json.loads(json.dumps(result)) == result


def test_ks_default_to_those_that_n_allows_and_larger_ones_are_refused():
    names = summarise(TASKS, judged())["all"]
    assert [name for name in names if name.startswith("pass")] == ["pass@1", "pass@1_ci"]
    with pytest.raises(UserError, match="pass@5.*'a'.*n=4"):
        summarise(TASKS, judged(), ks=(1, 5))
    with pytest.raises(UserError, match="at least one"):
        summarise([], {})


def test_each_task_has_its_own_number_of_samples():
    programs = judged()
    programs["b"] = [program(8, Verdict("failed")), program(8, Verdict("passed"))]
    result = summarise(TASKS, programs, ks=(1, 2))
    assert result["introductory"]["pass@1"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert result["introductory"]["pass@2"] == pytest.approx((5 / 6 + 1) / 2)
    assert result["all"]["pylint_mean"] == pytest.approx((5 + 8 + 2.5) / 3)
    with pytest.raises(UserError, match="task 'b' from its n=2"):
        summarise(TASKS, programs, ks=(1, 3))
    both = compare(TASKS, judged(), programs)
    assert both["all"]["pass@1"] == pytest.approx((0 + 1 / 2 + 0) / 3) and "pass@5" not in both["all"]


def test_a_second_rule_gives_rates_of_its_own_and_no_difficulty_counts_in_all_alone():
    tasks = [replace(TASK, id="a", difficulty="", rules=("strict", "official")), replace(TASK, id="b", difficulty="")]
    programs = {
        "a": [program(5, Verdict("failed", by_rule={"strict": "failed", "official": "passed"}))] * 2,
        "b": [program(5, Verdict("passed")), program(5, Verdict("failed"))],  # one rule: it stands for the other
    }
    result = summarise(tasks, programs, ks=(1,))
    assert (result["all"]["pass@1"], result["all"]["official_pass@1"]) == (0.25, 0.75)
    assert [result[level]["tasks"] for level in result] == [0, 0, 0, 2]
    assert result["all"]["official_pass@1_ci"] == list(bootstrap_ci([1.0, 0.5]))


def test_the_names_are_known_before_anything_is_computed():
    tasks = [replace(task, rules=("strict", "official")) for task in TASKS]  # none is of competition
    results = {system: summarise(tasks, judged(), ks=(1, 4)) for system in ("a", "b")}
    assert flat_names(tasks, ["a", "b"], (1, 4), 4, tokens=False) == list(flat(results))
    counted = {task: [replace(one, tokens=7) for one in some] for task, some in judged().items()}
    results = {system: summarise(tasks, counted, ks=(1, 4)) for system in ("a", "b")}
    assert flat_names(tasks, ["a", "b"], (1, 4), 4) == list(flat(results))


def test_differences_are_paired_by_task():
    better = {"a": [10, 9, 9, 10], "b": [9, 9, 9, 9], "c": [1, 2, 3, 4]}
    result = compare(TASKS, judged(), judged(better, {"a": 4, "b": 1, "c": 4}), ks=(1,))
    before, after = summarise(TASKS, judged()), summarise(TASKS, judged(better))
    for metric in ("pylint_mean", "pylint_max", "pylint_min"):
        assert result["all"][metric] == pytest.approx(after["all"][metric] - before["all"][metric])
    assert result["all"]["pass@1"] == pytest.approx((0.5 + 0.25 + 0) / 3)
    assert [result["all"]["pylint_mean"], *result["all"]["pylint_mean_ci"]] == list(
        paired_difference([5, 8, 2.5], [9.5, 9, 2.5])
    )
    assert result["interview"]["pylint_mean_ci"] == [0, 0]
    assert result["competition"]["pass@1"] is None


def test_tests_that_do_not_count_have_a_rate_of_their_own_over_the_tasks_that_have_some():
    shown = {"public_tests": (Test(code="assert f(1)"),), "uncounted": "public", "difficulty": ""}
    tasks = [replace(TASK, id="a", **shown), replace(TASK, id="b", **shown), replace(TASK, id="c", difficulty="")]
    failed, passed = (program(5, Verdict("passed", by_rule={"public": status})) for status in ("failed", "passed"))
    neither = [program(5, Verdict("passed")), program(5, Verdict("failed"))]
    programs = {"a": [failed, failed], "b": [failed, passed], "c": neither}
    result = summarise(tasks, programs, ks=(1,))["all"]
    assert result["pass@1"] == pytest.approx(5 / 6) and result["public_pass@1"] == 0.25
    assert result["public_pass@1_ci"] == list(bootstrap_ci([0.0, 0.5]))
    better = programs | {"a": [passed, failed]}
    change = compare(tasks, programs, better, ks=(1,))["all"]
    assert change["pass@1"] == 0 and change["public_pass@1"] == 0.25
    assert flat_names(tasks, ["x"], (1,), 2, tokens=False) == list(flat({"x": summarise(tasks, programs, ks=(1,))}))
    without = summarise(tasks[2:], programs, ks=(1,))["all"]
    assert "public_pass@1" not in without


def test_a_task_without_a_value_is_left_out_on_both_sides_of_a_change():
    unread = JudgedProgram(Quality(0.0, 0, True), Verdict("not_parsed"))
    before = judged() | {"a": [unread] * 4}
    after = {task: [program(5, Verdict("passed"), statements=9)] * 4 for task in "abc"} | {"b": [unread] * 4}
    assert summarise(TASKS, before)["all"]["statements"] == 5
    assert summarise(TASKS, before)["introductory"]["not_parsed"] == 50
    change = compare(TASKS, before, after)
    assert change["all"]["statements"] == 4 and change["all"]["statements_ci"] == [4, 4]  # task c alone
    assert change["introductory"]["statements"] is None
    assert change["all"]["not_parsed"] == pytest.approx(0)


def test_intervals_of_counts_are_those_of_numpy():
    generator = np.random.default_rng(0)
    tasks = [replace(TASK, id=str(i)) for i in range(30)]
    tokens = generator.integers(1, 300, (2, 30, 5))
    both = [
        {
            task.id: [replace(program(5, Verdict("passed")), tokens=int(t)) for t in row]
            for task, row in zip(tasks, some, strict=True)
        }
        for some in tokens
    ]
    means = tokens.mean(axis=2)
    places = np.random.default_rng(0).integers(0, 30, (2000, 30))  # one block of the same generator
    for found, values in ((summarise(tasks, both[1]), means[1]), (compare(tasks, *both), means[1] - means[0])):
        assert found["all"]["tokens"] == pytest.approx(values.mean())
        expected = np.percentile(values[places].mean(axis=1), [2.5, 97.5])
        assert found["all"]["tokens_ci"] == pytest.approx(list(expected), rel=0.02, abs=0.5)
