"""Provenance: where a result comes from. Every metrics.json carries it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "cptlab",
    "torch",
    "lightning",
    "transformers",
    "hydra-core",
    "pylint",
    "datasets",
    "wandb",
    "numpy",
    "peft",
)
COMMIT, CHANGES = ("rev-parse", "HEAD"), ("status", "--porcelain")


def collect_provenance(root: Path, **facts: Any) -> dict[str, Any]:
    """Return versions, commit and dirty flag, machine, peak memory, and `facts`.

    `root` is the directory that holds the package: the top of a clone, or site-packages, which has no commit.
    """
    is_clone = _git(root, "rev-parse", "--show-toplevel") == str(root.resolve())
    commit, changes = (_git(root, *question) if is_clone else None for question in (COMMIT, CHANGES))
    return {
        "versions": {"python": platform.python_version()} | {name: version_of(name) for name in PACKAGES},
        "git": {"commit": commit, "dirty": bool(changes)},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **facts,
    }


def version_of(package: str) -> str | None:
    """Return the installed version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    """Return what a git command says in `root`, None if it fails or there is no git."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
