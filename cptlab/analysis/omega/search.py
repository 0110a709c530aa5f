"""Search for the ω with the highest score, assuming one peak and checking that assumption.

SPA 5.2 and Fig. 4 report that pass@1 first rises with ω and then falls. For such a curve a Fibonacci search (Kiefer
1953, the golden-section search of a grid) needs few points: each comparison of two inner points discards one end. Here
scores are noisy, so the search also evaluates a few further points. A valley contradicts the assumption: a point that is
below a point on its left and one on its right by more than chance explains. Then the whole grid is evaluated.

"More than chance": simultaneous 95% bootstrap intervals over tasks (studentised maximum, Davison and Hinkley 1997, 5.2)
of the paired differences between all points evaluated, so that many points alone make no valley. Only evaluated points
can show a valley. A narrow one between two of them stays unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cptlab.errors import UserError
from cptlab.settings.commands import OmegaSettings
from cptlab.settings.setting import check_settings

Scores = tuple[float, ...]  # one number a task, always in the same order


@dataclass(frozen=True)
class Interval:
    """A difference of two means over tasks with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Valley:
    """A violation of the assumption: ω `bottom` scores lower than `left` and `right`. Intervals are simultaneous."""

    left: float
    bottom: float
    right: float
    fall: Interval  # score at left minus score at bottom
    rise: Interval  # score at right minus score at bottom


@dataclass(frozen=True)
class Search:
    """The result of `find_best`. `scores` holds each ω that was evaluated, in the order of evaluation."""

    grid: tuple[float, ...]
    scores: dict[float, Scores]
    best: float
    against_one: dict[float, Interval]  # score minus that at ω = 1; simultaneous over all ω but 1
    valleys: tuple[Valley, ...]  # that made the search fall back to the whole grid
    fell_back: bool

    @property
    def unimodal(self) -> bool:
        """Whether no point evaluated contradicts the assumption of one peak."""
        return not self.valleys

    @property
    def helps(self) -> bool:
        """Whether the best ω is better than 1 by more than chance explains."""
        return self.best in self.against_one and self.against_one[self.best].above_zero

    @property
    def flat(self) -> bool:
        """Whether no ω that was evaluated differs from 1 by more than chance explains."""
        return not any(interval.excludes_zero for interval in self.against_one.values())

    @property
    def at_end(self) -> bool:
        """Whether the best ω is the largest of the grid (or the smallest, if that is not 1): a wider grid may hold better."""
        return self.best == self.grid[-1] or (self.best == self.grid[0] != 1.0)

    def mean(self, omega: float) -> float:
        return float(np.mean(self.scores[omega]))


def omega_grid(low: float = 1.0, high: float = 2.0, step: float = 0.05) -> tuple[float, ...]:
    """Return low, low + step, … up to high, and 1 (plain decoding, which every ω is compared with), in order."""
    if not (np.isfinite([low, high, step]).all() and low < high and step > 0):
        raise UserError(f"low={low}, high={high}, step={step} make no grid of ω. Give low < high and step > 0.")
    count = int(np.floor((high - low) / step + 1e-9)) + 1
    if not 2 <= count <= 1000:
        raise UserError(f"low={low}, high={high}, step={step} make {count} values of ω. Choose a step for 2 to 1000.")
    return tuple(sorted({round(low + i * step, 10) for i in range(count)} | {1.0}))


def find_best(
    evaluate: Callable[[float], Sequence[float]],
    grid: Sequence[float],
    method: str = "unimodal",
    probes: int = 3,
    seed: int = 0,
) -> Search:
    """Find the ω of `grid` (ascending, with 1.0) with the highest mean over tasks, of equals the one nearest to 1.

    `evaluate` gives the scores of one ω, one number a task, always for the same tasks in the same order. It is called
    once for each ω. `method` is unimodal (search, check, fall back) or grid (every ω, and the same check). `probes` is
    the number of points that are evaluated for the check alone, each in the middle of the widest stretch without one.
    Both ends of the grid are evaluated, too. A probe above the best point so far is followed to its own peak.
    """
    check_settings(OmegaSettings, method=method)
    if 1.0 not in grid:
        raise ValueError("the grid needs ω = 1")
    grid = tuple(grid)
    scores: dict[float, Scores] = {}

    def score(place: int) -> float:
        omega = grid[place]
        if omega not in scores:
            found = tuple(float(value) for value in evaluate(omega))
            if not found or any(len(found) != len(other) for other in scores.values()):
                raise ValueError(f"ω = {omega}: {len(found)} scores, not one for each task")
            scores[omega] = found
        return float(np.mean(scores[omega]))

    score(grid.index(1.0))
    if method == "unimodal":
        _fibonacci(score, len(grid))
        for place in (0, len(grid) - 1):
            score(place)
        for _ in range(probes):
            if (place := _widest_gap([omega in scores for omega in grid])) is not None:
                score(place)
        _climb(score, grid, scores)
    else:
        for place in range(len(grid)):
            score(place)
    valleys = find_valleys(scores, seed)
    fell_back = method == "unimodal" and bool(valleys)
    if fell_back:
        for place in range(len(grid)):
            score(place)
    return Search(grid, scores, _best(scores), _against_one(scores, seed), valleys, fell_back)


