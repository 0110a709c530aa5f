"""The processes of a linter server: stems, which share the cost of parsing imported modules, and a child for every file.

Parsing a module such as `typing` costs ten times what a program does, and it changes trees that are already there (it
adds attributes to those of builtins). So trees are shared only among files that open with the same imports. For each such
opening there is a stem: a fork of the server that has parsed those modules in their order, as the command does when it
comes to those imports. Its children check the files, and each child parses whatever else its file imports.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import select
import signal
import sys
from dataclasses import dataclass
from typing import Any

from astroid import MANAGER

from cptlab.judging.lint.stopped_linter import StoppedLinter
from cptlab.judging.workers.fork_server import serve
from cptlab.judging.workers.forked_child import run_forked
from cptlab.judging.workers.libc import PR_SET_PDEATHSIG, libc
from cptlab.judging.workers.messages import HangUp, read_message, write_all, write_message

COSTLY = frozenset(  # 20 to 180 ms, where a short program takes 10
    "collections collections.abc contextlib dataclasses datetime decimal enum fractions functools os re statistics typing"
    .split()
)  # fmt: skip
CHEAP = frozenset("abc bisect copy hashlib heapq itertools json math operator random string sys time types".split())
MAX_STEMS = 16
_IMPORT = re.compile(r"from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+(.+)")
_COMMAND_DEPTH = 4  # frames down to PyLinter.check in the `pylint` command: script, run_pylint, Run.__init__, check


@dataclass(frozen=True)
class Stem:
    """A process that checks files and has parsed some modules: its id, and our ends of its pipes."""

    pid: int
    requests: int
    answers: int


def opening(source: str) -> tuple[str, ...]:
    """Return the modules that a program imports before any other statement, up to the last of COSTLY, in order."""
    names: list[str] = []
    for line in source.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _IMPORT.match(line)
        if found is None:
            break
        imported = [found[1]] if found[1] else [part.strip().split(" ")[0] for part in found[2].split(",")]
        if not COSTLY.union(CHEAP).issuperset(imported):
            break
        names += imported
    while names and names[-1] not in COSTLY:
        names.pop()
    return tuple(dict.fromkeys(names))


def serve_files(linter: StoppedLinter, cpu_seconds: float, memory_mb: int) -> None:
    """Serve requests {source} on descriptors 0 and 1. A file may take `cpu_seconds` and `memory_mb` of address space."""
    stems: dict[tuple[str, ...], Stem] = {}  # the one used last is last

    def check(_: Any) -> dict[str, Any]:  # in a stem
        ending = run_forked(
            lambda fd: _lint(linter, fd, memory_mb << 20),
            cpu_seconds=cpu_seconds,
            wall_seconds=10 * cpu_seconds,
            max_bytes=1 << 24,
        )
        if ending.cause == "exit" and ending.code == 0:
            return json.loads(ending.data)
        return {"failed": ending.cause if ending.cause in ("cpu", "sleep", "wall") else "crashed"}

    def grow(modules: tuple[str, ...]) -> Stem:
        here, there = os.pipe(), os.pipe()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() == server:
                    os.dup2(here[0], 0)
                    os.dup2(there[1], 1)
                    others = [fd for stem in stems.values() for fd in (stem.requests, stem.answers)]
                    for fd in (*here, *there, *others):
                        os.close(fd)
                    for name in modules:
                        MANAGER.ast_from_module_name(name)
                    serve(check, {"ready": True})
            finally:
                os._exit(0)
        os.close(here[0])
        os.close(there[1])
        stem = Stem(pid, here[1], there[0])
        _reply(stem)
        return stem

    def answer(request: dict[str, str]) -> dict[str, Any]:
        with open(linter.path, "wb") as file:
            file.write(request["source"].encode("utf-8", "surrogatepass"))
        modules = opening(request["source"])
        stem = stems.pop(modules, None) or grow(modules)
        stems[modules] = stem
        if len(stems) > MAX_STEMS:
            _end(stems.pop(next(iter(stems))))
        write_message(stem.requests, "check")
        return _reply(stem)

    serve(answer, {"ready": True})
    for stem in stems.values():
        _end(stem)


def _reply(stem: Stem) -> Any:
    """Return the answer of a stem. HangUp if the main process goes away first."""
    poll = select.poll()
    poll.register(0, 0)  # hang-up only
    poll.register(stem.answers, select.POLLIN)
    if 0 in dict(poll.poll()):
        raise HangUp
    reply = read_message(stem.answers)
    if reply is None:
        raise RuntimeError(f"The linter process {stem.pid} was killed.")  # ends this server; the pool starts another
    return reply


def _end(stem: Stem) -> None:
    os.close(stem.requests)
    os.close(stem.answers)
    os.waitpid(stem.pid, 0)


def _lint(linter: StoppedLinter, fd: int, memory: int) -> None:
    gc.disable()  # the child is short-lived
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    silence = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(silence, standard)
    # Where pylint gives up on deep nesting depends on the frames above it; make them count as the command's do.
    sys.setrecursionlimit(sys.getrecursionlimit() + _stack_depth() + 1 - _COMMAND_DEPTH)
    linter.finish()
    messages = [(m.msg_id, m.symbol, m.line) for m in linter.reporter.messages]
    answer = {"statements": linter.stats.statement, "messages": messages, "pragmas": linter.pragmas}
    write_all(fd, json.dumps(answer).encode())


def _stack_depth() -> int:
    frame, depth = sys._getframe(1), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth
