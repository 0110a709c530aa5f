"""The C library, for system calls that Python does not offer (Linux)."""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + 4 * [ctypes.c_ulong]
# os.fork would call the hooks that modules registered, which costs a child 100 pages; a server has no threads to look after.
libc_holding_the_gil = ctypes.PyDLL(None)


def failure(what: str) -> OSError:
    """Return the error of the system call that just failed, for a caller to raise. `what` names the call."""
    return OSError(f"{what}: {os.strerror(ctypes.get_errno())}")
