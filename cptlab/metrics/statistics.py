"""pass@k and intervals over tasks. Random numbers come from a seed alone, so every figure can be repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cptlab.errors import UserError


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate 1 - C(n - c, k) / C(n, k) from `n` samples, `c` of them right (Chen et al. 2021, eq. 1).

    The usual code returns 1.0 for k > n even with c = 0; here that is a UserError.
    """
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"pass@k needs 0 <= c <= n and k >= 1, not n={n}, c={c}, k={k}")
    if k > n:
        raise UserError(
            f"pass@{k} cannot be estimated from {n} samples per task. Draw at least {k}, or ask for k <= {n}."
        )
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def bootstrap_ci(
    values_per_task: Sequence[float], level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over tasks: (low, high). Tasks are drawn with replacement."""
    values = np.asarray(values_per_task, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError("an interval needs a list of at least one value")
    generator = np.random.default_rng(seed)
    means = np.array([values[generator.integers(0, values.size, values.size)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: Sequence[float], second: Sequence[float], level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Mean of `second` minus mean of `first`, with its paired bootstrap interval: (difference, low, high).

    Both hold the same tasks in the same order; a task is drawn with both its values.
    """
    if len(first) != len(second):
        raise ValueError(f"a paired difference needs the same tasks on both sides, not {len(first)} and {len(second)}")
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return (float(differences.mean()), *bootstrap_ci(differences, level, seed, resamples))
