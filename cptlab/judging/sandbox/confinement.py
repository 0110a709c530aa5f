"""Confine a child process by the strongest means of this system, which each judging server tries once."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import random
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

from cptlab.judging.sandbox import landlock, namespaces, seccomp
from cptlab.judging.sandbox.scratch_folder import empty
from cptlab.judging.sandbox.thread_semaphore import replace_semaphores
from cptlab.judging.workers.fork_server import remove_pool_folder

PROGRAM_FILE = "program.py"  # the name in tracebacks; there is no such file
REPORT = 3  # the descriptor of the pipe to the server, or of the socket to the examiner


class Confinement:
    """What confines the children of this server: the strongest level (levels.py) that works here, up to `strongest`.

    `reasons` says why each stronger level does not. `folder` is the server's own folder below `pool_folder`; `scratch` is
    the scratch directory as a child sees it.
    """

    def __init__(self, pool_folder: str, strongest: str, limits: dict[str, Any]) -> None:
        self.root: str | None = None
        self.rules: int | None = None
        self.level, self.reasons = "limits", dict[str, str]()
        self.folder = os.path.join(pool_folder, str(os.getpid()))
        os.mkdir(self.folder, 0o700)
        self.filtered = strongest != "limits" and self._try("seccomp", seccomp.check)
        if self.filtered and strongest == "namespaces":

            def afterwards() -> None:
                with contextlib.suppress(OSError):  # the main process was quicker
                    os.rmdir(self.folder)
                remove_pool_folder(pool_folder)

            def enter_namespaces() -> None:
                namespaces.enter(self.folder, limits["scratch_mb"], limits["scratch_files"], afterwards)
                self.root = self.folder

            self._try("namespaces", enter_namespaces)
        if self.filtered and self.root is None and strongest in ("namespaces", "landlock"):

            def make_rules() -> None:
                self.rules = landlock.make_rules(self.folder)

            self._try("landlock", make_rules)
        if self.filtered and not (seccomp.no_new_privileges() and seccomp.confine_server()):
            raise RuntimeError("The system-call filter worked for a child but not for the server.")
        self.scratch = namespaces.scratch_path() if self.root is not None else self.folder
        self.user_tasks = 0 if self.filtered else _tasks_of_user()
        self.filter = seccomp.for_child() if self.filtered else None

    def _try(self, level: str, step: Callable[[], None]) -> bool:
        """Take the step that leads to `level`. Where the system refuses it, keep the reason and return False."""
        try:
            step()
        except OSError as error:
            self.reasons[level] = str(error)
            return False
        self.level = level
        return True

    def begin(self) -> None:
        """Do the part of `finish` that needs a descriptor of the server's."""
        if not seccomp.no_new_privileges() or (self.rules is not None and not landlock.restrict(self.rules)):
            os._exit(71)

    def finish(self) -> None:
        """Confine this process, for good. Its working directory becomes the scratch directory."""
        if self.root is not None:
            os.chroot(self.root)
        os.chdir(self.scratch)
        seccomp.drop_capabilities(all_of_them=self.root is not None)
        if self.filter is not None and not seccomp.confine(self.filter):
            os._exit(71)

    def clean(self) -> None:
        """Empty the scratch directory, and free what a dead program has kept."""
        empty((self.root or "") + self.scratch)
        if not self.filtered:  # descriptors in flight over themselves are collected when a Unix socket is closed
            for one in socket.socketpair():
                one.close()


def prepare(confinement: Confinement) -> None:
    """Set up, once in the server, what every candidate finds: each object that a child changes costs it memory pages.

    The server itself reads and writes its descriptors directly, and draws no random number.
    """
    atexit._clear()
    random.seed(0)
    os.environ["TMPDIR"] = os.environ["HOME"] = confinement.scratch
    if confinement.level == "landlock":
        replace_semaphores()
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None
    _bound(resource.RLIMIT_NOFILE, 64)
    _bound(resource.RLIMIT_CORE, 0)
    sys.argv = [PROGRAM_FILE]
    for name, mode in (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb")):
        stream: Any = io.TextIOWrapper(_standard(name, mode), "utf-8", newline="\n", write_through=name == "stderr")
        stream.mode = mode[0]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _standard(name: str, mode: str) -> Any:
    """Open a standard descriptor as an interpreter does for sys.stdin, sys.stdout and sys.stderr."""
    binary: Any = open(("stdin", "stdout", "stderr").index(name), mode, closefd=False)
    binary.raw.name = f"<{name}>"
    return binary


def enter(standard: tuple[int, ...], fd: int, limits: dict[str, Any], tests: int, confinement: Confinement) -> None:
    """Turn this process into the candidate's or the examiner's, confined for good.

    Its descriptors 0, 1 and 2 become those of `standard` (/dev/null where there are fewer), and `fd` becomes 3. `tests`:
    how many times its time limit may start anew.
    """
    confinement.begin()
    devnull = os.open(os.devnull, os.O_RDWR)
    report = os.dup(fd)  # out of the way of 0 to 3
    for target in (0, 1, 2):
        os.dup2(standard[target] if target < len(standard) else devnull, target)
    os.dup2(report, REPORT, inheritable=False)
    os.closerange(REPORT + 1, 1 << 20)
    cpu = int(limits["cpu_seconds"] * (tests + 1)) + 2  # the server's clock decides; this is its backstop
    _bound(resource.RLIMIT_CPU, cpu)
    _bound(resource.RLIMIT_AS, limits["memory_mb"] << 20)
    _bound(resource.RLIMIT_FSIZE, limits["output_mb"] << 20)  # not of the server, which writes a script's input
    if confinement.user_tasks:
        _bound(resource.RLIMIT_NPROC, confinement.user_tasks + limits["processes"])
    confinement.finish()


def _bound(kind: int, bound: int) -> None:
    hard = resource.getrlimit(kind)[1]
    bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(kind, (bound, bound))


def _tasks_of_user() -> int:
    """Count the processes and threads of this user now: RLIMIT_NPROC counts them all."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass
    return count + 1
