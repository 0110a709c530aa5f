"""The request loop of a server process, which answers each request by forking a child (forked_child.py).

A server is a fresh, single-threaded interpreter (server_pool.py), so forking it is cheap and safe whatever threads the
main process has. Requests arrive on descriptor 0 and answers leave on descriptor 1. When the main process closes
descriptor 0 or dies, the server kills its child and ends.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

from cptlab.judging.workers.libc import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, libc
from cptlab.judging.workers.messages import HangUp, read_message, write_message


def serve(answer: Callable[[Any], Any], hello: Any) -> None:
    """Send `hello`, then answer requests until descriptor 0 closes; then return, for the caller to clean up."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    gc.collect()
    gc.freeze()  # or the collector would touch, and so copy, every page in every child
    try:
        write_message(1, hello)
        while (request := read_message(0)) is not None:
            write_message(1, answer(request))
    except (HangUp, BrokenPipeError):
        pass


def remove_pool_folder(folder: str) -> None:
    """Remove the pool's folder at the end of a server, where no other is at work: the main process may have been killed."""
    try:
        for name in os.listdir(folder):
            if name.startswith("tests-"):
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:
        pass  # other servers are still at work, or the main process was quicker
