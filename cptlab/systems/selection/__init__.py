"""Ways to choose which of several programs is kept, one file each."""

from cptlab.systems.selection.best_of import BestOf

__all__ = ["BestOf"]
