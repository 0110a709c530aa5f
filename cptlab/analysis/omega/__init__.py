"""Tuning SPA's ω on tasks that are not reported (SPA 5.2: "easily tuned on a sampled validation set").

`python -m cptlab.analysis.omega` tunes, stores and reports; `stored_omega` is how an evaluation gets the value back.
"""

from cptlab.analysis.omega.search import Search, find_best, omega_grid
from cptlab.systems.tuned_omega import Setting, find_setting, stored_omega, with_omega

__all__ = ["Search", "Setting", "find_best", "find_setting", "omega_grid", "stored_omega", "with_omega"]
