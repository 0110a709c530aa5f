"""Digests of the code that stored programs depend on: a gate, a rule, a selection that is edited makes other programs."""

from __future__ import annotations

import hashlib
import inspect
import sys
from typing import Any


def code_digest(part: Any) -> str:
    """Return a digest of the file that the class of `part` is written in."""
    module = sys.modules[type(part).__module__]
    try:
        return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
    except (OSError, TypeError):  # written at a prompt
        return f"{type(part).__module__}.{type(part).__qualname__}"
