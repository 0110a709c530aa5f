"""Tuning SPA's ω on tasks that are not reported (SPA 5.2: "easily tuned on a sampled validation set").

The command tunes, stores and reports; `cptlab.systems.tuned_omega` gives an evaluation the value back.
"""

from cptlab.analysis.omega.search import Search, find_best, omega_grid

__all__ = ["Search", "find_best", "omega_grid"]
