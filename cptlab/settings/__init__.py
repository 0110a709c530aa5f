"""Settings: what they are (setting.py, which needs nothing else), the entry wrapper, validation, and instantiation."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["build", "entry", "explain", "is_main_process", "job", "prepare", "print_tree", "validate"]


def __getattr__(name: str) -> Any:
    """Load Hydra when it is needed, so that every room can import `cptlab.settings.setting`."""
    if name not in __all__:
        raise AttributeError(name)
    module = importlib.import_module("cptlab.settings.entry")
    globals().update({one: getattr(module, one) for one in __all__})
    return globals()[name]
