"""A small interpreter that forks for every judged program. Run by sandbox.py in a fresh interpreter.

Nothing here is secret from the program: the expected values never enter this process or its children.
"""

from __future__ import annotations

import atexit
import importlib
import io
import itertools
import json
import os
import random
import resource
import shutil
import stat
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from typing import Any

from cptlab.judging import seccomp
from cptlab.judging.forkserver import Ending, run_forked, serve, write_all

# What programs import most, so that the children need not.
_PRELOADED = (
    "bisect collections copy dataclasses datetime decimal enum fractions functools heapq math operator re statistics"
    " string time typing"
).split()
_FILE = "program.py"  # the name in tracebacks; there is no such file
_REPORT = 3  # the descriptor of the pipe to the server
_MAX_DEPTH, _MAX_ITEMS = 100, 1_000_000
_dumps, _loads = json.dumps, json.loads  # a program may replace the module's


def main(arguments: dict[str, Any]) -> None:
    """Serve requests {source, entry_point, inputs, limits}; answers {runs: [{lines, cause, code, stdout}]}.

    With an entry point there is one run for all inputs (JSON texts of argument lists), else one for each (stdin texts),
    up to the first that had to be ended. `lines` are what the child reported, see `_run_calls` and `_run_script`.
    """
    for name in _PRELOADED:
        importlib.import_module(name)
    scratch = os.path.join(arguments["scratch"], str(os.getpid()))
    os.mkdir(scratch)
    confined = _probe()
    user_tasks = 0 if confined else _tasks_of_user()
    numbers = itertools.count()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["entry_point"] is not None:
            groups = [request["inputs"]]
        else:
            groups = [[text] for text in request["inputs"]]
        runs = []
        for group in groups:
            runs.append(_run(request, group, os.path.join(scratch, str(next(numbers))), confined, user_tasks))
            if runs[-1]["cause"] != "exit":
                break
        return {"runs": runs}

    serve(answer, {"confined": confined})
    shutil.rmtree(scratch, ignore_errors=True)


def _run(request: dict[str, Any], inputs: list[str], folder: str, confined: bool, user_tasks: int) -> dict[str, Any]:
    limits = request["limits"]
    is_script = request["entry_point"] is None
    os.mkdir(folder)
    with tempfile.TemporaryFile(dir=os.path.dirname(folder)) as given, tempfile.TemporaryFile() as printed:
        if is_script:
            given.write(inputs[0].encode("utf-8", "surrogatepass"))
            given.seek(0)

        def child(fd: int) -> None:
            standard = (given.fileno(), printed.fileno()) if is_script else (None, None)
            _enter(folder, standard, fd, limits, len(inputs), user_tasks)
            if os.geteuid() == 0:
                seccomp.drop_capabilities()
            if confined and not seccomp.confine():
                os._exit(71)
            if is_script:
                _run_script(request["source"])
            else:
                _run_calls(request["source"], request["entry_point"], inputs)

        ending: Ending = run_forked(
            child,
            cpu_seconds=limits["cpu_seconds"],
            wall_seconds=limits["wall_seconds"],
            max_bytes=limits["output_mb"] << 20,
            steps=len(inputs) + 1,
        )
        printed.seek(0)
        stdout = printed.read(limits["output_mb"] << 20).decode("utf-8", "replace")
    _remove(folder)
    wanted = len(inputs) + 1
    lines = ending.data.decode("utf-8", "replace").split("\n", wanted)[:-1]
    return {"lines": lines, "cause": ending.cause, "code": ending.code, "stdout": stdout}


def _enter(
    folder: str, standard: tuple[int | None, int | None], fd: int, limits: dict[str, Any], tests: int, user_tasks: int
) -> None:
    """Make this process the candidate's: descriptors 0 to 3, scratch folder, limits."""
    silence = os.open(os.devnull, os.O_RDWR)
    report = os.dup(fd)  # out of the way of 0 to 3
    for target, source in enumerate((*standard, silence)):
        os.dup2(silence if source is None else source, target)
    os.dup2(report, _REPORT, inheritable=False)
    os.closerange(_REPORT + 1, 1 << 20)
    os.chdir(folder)
    os.environ["TMPDIR"] = os.environ["HOME"] = folder
    tempfile.tempdir = None
    atexit._clear()
    sys.argv = [_FILE]
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(open(2, "wb", closefd=False), encoding="utf-8", write_through=True)
    random.seed(0)
    memory, size = limits["memory_mb"] << 20, limits["output_mb"] << 20
    cpu = int(limits["cpu_seconds"] * (tests + 1)) + 2  # the server's clock decides; this is its backstop
    bounds = [
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ]
    if user_tasks:
        bounds.append((resource.RLIMIT_NPROC, user_tasks + limits["processes"]))
    for kind, bound in bounds:
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def _say(*words: Any) -> None:
    write_all(_REPORT, _dumps(words).encode() + b"\n")


