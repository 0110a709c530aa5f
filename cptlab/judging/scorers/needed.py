"""Packages that some scorers need and that cptlab does not install by itself."""

from __future__ import annotations

from importlib.util import find_spec

from cptlab.errors import UserError


def need(package: str, scorer: str) -> None:
    """Raise UserError where a package is not installed."""
    if find_spec(package) is None:
        raise UserError(
            f"The scorer {scorer} needs {package}, which is not installed. Install it with: pip install 'cptlab[scorers]'"
        )
