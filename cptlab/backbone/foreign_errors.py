"""Tell an error of a foreign library or architecture from a mistake in this package."""

from __future__ import annotations

import traceback
from types import FrameType

import torch

PACKAGE = __name__.partition(".")[0]
# where torch calls a model's forward pass, with arguments that it may not take, and where it runs its backward pass
RUNS_THE_MODEL = ("torch.nn.modules.module", "torch.autograd", "torch.autograd.graph")


def raised_outside(error: BaseException) -> bool:
    """Return whether code outside of this package raised `error`, which must have been caught (it has a traceback).

    The frame that raised it decides, so a misspelt name is ours even where transformers calls the function that holds
    it. torch raises RuntimeError and IndexError for tensors of unexpected shapes, and is not to blame for them: whoever
    called it is. That is an architecture, or this package: there the error is ours, unless the `forward` of an
    architecture's module has called us, as it calls a cache, with its own tensors. A lack of memory is no one's mistake,
    and the answer is False.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert frames, "the error was never raised"
    if not isinstance(error, (RuntimeError, IndexError)) or _module(frames[-1]) in RUNS_THE_MODEL:
        return _package(frames[-1]) != PACKAGE
    callers = [frame for frame in frames if _package(frame) != "torch"]
    called_back = any(frame.f_code.co_name == "forward" and _package(frame) != PACKAGE for frame in callers)
    return called_back or _package(callers[-1]) != PACKAGE


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "")


def _package(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]
