"""What holds a program in: the best that the system offers, tried once by each judging server."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import random
import resource
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any

from cptlab.judging.sandbox import namespaces as jail
from cptlab.judging.sandbox import seccomp
from cptlab.judging.workers.fork_server import run_forked, tidy, write_all

FILE = "program.py"  # the name in tracebacks; there is no such file
REPORT = 3  # the descriptor of the pipe to the server, or of the socket to the examiner


class Confinement:
    """What this server can do, up to `strongest`: one of the levels that sandbox.py explains."""

    def __init__(self, scratch: str, strongest: str, limits: dict[str, Any]) -> None:
        self.root: str | None = None
        self.rules: int | None = None
        self.folder = os.path.join(scratch, str(os.getpid()))
        os.mkdir(self.folder, 0o700)
        self.filtered = strongest != "limits" and seccomp.works()
        self.level = "seccomp" if self.filtered else "limits"
        if self.filtered and strongest == "namespaces":

            def afterwards() -> None:
                with contextlib.suppress(OSError):  # the main process was quicker
                    os.rmdir(self.folder)
                tidy(scratch)

            if jail.enter(self.folder, limits["scratch_mb"], limits["scratch_files"], afterwards):
                self.level, self.root = "namespaces", self.folder
        if self.filtered and self.root is None and strongest in ("namespaces", "landlock"):
            self.rules = jail.landlock_rules(self.folder)
            self.level = "landlock" if self.rules is not None else self.level
        if self.filtered and not (seccomp.no_new_privileges() and seccomp.confine_server()):
            raise RuntimeError("the system-call filter worked for a child and not for the server")
        self.scratch = jail.SCRATCH if self.root is not None else self.folder
        self.user_tasks = 0 if self.filtered else _tasks_of_user()
        self.filter = seccomp.for_child() if self.filtered else None

    def begin(self) -> None:
        """The part of `enter` that needs a descriptor of the server's."""
        if not seccomp.no_new_privileges() or (self.rules is not None and not jail.landlock(self.rules)):
            os._exit(71)

    def enter(self) -> None:
        """Hold this process in, for good. Its working directory becomes the scratch directory."""
        if self.root is not None:
            os.chroot(self.root)
        os.chdir(self.scratch)
        seccomp.drop_capabilities(all_of_them=self.root is not None)
        if self.filter is not None and not seccomp.confine(self.filter):
            os._exit(71)

    def clean(self) -> None:
        """Empty the scratch directory."""
        _empty((self.root or "") + self.scratch)


def prepare(confinement: Confinement, limits: dict[str, Any]) -> None:
    """What all candidates find, made once in the server: every object that a child makes or changes costs it memory pages.

    The server itself reads and writes its descriptors directly, and draws no random number.
    """
    atexit._clear()
    random.seed(0)
    os.environ["TMPDIR"] = os.environ["HOME"] = confinement.scratch
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None
    _bound(resource.RLIMIT_FSIZE, limits["output_mb"] << 20)
    _bound(resource.RLIMIT_NOFILE, 64)
    _bound(resource.RLIMIT_CORE, 0)
    sys.argv = [FILE]
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(open(2, "wb", closefd=False), encoding="utf-8", write_through=True)
    sys.stdin.mode, sys.stdout.mode, sys.stderr.mode = "r", "w", "w"


def enter(standard: tuple[int, ...], fd: int, limits: dict[str, Any], steps: int, confinement: Confinement) -> None:
    """Make this process the candidate's (or the examiner's): descriptors 0 to 3, scratch directory, limits."""
    confinement.begin()
    silence = os.open(os.devnull, os.O_RDWR)
    channel = os.dup(fd)  # out of the way of 0 to 3
    for target in (0, 1, 2):
        os.dup2(standard[target] if target < len(standard) else silence, target)
    os.dup2(channel, REPORT, inheritable=False)
    os.closerange(REPORT + 1, 1 << 20)
    cpu = int(limits["cpu_seconds"] * (steps + 1)) + 2  # the server's clock decides; this is its backstop
    _bound(resource.RLIMIT_CPU, cpu)
    _bound(resource.RLIMIT_AS, limits["memory_mb"] << 20)
    if confinement.user_tasks:
        _bound(resource.RLIMIT_NPROC, confinement.user_tasks + limits["processes"])
    confinement.enter()


def _bound(kind: int, bound: int) -> None:
    hard = resource.getrlimit(kind)[1]
    bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(kind, (bound, bound))


def probe(confinement: Confinement, limits: dict[str, Any]) -> dict[str, bool]:
    """What a confined child is indeed refused."""
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
            except (OSError, PermissionError):
                refused[name] = True
        write_all(REPORT, json.dumps(refused).encode())

    ending = run_forked(child, cpu_seconds=5, wall_seconds=60, max_bytes=1 << 12)
    os.unlink(outside)
    try:
        return json.loads(ending.data)
    except ValueError:
        return dict.fromkeys(attempts, False)


def _tasks_of_user() -> int:
    """Processes and threads of this user now: RLIMIT_NPROC counts them all."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass
    return count + 1


def _empty(folder: str) -> None:
    """Remove all in `folder`, whatever its modes and however deep it is: the content of a folder moves up, then it goes."""
    os.chmod(folder, stat.S_IRWXU)
    names = os.listdir(folder)
    if not names:
        return
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    moved, prefix = 0, os.urandom(8).hex()  # which no program could have guessed
    while names:
        for name in names:
            try:
                os.unlink(name, dir_fd=top)
                continue
            except (IsADirectoryError, PermissionError):
                os.chmod(name, stat.S_IRWXU, dir_fd=top)  # no link, that would be gone
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            for entry in os.scandir(inner):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.name, stat.S_IRWXU, dir_fd=inner)  # to move a folder changes it
                    moved += 1
                    os.rename(entry.name, f"{prefix}-{moved}", src_dir_fd=inner, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=inner)
            os.close(inner)
            os.rmdir(name, dir_fd=top)
        names = os.listdir(top)
    os.close(top)
