"""Tell an error of a foreign library or architecture from a mistake in this package."""

from __future__ import annotations

import torch

PACKAGE = __name__.partition(".")[0]


def raised_outside(error: BaseException) -> bool:
    """Return whether code outside of this package raised `error`, which must have been caught (it has a traceback).

    The frame that raised it decides, so a misspelt name is ours even where transformers calls the function that holds
    it. torch's C++ code has no frame. So a RuntimeError or IndexError in our frame counts as foreign, too: torch raises
    these for tensors of unexpected shapes. A lack of memory is no one's mistake, and the answer is False.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    ours = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE
    return not ours or isinstance(error, (RuntimeError, IndexError))
