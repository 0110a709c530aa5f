"""Run a program in the candidate's process and report on it on descriptor 3."""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

from cptlab.judging.execution import mock_patches
from cptlab.judging.execution.proxies import ExaminerObject
from cptlab.judging.execution.rpc import OPERATIONS, Connection, ConnectionLost
from cptlab.judging.execution.wire import encode
from cptlab.judging.sandbox.confinement import PROGRAM_FILE, REPORT
from cptlab.judging.workers.messages import write_all

_dumps, _loads = json.dumps, json.loads  # a program may replace the module's


def _report(*words: Any) -> None:
    write_all(REPORT, _dumps(words).encode() + b"\n")


def _load(source: str, prelude: str = "") -> types.ModuleType | None:
    """Load the program as a module, after what the benchmark puts before it. On failure report why and return None."""
    code = _compiled(source)
    module = _module("program", source)
    if prelude:
        exec(prelude, module.__dict__)
    return module if _guarded(lambda: exec(code, module.__dict__)) else None


def run_calls(prelude: str, source: str, entry_point: str, inputs: list[str]) -> None:
    """Report ["loaded"], then for each input ["value", encoded] or a failure. A failure to load ends it."""
    module = _load(source, prelude)
    if module is None:
        return
    function = module.__dict__.get(entry_point)
    if function is None and isinstance(module.__dict__.get("Solution"), type):
        made: list[Any] = []
        if not _guarded(lambda: made.append(getattr(module.Solution(), entry_point, None))):
            return
        function = made[0]
    if not callable(function):
        _report("raised", f"there is no function {entry_point}")
        return
    _report("loaded")
    for text in inputs:
        arguments = _loads(text)
        result: list[str] = []
        if _guarded(lambda: result.append(_dumps(encode(function(*arguments))))):  # noqa: B023
            write_all(REPORT, b'["value", ' + result[0].encode() + b"]\n")


def run_checked(source: str, names: list[str], with_patches: bool) -> None:
    """Send the examiner ["loaded", those of `names` that are there] or a failure, then handle its requests to the end."""
    module = _load(source)
    if module is None:
        return
    operations = OPERATIONS | (mock_patches.operations(module) if with_patches else {})
    connection = Connection(REPORT, ExaminerObject, operations, 1 << 40)
    found = {name: connection.pack(module.__dict__[name]) for name in names if name in module.__dict__}
    connection.send(["loaded", found])
    if with_patches:
        sys.stdout = _Output(connection)
    try:
        while True:
            message = connection.receive()
            if message[0] == "calls":  # prefetched, ahead of the tests that use them
                for arguments in message[1]:
                    connection.send(connection.handle(["call", arguments, {}]))
            else:
                connection.send(connection.handle(message))
    except ConnectionLost:
        pass


class _Output(io.TextIOBase):
    """Send what the program prints to the examiner's stdout, where a test may catch it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.connection.request("print", text)
        return len(text)


def run_script(prelude: str, source: str) -> None:
    """Report ["ended"] or a failure."""
    code = _compiled(source)
    modules = [_module("__main__", source)]
    sys.path.insert(0, os.getcwd())  # as `python program.py` has it
    exec(prelude, modules[0].__dict__)

    def run() -> None:
        try:
            exec(code, modules[0].__dict__)
        except SystemExit:
            pass  # an ordinary end; its status is not compared
        _end(modules)

    if _guarded(run):
        _report("ended")


def _end(modules: list[types.ModuleType]) -> None:
    """Do what an interpreter does at its end and programs can see: what is left of the script may still print.

    `modules` holds the script's module, and is the only reference to it outside of the script.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    _flush(sys.stdout)
    sys.modules.pop("__main__", None)
    left = weakref.ref(modules.pop())
    gc.collect()
    if (module := left()) is not None:  # kept from elsewhere: its names go one by one
        names = [name for name in module.__dict__ if type(name) is str and name != "__builtins__"]
        for name in sorted(names, key=lambda name: name[:1] != "_" or name[1:2] == "_"):
            module.__dict__[name] = None
    _flush(sys.stdout)
    _flush(sys.__stdout__)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except OSError:
        raise
    except Exception:  # closed, detached, or anything else that a program puts there
        pass


def _module(name: str, source: str) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    module.__file__ = PROGRAM_FILE
    module.__loader__ = _Loader(source)  # type: ignore[assignment] (asked for the source alone)
    sys.setrecursionlimit(sys.getrecursionlimit() + _depth() + 2)
    return module


class _Loader:
    """Where `inspect` and tracebacks find the source of a program."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, _: str) -> str:
        return self.source


def _depth() -> int:
    """Return how many frames lie below a program's here, and do not where it is started by itself."""
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def _compiled(source: str) -> types.CodeType:
    try:
        return compile(source, PROGRAM_FILE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _report("not_parsed", _describe(error))
        os._exit(0)


def _guarded(action: Callable[[], Any]) -> bool:
    """Run `action` and return whether it came to its end. Report a failure."""
    try:
        action()
        return True
    except MemoryError:
        pass  # reported below, when the frames that hold the memory are gone
    except SystemExit as error:
        _report("exited", _describe(error))
        return False
    except BaseException as error:  # whatever the program raises is its own failure
        _report("raised", _describe(error))
        return False
    os.write(REPORT, b'["memory"]\n')
    return False


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:  # a hostile __str__
        return "an exception that cannot be shown"
