"""Configuration: the entry wrapper, the one validation pass, and the one wrapper around Hydra's instantiate."""

from cptlab.settings.entry import build, entry, explain, is_main_process, job, prepare, print_tree, validate

__all__ = ["build", "entry", "explain", "is_main_process", "job", "prepare", "print_tree", "validate"]
