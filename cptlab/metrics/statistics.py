"""pass@k, and bootstrap intervals over tasks, or over seeds and tasks.

Random numbers come from a seed alone, so every interval can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cptlab.errors import UserError

BLOCK = 1 << 15  # values drawn at a time


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate 1 - C(n - c, k) / C(n, k) from `n` samples, `c` of them right (Chen et al. 2021, eq. 1).

    Raises UserError if k > n, where the published code returns 1.0 even with c = 0.
    """
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"pass@k needs 0 <= c <= n and k >= 1, got n={n}, c={c}, k={k}")
    if k > n:
        raise UserError(
            f"pass@{k} cannot be estimated from {n} samples per task. Draw at least {k}, or ask for k <= {n}."
        )
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def bootstrap_ci(
    values_per_task: Sequence[float] | np.ndarray, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (low, high) of the mean over tasks, drawn with replacement."""
    values = np.asarray(values_per_task, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"an interval needs a list of at least one value, got shape {values.shape}")
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // values.size)  # resamples at a time: fast, and small for any number of tasks
    blocks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    means = np.concatenate(
        [values[generator.integers(0, values.size, (block, values.size))].mean(axis=1) for block in blocks]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: Sequence[float], second: Sequence[float], level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Return the mean of `second` minus that of `first`, and its paired bootstrap interval: (difference, low, high).

    Both hold the same tasks in the same order; a task is drawn with both its values.
    """
    if len(first) != len(second):
        raise ValueError(f"a paired difference needs the same tasks on both sides, got {len(first)} and {len(second)}")
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return (float(differences.mean()), *bootstrap_ci(differences, level, seed, resamples))


def hierarchical_ci(
    values: Sequence[Sequence[float]] | np.ndarray, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (low, high) of the mean over seeds and tasks, both drawn with replacement.

    `values` is [seeds, tasks]: a line for each seed, with the same tasks in the same order. A task is drawn for all
    seeds at once, as all of them were run on it. S seeds drawn with replacement vary less than S new seeds would, by
    (S - 1) / S in variance, so what a drawn set of seeds adds is widened by sqrt(S / (S - 1)); an end never lies beyond
    all values. With one seed it is `bootstrap_ci`. docs/judging.md says how often the interval holds the true mean.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"an interval needs a table of seeds and tasks, got shape {table.shape}")
    seeds, tasks = table.shape
    if seeds == 1:
        return bootstrap_ci(table[0], level, seed, resamples)
    generator = np.random.default_rng(seed)
    shares = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    shares = 1 / seeds + np.sqrt(seeds / (seeds - 1)) * (shares - 1 / seeds)
    rows = max(1, BLOCK // tasks)  # resamples at a time
    means = np.concatenate(
        [
            ((some @ table) * generator.multinomial(tasks, np.full(tasks, 1 / tasks), len(some)) / tasks).sum(axis=1)
            for some in np.split(shares, range(rows, resamples, rows))
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).clip(table.min(), table.max())
    return float(low), float(high)
