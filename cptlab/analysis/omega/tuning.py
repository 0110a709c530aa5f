"""Tune one system's ω on validation tasks, then compare it with ω = 1 on test tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cptlab.analysis.omega.search import Search, find_best
from cptlab.errors import UserError
from cptlab.metrics.definitions import PYLINT, QUALITY, SCORES, find_metric
from cptlab.metrics.summary import Programs, compare, summarise
from cptlab.records import Task
from cptlab.reporting.tables import change, value

Draw = Callable[[Sequence[Task], float], Programs]  # (tasks, ω) -> programs by task id
Figures = dict[str, Any]


@dataclass(frozen=True)
class Tuned:
    """A tuned ω and its figures, as cptlab.metrics.summary gives them over all difficulties.

    `values[ω]` and `changes[ω]` (against ω = 1) are of the validation tasks. `test` holds the figures `before` (ω = 1)
    and `after`, and their paired `change`, of the test tasks.
    """

    search: Search
    values: dict[float, Figures]
    changes: dict[float, Figures]
    test: dict[str, Figures]

    def record(self) -> dict[str, Any]:
        """Return the contents of omega.json."""
        search = self.search
        return {
            "omega": search.best, "unimodal": search.unimodal, "fell_back": search.fell_back, "flat": search.flat,
            "helps": search.helps, "at_end": search.at_end, "grid": list(search.grid),
            "evaluated": list(search.scores), "valleys": [asdict(valley) for valley in search.valleys],
            "against_one": {str(omega): asdict(found) for omega, found in search.against_one.items()},
            "values": {str(omega): self.values[omega] for omega in sorted(self.values)},
            "changes": {str(omega): self.changes[omega] for omega in sorted(self.changes)},
            "per_task": {str(omega): list(search.scores[omega]) for omega in sorted(search.scores)},
            "test": self.test,
        }  # fmt: skip


def tune(
    draw: Draw,
    validation: Sequence[Task],
    test: Sequence[Task],
    grid: Sequence[float],
    metric: str = "pass@1",
    method: str = "unimodal",
    probes: int = 3,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Find the best ω of `grid` on `validation`, and evaluate it on `test`. `tell` gets a line for each ω tried."""
    ks = sorted({1, find_metric(metric).samples})
    judged: dict[float, Programs] = {}

    def evaluate(omega: float) -> list[float]:
        judged[omega] = draw(validation, omega)
        found = task_values(validation, judged[omega], metric)
        tell(
            f"ω = {omega:g}: {metric} {value(metric, {metric: sum(found) / len(found)})} "
            f"({len(judged)} of at most {len(grid)} values)"
        )
        return found

    search = find_best(evaluate, grid, method, probes, seed)
    values = {omega: summarise(validation, found, ks=ks)["all"] for omega, found in judged.items()}
    changes = {omega: compare(validation, judged[1.0], found, ks=ks)["all"] for omega, found in judged.items()}
    plain = draw(test, 1.0)
    after = plain if search.best == 1 else draw(test, search.best)
    figures = {name: summarise(test, found, ks=ks)["all"] for name, found in (("before", plain), ("after", after))}
    return Tuned(search, values, changes, figures | {"change": compare(test, plain, after, ks=ks)["all"]})


def task_values(tasks: Sequence[Task], judged: Programs, metric: str) -> list[float]:
    """Return the metric of each task that has it."""
    of_task = find_metric(metric).of_task
    values = [of_task(judged[task.id]) for task in tasks]
    if not any(value is not None for value in values):
        raise UserError(f"metric={metric} is about tests that none of these tasks has. Choose another, such as pass@1.")
    return [value for value in values if value is not None]


def check_metric(metric: str, n: int, scorer: str = PYLINT) -> None:
    """Raise UserError if this scorer gives no such score, or if `n` samples of each task do not allow it."""
    found = find_metric(metric)
    if found.family == QUALITY and not metric.startswith(f"{scorer}_"):
        raise UserError(f"metric={metric} is not given by the scorer {scorer}. Choose pass@1 or {scorer}_mean.")
    if found.family not in SCORES:
        raise UserError(
            f"metric={metric} counts {found.label}, and a high count is no aim. Choose pass@1 or {scorer}_mean."
        )
    needed = found.samples
    if needed > n:
        raise UserError(
            f"metric={metric} needs at least {needed} programs a task, and n={n}. Raise n, or choose another."
        )


def sentences(system: str, tuned: Tuned, metric: str) -> list[str]:
    """Say the result in sentences that do not present chance as a finding."""
    search, test = tuned.search, tuned.test
    tried = (
        f"{len(search.scores)} of {len(search.grid)} values of ω tried on {tuned.values[1.0]['tasks']} validation tasks"
    )
    out = []
    if search.unimodal:
        out.append(f"{system}: {tried}; none contradicts the assumption of one peak.")
    else:
        valley = max(search.valleys, key=lambda valley: min(valley.fall.value, valley.rise.value))
        out.append(
            f"{system}: {tried}; the assumption of one peak FAILED: ω = {valley.bottom:g} scores lower than both "
            f"{valley.left:g} (by {_interval(metric, valley.fall)}) and {valley.right:g} "
            f"(by {_interval(metric, valley.rise)})." + (" So the whole grid was evaluated." if search.fell_back else "")
        )  # fmt: skip
    if search.flat:
        kept = (
            "the plain model is kept"
            if search.best == 1
            else f"ω = {search.best:g} is only the highest point, not a finding"
        )
        out.append(f"{system}: no ω differs from 1 by more than chance explains; {kept}.")
    elif not search.helps and search.best != 1:
        out.append(f"{system}: the best, ω = {search.best:g}, is not better than 1 by more than chance explains.")
    if search.best in search.against_one:
        out.append(
            f"{system}: on the tasks that chose it, ω = {search.best:g} changes {metric} by "
            f"{_interval(metric, search.against_one[search.best])} (interval widened for all ω tried)."
        )
    if search.at_end:
        out.append(f"{system}: ω = {search.best:g} is the end of the grid. Widen it with high=… or low=….")
    before, after = (value(metric, test[side]) for side in ("before", "after"))
    moved = "" if search.best == 1 else f", at ω = {search.best:g} {after} ({change(metric, test['change'])})"
    out.append(f"{system}: on {test['after']['tasks']} other tasks, {metric} at ω = 1 is {before}{moved}.")
    return out


def _interval(metric: str, found: Any) -> str:
    return change(metric, {metric: found.value, f"{metric}_ci": (found.low, found.high)})
