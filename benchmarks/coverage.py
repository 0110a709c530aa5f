"""How often intervals over seeds and tasks hold the true mean: the table in docs/judging.md.

python benchmarks/coverage.py
"""

import numpy as np

from cptlab.metrics.statistics import hierarchical_ci

TASKS, SIMULATIONS, RESAMPLES = 60, 2000, 1000
CASES = (  # seeds; the standard deviations of what a seed adds, of what a task adds, and of the noise
    (3, (0.1, 2, 1)),
    (3, (0.3, 2, 1)),
    (3, (1, 0.1, 0.1)),
    (5, (0.3, 2, 1)),
    (5, (1, 0.1, 0.1)),
    (10, (1, 0.1, 0.1)),
)


def coverage(seeds: int, of_seeds: float, of_tasks: float, noise: float) -> float:
    """Return the share of simulations, all of mean 0, whose interval holds 0."""
    draw, hits = np.random.default_rng(1), 0
    for seed in range(SIMULATIONS):
        values = draw.normal(0, of_seeds, (seeds, 1)) + draw.normal(0, of_tasks, (1, TASKS))
        values = values + draw.normal(0, noise, (seeds, TASKS))
        low, high = hierarchical_ci(values, seed=seed, resamples=RESAMPLES)
        hits += low <= 0 <= high
    return hits / SIMULATIONS


if __name__ == "__main__":
    for seeds, spread in CASES:
        print(f"{seeds:2} seeds, standard deviations {spread}: {100 * coverage(seeds, *spread):.1f}%")
