"""Digests of what stored results depend on besides settings: code, Python, and the installed packages.

A gate, a rule or a selection that is edited makes other programs; another way to clean or to judge, other verdicts.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import platform
import sys
from pathlib import Path
from typing import Any

import cptlab
from cptlab.judging.lint.pylint_score import installed_packages


def code_digest(part: Any) -> str:
    """Return a digest of the file that the class of `part` is written in."""
    module = sys.modules[type(part).__module__]
    try:
        return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
    except (OSError, TypeError):  # written at a prompt
        return f"{type(part).__module__}.{type(part).__qualname__}"


@functools.cache
def folder_digest(folder: str) -> str:
    """Return a digest of the code in a folder of this package, such as `judging/cleaning`."""
    root = Path(cptlab.__file__).parent / folder
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def judging_digest() -> str:
    """Return a digest of all that verdicts and scores depend on besides programs, tasks and settings."""
    parts = [folder_digest("judging"), platform.python_version(), *installed_packages()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
