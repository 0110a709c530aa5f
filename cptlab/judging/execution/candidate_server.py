"""The server process of the executor: a small, fresh interpreter that forks a confined child for every program.

Nothing here is secret from the program: the expected values never enter this process or the program's. The tests of a
'check' task go from a file, which the program cannot see, straight into the examiner's process.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
from typing import Any

from cptlab.judging.execution.candidate import run_calls, run_checked, run_script
from cptlab.judging.execution.examiner import serve as serve_examiner
from cptlab.judging.sandbox.confinement import REPORT, Confinement, enter, prepare
from cptlab.judging.sandbox.probe import probe
from cptlab.judging.workers.fork_server import serve
from cptlab.judging.workers.forked_child import Ending, Reporter, run_forked
from cptlab.judging.workers.messages import HangUp, write_all

# What programs import most, so that the children need not.
_PRELOADED = "bisect collections copy functools heapq itertools math operator random re string time typing".split()


def main(arguments: dict[str, Any]) -> None:
    """Serve requests {source, entry_point, inputs, limits, tests, ...}; answer {results: [{lines, cause, code, stdout}]}.

    With `tests` (a file) there is one result, reported by the examiner. With an entry point there is one result for all
    inputs (JSON texts of argument lists), else one for each (stdin texts), up to the first that had to be killed; `lines`
    are then what the child reported, see `run_calls` and `run_script`.
    """
    # Examiner and candidate take turns, which costs half as much on one CPU. Servers beside each other take different ones.
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[(os.getppid() + arguments["worker"]) % len(cpus)]})
    for name in _PRELOADED:
        importlib.import_module(name)
    confinement = Confinement(arguments["scratch"], arguments["strongest"], arguments["limits"])
    prepare(confinement)

    examiner: _ExaminerProcess | None = None

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal examiner
        if request["tests"] is not None:
            if examiner is not None and request["own_examiner"]:
                examiner = examiner.end()
            examiner = examiner or _ExaminerProcess(confinement, request["limits"])
            for module in request["imports"]:
                examiner.prepare(module)
            result = _run_tests(request, examiner, confinement)
            alive = examiner.alive()
            if not alive:
                result["cause"] = "lost"
            if not alive or request["own_examiner"] or result["cause"] not in ("exit", "signal"):
                examiner = examiner.end()
            return {"results": [result]}
        if request["entry_point"] is not None:
            groups = [request["inputs"]]
        else:
            groups = [[text] for text in request["inputs"]]
        results = []
        for group in groups:
            results.append(_run(request, group, confinement, [examiner.pid] if examiner else []))
            if results[-1]["cause"] != "exit":
                break
        return {"results": results}

    with contextlib.suppress(HangUp):  # the main process may be stopped while this one still tries its protections
        protections = probe(confinement, arguments["limits"])
        serve(answer, {"level": confinement.level, "reasons": confinement.reasons, "protections": protections})
    if confinement.root is None:
        os.rmdir(confinement.folder)


class _ExaminerProcess:
    """An examiner in a process of its own, confined as a program is; it takes programs one after the other."""

    def __init__(self, confinement: Confinement, limits: dict[str, Any]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                fd = theirs.detach()
                enter((), fd, {**limits, "cpu_seconds": 1e8}, 1, confinement)
                serve_examiner(socket.socket(fileno=REPORT))
            finally:
                os._exit(70)
        theirs.close()
        self.imported: set[str] = set()

    def prepare(self, module: str) -> None:
        """Let the examiner import a module before the time of the tests begins."""
        if module not in self.imported:
            self.imported.add(module)
            self.control.send(module.encode())
            self.control.recv(64)

    def alive(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG)[0] == 0

    def end(self) -> None:
        """Kill the examiner. Return None, to take its place."""
        self.control.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _run_tests(request: dict[str, Any], examiner: _ExaminerProcess, confinement: Confinement) -> dict[str, Any]:
    limits, wanted = request["limits"], request["test_count"] + 1

    def start(connection: int, report: int) -> None:
        tests = os.open(request["tests"], os.O_RDONLY)
        try:
            answers = str(limits["answers_mb"] << 20).encode()
            socket.send_fds(examiner.control, [answers], [tests, connection, report])
        except OSError:
            pass  # it has died, and its report is at its end
        os.close(tests)

    def child(fd: int) -> None:
        enter((), fd, limits, wanted, confinement)
        run_checked(request["source"], request["names"], request["mock_patches"])

    ending = run_forked(child, **_budget(limits, wanted), reporter=Reporter(examiner.pid, start))
    confinement.clean()
    lines = _lines(ending, wanted)
    return {"lines": lines, "cause": ending.cause, "code": ending.code, "stdout": ""}


def _budget(limits: dict[str, Any], budgets: int) -> dict[str, Any]:
    return {"cpu_seconds": limits["cpu_seconds"], "wall_seconds": limits["wall_seconds"],
            "max_bytes": limits["output_mb"] << 20, "budgets": budgets}  # fmt: skip


def _lines(ending: Ending, wanted: int) -> list[str]:
    return ending.data.decode("utf-8", "replace").split("\n", wanted)[:-1]


def _run(request: dict[str, Any], inputs: list[str], confinement: Confinement, spared: list[int]) -> dict[str, Any]:
    limits, wanted = request["limits"], len(inputs) + 1
    is_script = request["entry_point"] is None
    given = printed = -1
    if is_script:
        given, printed = os.memfd_create("stdin"), os.memfd_create("stdout")
        write_all(given, inputs[0].encode("utf-8", "surrogatepass"))
        os.lseek(given, 0, os.SEEK_SET)

    def child(fd: int) -> None:
        enter((given, printed) if is_script else (), fd, limits, wanted, confinement)
        if is_script:
            run_script(request["prelude"], request["source"])
        else:
            run_calls(request["prelude"], request["source"], request["entry_point"], inputs)

    ending = run_forked(child, **_budget(limits, wanted), spared=spared)
    stdout = ""
    if is_script:
        with open(printed, "rb") as file:
            file.seek(0)
            stdout = file.read(limits["output_mb"] << 20).decode("utf-8", "replace")
        os.close(given)
    confinement.clean()
    return {"lines": _lines(ending, wanted), "cause": ending.cause, "code": ending.code, "stdout": stdout}
