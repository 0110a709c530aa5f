"""What runs in the candidate's process: the program, and what is said of it on descriptor 3."""

from __future__ import annotations

import atexit
import io
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from cptlab.judging.execution import mock_patches as mirror
from cptlab.judging.execution.rpc import FUNCTIONS, Borrowed, Channel, Lost
from cptlab.judging.execution.wire import encode
from cptlab.judging.sandbox.confinement import FILE, REPORT
from cptlab.judging.workers.fork_server import write_all

_dumps, _loads = json.dumps, json.loads  # a program may replace the module's


def _say(*words: Any) -> None:
    write_all(REPORT, _dumps(words).encode() + b"\n")


def _module(source: str, prelude: str = "") -> types.ModuleType | None:
    """The program as a module, loaded after what the benchmark puts before it; None after it was reported why not."""
    code = _compiled(source)
    module = sys.modules["program"] = types.ModuleType("program")
    module.__file__ = FILE
    if prelude:
        exec(prelude, module.__dict__)
    return module if _guarded(lambda: exec(code, module.__dict__)) else None


def run_calls(prelude: str, source: str, entry_point: str, inputs: list[str]) -> None:
    """Reports ["loaded"], then for each input ["value", encoded] or a failure; a failure to load ends it."""
    module = _module(source, prelude)
    if module is None:
        return
    function = module.__dict__.get(entry_point)
    if function is None and isinstance(module.__dict__.get("Solution"), type):
        made: list[Any] = []
        if not _guarded(lambda: made.append(getattr(module.Solution(), entry_point, None))):
            return
        function = made[0]
    if not callable(function):
        _say("raised", f"there is no function {entry_point}")
        return
    _say("loaded")
    for text in inputs:
        arguments = _loads(text)
        result: list[str] = []
        if _guarded(lambda: result.append(_dumps(encode(function(*arguments))))):  # noqa: B023
            write_all(REPORT, b'["value", ' + result[0].encode() + b"]\n")


def run_checked(source: str, names: list[str], mirrored: bool) -> None:
    """Says ["loaded", what it has of `names`] or why not to the examiner, then does what it asks for as long as it asks."""
    module = _module(source)
    if module is None:
        return
    channel = Channel(REPORT, Borrowed, FUNCTIONS | (mirror.functions(module) if mirrored else {}), 1 << 40)
    channel.send(["loaded", {name: channel.pack(module.__dict__[name]) for name in names if name in module.__dict__}])
    if mirrored:
        sys.stdout = _Output(channel)
    try:
        while True:
            message = channel.receive()
            if message[0] == "calls":  # asked for ahead of the tests that use them
                for arguments in message[1]:
                    channel.send(channel.answer(["call", arguments, {}]))
            else:
                channel.send(channel.answer(message))
    except Lost:
        pass


class _Output(io.TextIOBase):
    """What the program prints goes to the examiner's stdout, where a test may catch it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.channel.ask("print", text)
        return len(text)


def run_script(prelude: str, source: str) -> None:
    """Reports ["ended"] or a failure."""
    code = _compiled(source)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = FILE
    exec(prelude, module.__dict__)

    def run() -> None:
        try:
            exec(code, module.__dict__)
        except SystemExit:
            pass  # an ordinary end; its status is not compared
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        if not sys.stdout.closed:
            sys.stdout.flush()

    if _guarded(run):
        _say("ended")


def _compiled(source: str) -> types.CodeType:
    try:
        return compile(source, FILE, "exec", dont_inherit=True)
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
    os.write(REPORT, b'["memory"]\n')
    return False


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:  # a hostile __str__
        return "an exception that cannot be shown"
