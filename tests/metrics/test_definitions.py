"""The declared metrics against plain formulas, and what a further one takes."""

from __future__ import annotations

import statistics

import pytest

from cptlab.errors import UserError
from cptlab.metrics import definitions
from cptlab.metrics.definitions import METRICS, QUALITY, Metric, find_metric, metrics_for
from cptlab.metrics.summary import flat_names, summarise
from cptlab.records import Prompt, Quality, Task, Test, Verdict

SCORES = (2.0, 9.0, 4.0, 4.0)
QUALITIES = [Quality(score, 5, False) for score in SCORES]
VERDICTS = [Verdict(status, by_rule={"lenient": "passed"}) for status in ("failed", "passed", "passed", "error")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pylint_mean", statistics.mean(SCORES)),
        ("pylint_max", 9.0),
        ("pylint_min", 2.0),
        ("pass@1", 0.5),
        ("pass@2", 1 - 1 / 6),  # one of the six pairs has neither of the two that pass
        ("lenient_pass@1", 1.0),
    ],
)
def test_a_metric_of_one_task(name, expected):
    metric = find_metric(name)
    assert metric.name == name and metric.of_task(QUALITIES, VERDICTS) == pytest.approx(expected)


def test_names_and_order():
    names = [metric.name for metric in metrics_for([1, 5], ["official"])]
    assert names == [*(metric.name for metric in METRICS), "pass@1", "pass@5", "official_pass@1", "official_pass@5"]
    assert [find_metric(name).samples for name in names[-4:]] == [1, 5, 1, 5]
    assert find_metric("some_rule_pass@7").heading == "some rule P@7"
    for wrong in ("accuracy", "pass@0", "pass@", "pass@x", "_pass@1", ""):
        with pytest.raises(UserError, match="There is no metric"):
            find_metric(wrong)


def test_a_further_metric_is_a_line(monkeypatch):
    median = Metric("pylint_median", "Median", "median pylint score", QUALITY,
                    lambda qualities, verdicts: statistics.median(quality.score for quality in qualities))  # fmt: skip
    monkeypatch.setattr(definitions, "METRICS", (*METRICS, median))
    task = Task("a", "kata", "test", "", "call", Prompt("p"), "f", (Test(1),))
    found = summarise([task], {"a": QUALITIES}, {"a": VERDICTS})["all"]
    assert found["pylint_median"] == 4.0 and found["pylint_median_ci"] == [4.0, 4.0]
    assert flat_names([task], ["x"], [])[-2] == "x/all/pylint_median"
