"""Probe a confinement: try in a confined child what it should refuse, and report what it refused."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from cptlab.judging.sandbox.confinement import REPORT, Confinement, enter
from cptlab.judging.workers.forked_child import run_forked
from cptlab.judging.workers.messages import write_all


def probe(confinement: Confinement, limits: dict[str, Any]) -> dict[str, bool]:
    """Return, for each protection, whether a confined child was refused what it tried."""
    outside = f"{confinement.folder}-probe"  # beside the scratch directory
    with open(outside, "w") as file:
        file.write("x")

    attempts: dict[str, Callable[[], Any]] = {
        "processes": lambda: os._exit(0) if os.fork() == 0 else None,
        "signals": lambda: os.kill(os.getppid() or 1, 0),
        "network": lambda: socket.socket(),
        "reading": lambda: open(outside).close(),
        "writing": lambda: open(outside, "w").close(),
    }

    def child(fd: int) -> None:
        enter((), fd, limits, 1, confinement)
        refused = {}
        for name, attempt in attempts.items():
            try:
                attempt()
                refused[name] = False
            except OSError:
                refused[name] = True
        write_all(REPORT, json.dumps(refused).encode())

    ending = run_forked(child, cpu_seconds=5, wall_seconds=60, max_bytes=1 << 12)
    os.unlink(outside)
    try:
        return json.loads(ending.data)
    except ValueError:
        return dict.fromkeys(attempts, False)