def _run_calls(source: str, entry_point: str, inputs: list[str]) -> None:
    """Reports ["loaded"], then for each input ["value", encoded] or a failure; a failure to load ends it."""
    code = _compiled(source)
    module = types.ModuleType("program")
    module.__file__ = _FILE
    sys.modules["program"] = module
    if not _guarded(lambda: exec(code, module.__dict__)):
        return
    function = module.__dict__.get(entry_point)
    if not callable(function):
        _say("raised", f"there is no function {entry_point}")
        return
    _say("loaded")
    for text in inputs:
        arguments = _loads(text)
        result: list[str] = []
        if _guarded(lambda: result.append(_dumps(encode(function(*arguments))))):  # noqa: B023
            write_all(_REPORT, b'["value", ' + result[0].encode() + b"]\n")


def _run_script(source: str) -> None:
    """Reports ["ended"] or a failure."""
    code = _compiled(source)
    module = types.ModuleType("__main__")
    module.__file__ = _FILE
    sys.modules["__main__"] = module

    def run() -> None:
        try:
            exec(code, module.__dict__)
        except SystemExit:
            pass  # an ordinary end; its status is not compared
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()

    if _guarded(run):
        _say("ended")


def _compiled(source: str) -> types.CodeType:
    try:
        return compile(source, _FILE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _say("not_parsed", _describe(error))
        os._exit(0)


def _guarded(action: Callable[[], Any]) -> bool:
    """Whether `action` came to its end; if not, that is reported."""
    try:
        action()
        return True
    except MemoryError:
        pass  # reported below, when the frames that hold the memory are gone
    except SystemExit as error:
        _say("exited", _describe(error))
        return False
    except BaseException as error:  # whatever the program raises is its own failure
        _say("raised", _describe(error))
        return False
    os.write(_REPORT, b'["memory"]\n')
    return False


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:  # a hostile __str__
        return "an exception that cannot be shown"


def encode(value: Any, depth: int = 0, budget: list[int] | None = None) -> Any:
    """Plain data as JSON that keeps the types apart; anything else as {"other": type name}.

    None, bool, int, float, str and list stand for themselves (ints beyond 63 bits as {"int": hex}); tuples, dicts, sets
    and the rest are one-key objects. Subclasses count as their plain base. ValueError where the value is deeper than
    100 or has more than a million items.
    """
    budget = budget if budget is not None else [_MAX_ITEMS]
    budget[0] -= 1
    if depth > _MAX_DEPTH or budget[0] < 0:
        raise ValueError("the returned value is too deep, too big or cyclic")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if issubclass(kind, int):
        number = int.__add__(value, 0)
        return number if -(1 << 63) <= number < 1 << 63 else {"int": hex(number)}
    if issubclass(kind, float):
        return float.__add__(value, 0.0)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, list):
        return [encode(item, depth + 1, budget) for item in list.__iter__(value)]
    if issubclass(kind, tuple):
        return {"tuple": [encode(item, depth + 1, budget) for item in tuple.__iter__(value)]}
    if issubclass(kind, dict):
        pairs = [(encode(key, depth + 1, budget), encode(item, depth + 1, budget)) for key, item in dict.items(value)]
        return {"dict": pairs}
    if issubclass(kind, (set, frozenset)):
        return {"set": [encode(item, depth + 1, budget) for item in value]}
    if issubclass(kind, bytes):
        return {"bytes": bytes.hex(value)}
    if issubclass(kind, complex):
        return {"complex": [value.real, value.imag]}
    return {"other": kind.__name__}


def _probe() -> bool:
    """Whether a confined child is indeed refused a process of its own."""

    def child(_: int) -> None:
        if not seccomp.confine():
            os._exit(1)
        try:
            if os.fork() == 0:
                os._exit(0)
        except PermissionError:
            os._exit(0)
        os._exit(2)

    ending = run_forked(child, cpu_seconds=5, wall_seconds=30, max_bytes=1 << 10)
    return ending.cause == "exit" and ending.code == 0


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


def _remove(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        for root, folders, _ in os.walk(folder):
            for name in folders:
                if not os.path.islink(path := os.path.join(root, name)):
                    os.chmod(path, stat.S_IRWXU)
        shutil.rmtree(folder, ignore_errors=True)
