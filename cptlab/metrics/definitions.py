"""The metrics: how each is computed from one task's programs, and how it is shown.

A further metric is a function and a line in `METRICS`. Summaries, tables, figures and checks of a metric's name all
read from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from cptlab.errors import UserError
from cptlab.metrics.statistics import pass_at_k
from cptlab.records import Quality, Verdict

# of the scores and verdicts of one task's programs; None where the task has nothing to measure
OfTask = Callable[[Sequence[Quality], Sequence[Verdict]], float | None]
UNCOUNTED = ("public", "hidden")  # tests that do not count in the verdict are one of these parts of a task's tests


@dataclass(frozen=True)
class Family:
    """Metrics in one unit, which share a table and a figure. `top` is the highest value that is shown."""

    name: str
    title: str
    unit: str
    top: float
    percent: bool = False  # values are fractions, shown in percent

    @property
    def heading(self) -> str:
        """The title without its unit: 'Code quality'."""
        return self.title.partition(":")[0]

    @property
    def scale(self) -> int:
        return 100 if self.percent else 1

    @property
    def digits(self) -> int:
        """Decimals of a shown value."""
        return 1 if self.percent else 2


QUALITY = Family("quality", "Code quality: pylint score (0 to 10)", "pylint score", 10)
CORRECTNESS = Family("correctness", "Functional correctness: pass@k in percent", "pass@k", 100, percent=True)
FAMILIES = (QUALITY, CORRECTNESS)


@dataclass(frozen=True)
class Metric:
    """`name` stands in files, `heading` above the column of a table, `label` in a sentence.

    `of_task` is computed for each task, from all its programs; the mean over tasks that have it is reported. It needs
    `samples` programs of each task.
    """

    name: str
    heading: str
    label: str
    family: Family
    of_task: OfTask
    samples: int = 1


def mean_score(qualities: Sequence[Quality], verdicts: Sequence[Verdict]) -> float:
    return sum(quality.score for quality in qualities) / len(qualities)


def max_score(qualities: Sequence[Quality], verdicts: Sequence[Verdict]) -> float:
    return max(quality.score for quality in qualities)


def min_score(qualities: Sequence[Quality], verdicts: Sequence[Verdict]) -> float:
    return min(quality.score for quality in qualities)


METRICS = (  # CPT Table II; pass@k, of CPT Table III, is added for each k
    Metric("pylint_mean", "Mean", "mean pylint score", QUALITY, mean_score),
    Metric("pylint_max", "Max", "max pylint score", QUALITY, max_score),
    Metric("pylint_min", "Min", "min pylint score", QUALITY, min_score),
)


def pass_rate(qualities: Sequence[Quality], verdicts: Sequence[Verdict], k: int, rule: str = "") -> float | None:
    """pass@k of one task under a comparison rule; the rule that decides where none is named.

    The rules public and hidden stand for those tests alone where they do not count; None for a task without such tests.
    """
    if rule in UNCOUNTED and not all(rule in verdict.by_rule for verdict in verdicts):
        return None
    passed = sum(verdict.by_rule.get(rule, verdict.status) == "passed" for verdict in verdicts)
    return pass_at_k(len(verdicts), passed, k)


def pass_at(k: int, rule: str = "") -> Metric:
    """Return the metric pass@k, or `<rule>_pass@k` under a further comparison rule or on tests that do not count."""
    prefix, words = (f"{rule}_", f"{rule.replace('_', ' ')} ") if rule else ("", "")
    of_task = partial(pass_rate, k=k, rule=rule)
    return Metric(f"{prefix}pass@{k}", f"{words}P@{k}", f"{words}pass@{k}", CORRECTNESS, of_task, samples=k)


def metrics_for(ks: Iterable[int], further_rules: Iterable[str] = ()) -> list[Metric]:
    """Return every metric of an evaluation with these k, in the order of the tables."""
    ks = list(ks)
    return [*METRICS, *(pass_at(k, rule) for rule in ("", *further_rules) for k in ks)]


def find_metric(name: str) -> Metric:
    """Return the metric with this name. Raises UserError if there is none."""
    for metric in METRICS:
        if metric.name == name:
            return metric
    if found := re.fullmatch(r"(?:(\w+)_)?pass@([1-9]\d*)", name):
        return pass_at(int(found[2]), found[1] or "")
    names = ", ".join(metric.name for metric in METRICS)
    raise UserError(f"There is no metric {name!r}. Choose pass@1 (or another k), or one of {names}.")
