"""Probe a confinement: try in a confined child what it should refuse, and report what it refused."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

from cptlab.judging.sandbox.confinement import REPORT, Confinement, enter
from cptlab.judging.workers.forked_child import run_forked
from cptlab.judging.workers.messages import write_all

_F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 15, 0x8901, 0x8902  # asm-generic/fcntl.h, asm-generic/sockios.h


def probe(confinement: Confinement, limits: dict[str, Any]) -> dict[str, bool]:
    """Return, for each protection, whether a confined child was refused what it tried."""
    outside = f"{confinement.folder}-probe"  # beside the scratch directory
    with open(outside, "w") as file:
        file.write("x")

    attempts: dict[str, list[Callable[[], Any]]] = {
        "processes": [lambda: os._exit(0) if os.fork() == 0 else None],
        "signals": _ways_to_signal(),
        "network": [lambda: socket.socket()],
        "reading": [lambda: open(outside).close()],
        "writing": [lambda: open(outside, "w").close()],
    }

    def child(fd: int) -> None:
        enter((), fd, limits, 1, confinement)
        refused = {name: all(map(_is_refused, ways)) for name, ways in attempts.items()}
        write_all(REPORT, json.dumps(refused).encode())

    ending = run_forked(child, cpu_seconds=5, wall_seconds=60, max_bytes=1 << 12)
    os.unlink(outside)
    try:
        return json.loads(ending.data)
    except ValueError:
        return dict.fromkeys(attempts, False)


def _is_refused(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _ways_to_signal() -> list[Callable[[], Any]]:
    """Return the ways to signal this process, the children's parent: directly, or as owner of a descriptor."""
    pid = os.getpid()

    def own(command: int) -> None:
        with socket.socketpair()[0] as one:
            fcntl.ioctl(one, command, struct.pack("i", pid))

    def own_by_fcntl(command: int, owner: Any) -> None:
        with socket.socketpair()[0] as one:
            fcntl.fcntl(one, command, owner)

    return [
        lambda: os.kill(pid, 0),
        lambda: os.killpg(os.getpgid(pid), 0),
        lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0),
        lambda: own_by_fcntl(fcntl.F_SETOWN, pid),
        lambda: own_by_fcntl(_F_SETOWN_EX, struct.pack("ii", 1, pid)),
        lambda: own(_FIOSETOWN),
        lambda: own(_SIOCSPGRP),
    ]
