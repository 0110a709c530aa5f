"""Changes of a task's prompt, one file each."""

from cptlab.systems.prompts.clean_code import CleanCode

__all__ = ["CleanCode"]
