import json
from dataclasses import replace

import pytest

from cptlab.errors import UserError
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


def judged(scores=SCORES, right=RIGHT):
    qualities = {task: [Quality(float(score), 5, False) for score in some] for task, some in scores.items()}
    verdicts = {
        task: [Verdict("passed" if sample < count else "failed") for sample in range(4)]
        for task, count in right.items()
    }
    return qualities, verdicts


def test_figures():
    result = summarise(TASKS, *judged(), ks=(1, 2, 4))
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
    names = summarise(TASKS, *judged())["all"]
    assert [name for name in names if name.startswith("pass")] == ["pass@1", "pass@1_ci"]
    with pytest.raises(UserError, match="pass@5.*'a'.*n=4"):
        summarise(TASKS, *judged(), ks=(1, 5))
    with pytest.raises(UserError, match="at least one"):
        summarise([], {}, {})


def test_each_task_has_its_own_number_of_samples():
    qualities, verdicts = judged()
    qualities["b"], verdicts["b"] = qualities["b"][:2], [Verdict("failed"), Verdict("passed")]
    result = summarise(TASKS, qualities, verdicts, ks=(1, 2))
    assert result["introductory"]["pass@1"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert result["introductory"]["pass@2"] == pytest.approx((5 / 6 + 1) / 2)
    assert result["all"]["pylint_mean"] == pytest.approx((5 + 8 + 2.5) / 3)
    with pytest.raises(UserError, match="task 'b' from its n=2"):
        summarise(TASKS, qualities, verdicts, ks=(1, 3))
    both = compare(TASKS, judged(), (qualities, verdicts))
    assert both["all"]["pass@1"] == pytest.approx((0 + 1 / 2 + 0) / 3) and "pass@5" not in both["all"]
    verdicts["b"].pop()
    with pytest.raises(ValueError, match="task b"):
        summarise(TASKS, qualities, verdicts)


def test_a_second_rule_gives_rates_of_its_own_and_no_difficulty_counts_in_all_alone():
    tasks = [replace(TASK, id="a", difficulty="", rules=("strict", "official")), replace(TASK, id="b", difficulty="")]
    qualities = {"a": [Quality(5.0, 5, False)] * 2, "b": [Quality(5.0, 5, False)] * 2}
    verdicts = {
        "a": [Verdict("failed", by_rule={"strict": "failed", "official": "passed"})] * 2,
        "b": [Verdict("passed"), Verdict("failed")],  # one rule: it stands for the other
    }
    result = summarise(tasks, qualities, verdicts, ks=(1,))
    assert (result["all"]["pass@1"], result["all"]["official_pass@1"]) == (0.25, 0.75)
    assert [result[level]["tasks"] for level in result] == [0, 0, 0, 2]
    assert result["all"]["official_pass@1_ci"] == list(bootstrap_ci([1.0, 0.5]))


def test_the_names_are_known_before_anything_is_computed():
    tasks = [replace(task, rules=("strict", "official")) for task in TASKS]  # none is of competition
    results = {system: summarise(tasks, *judged(), ks=(1, 4)) for system in ("a", "b")}
    assert flat_names(tasks, ["a", "b"], (1, 4)) == list(flat(results))


def test_differences_are_paired_by_task():
    better = {"a": [10, 9, 9, 10], "b": [9, 9, 9, 9], "c": [1, 2, 3, 4]}
    result = compare(TASKS, judged(), judged(better, {"a": 4, "b": 1, "c": 4}), ks=(1,))
    before, after = summarise(TASKS, *judged()), summarise(TASKS, *judged(better))
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
    qualities = {name: [Quality(5.0, 5, False)] * 2 for name in "abc"}
    failed, passed = (Verdict("passed", by_rule={"public": status}) for status in ("failed", "passed"))
    verdicts = {"a": [failed, failed], "b": [failed, passed], "c": [Verdict("passed"), Verdict("failed")]}
    result = summarise(tasks, qualities, verdicts, ks=(1,))["all"]
    assert result["pass@1"] == pytest.approx(5 / 6) and result["public_pass@1"] == 0.25
    assert result["public_pass@1_ci"] == list(bootstrap_ci([0.0, 0.5]))
    better = verdicts | {"a": [passed, failed]}
    change = compare(tasks, (qualities, verdicts), (qualities, better), ks=(1,))["all"]
    assert change["pass@1"] == 0 and change["public_pass@1"] == 0.25
    assert flat_names(tasks, ["x"], (1,)) == list(flat({"x": summarise(tasks, qualities, verdicts, ks=(1,))}))
    without = summarise(tasks[2:], qualities, verdicts, ks=(1,))["all"]
    assert "public_pass@1" not in without