def find_valleys(scores: dict[float, Scores], seed: int = 0) -> tuple[Valley, ...]:
    """Return every valley that chance does not explain, with the highest points on both its sides."""
    omegas = sorted(scores)
    pairs = [(a, b) for i, a in enumerate(omegas) for b in omegas[i + 1 :]]
    above = {}
    for (a, b), found in zip(pairs, differences(scores, pairs, seed), strict=True):
        above[b, a] = found  # score(b) - score(a)
        above[a, b] = Interval(-found.value, -found.high, -found.low)
    valleys = []
    for i, bottom in enumerate(omegas):
        sides = [[omega for omega in side if above[omega, bottom].above_zero] for side in (omegas[:i], omegas[i + 1 :])]
        if all(sides):
            left, right = (max(side, key=lambda omega, b=bottom: above[omega, b].value) for side in sides)
            valleys.append(Valley(left, bottom, right, above[left, bottom], above[right, bottom]))
    return tuple(valleys)


def differences(
    scores: dict[float, Scores],
    pairs: Sequence[tuple[float, float]],
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> list[Interval]:
    """Return the mean score at b minus that at a for each pair (a, b), paired by task, with simultaneous intervals.

    All of them together cover their true values with probability `level`. A difference that is the same for every task
    has no spread, and its interval is that number.
    """
    if not pairs:
        return []
    omegas = sorted(scores)
    values = np.array([scores[omega] for omega in omegas])  # [points, tasks]
    tasks = values.shape[1]
    first, second = (np.array([omegas.index(pair[side]) for pair in pairs]) for side in (0, 1))
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(tasks, np.full(tasks, 1 / tasks), size=resamples) / tasks  # [resamples, tasks]
    means = weights @ values.T
    found = (values[second] - values[first]).mean(1)
    errors = means[:, second] - means[:, first] - found  # [resamples, pairs]
    spread = errors.std(0)
    varies = spread > 1e-12
    largest = (np.abs(errors[:, varies]) / spread[varies]).max(1) if varies.any() else np.zeros(resamples)
    margin = np.where(varies, spread, 0.0) * np.quantile(largest, level)
    found = np.where(np.abs(found) < 1e-12, 0.0, found)
    return [Interval(float(d), float(d - m), float(d + m)) for d, m in zip(found, margin, strict=True)]


def _fibonacci(score: Callable[[int], float], size: int) -> None:
    """Evaluate the points of a Fibonacci search for the largest of `size` scores. Beyond the grid the score is −∞."""
    numbers = [1, 2]
    while numbers[-1] <= size:
        numbers.append(numbers[-1] + numbers[-2])
    before = -1  # the peak lies strictly between `before` and `before + numbers[-1]`
    while len(numbers) > 2:
        left, right = before + numbers[-3], before + numbers[-2]
        if right < size and score(left) < score(right):
            before = left
        numbers.pop()
    if before + 1 < size:
        score(before + 1)


def _widest_gap(seen: Sequence[bool]) -> int | None:
    """Return the middle of the longest run of points not seen, the first of equals, or None if all were seen."""
    best, start = (0, 0), 0
    for place, done in enumerate([*seen, True]):
        if done:
            best = max(best, (place - start, start), key=lambda run: run[0])
            start = place + 1
    length, start = best
    return start + (length - 1) // 2 if length else None


def _climb(score: Callable[[int], float], grid: Sequence[float], scores: dict[float, Scores]) -> None:
    """Evaluate the neighbours of the best point until both are known and neither is better."""
    while True:
        place = grid.index(_best(scores))
        unseen = [near for near in (place - 1, place + 1) if 0 <= near < len(grid) and grid[near] not in scores]
        if not unseen:
            return
        for near in unseen:
            score(near)


def _best(scores: dict[float, Scores]) -> float:
    means = {omega: round(float(np.mean(found)), 12) for omega, found in scores.items()}
    return min(means, key=lambda omega: (-means[omega], abs(omega - 1), omega))


def _against_one(scores: dict[float, Scores], seed: int) -> dict[float, Interval]:
    others: Iterable[float] = sorted(omega for omega in scores if omega != 1.0)
    pairs = [(1.0, omega) for omega in others]
    return {pair[1]: found for pair, found in zip(pairs, differences(scores, pairs, seed), strict=True)}
