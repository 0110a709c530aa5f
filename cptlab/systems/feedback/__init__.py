"""What a model is told about its first answer when it is asked once more, one file each."""

from cptlab.systems.feedback.linter import LinterMessages
from cptlab.systems.feedback.self_debug import SelfDebug

__all__ = ["LinterMessages", "SelfDebug"]
