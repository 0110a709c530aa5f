"""Changes of finished programs, one file each."""

from cptlab.systems.post_processing.ruff_fix import RuffFix

__all__ = ["RuffFix"]
