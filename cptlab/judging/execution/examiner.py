"""The trusted side of a 'check' task: runs the benchmark's own tests, in a process that the candidate cannot reach.

Expected values and comparison are here; of the program it sees the plain values that come back (channel.py). What it
reports: one line for the loading, then one for each test. It is forked from the judging server before that holds anything
secret, and serves many programs, each in a fresh namespace; tests that use unittest, which may patch and leave behind what
they like, get an examiner of their own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import marshal
import os
import random
import socket
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from cptlab.judging.execution import mock_patches as mirror
from cptlab.judging.execution.rpc import FUNCTIONS, Channel, Lost, Remote
from cptlab.judging.workers.fork_server import write_all


def serve(control: socket.socket) -> None:
    """Do what comes over `control`: the name of a module to import ahead, which is answered; or a limit in bytes, with the
    descriptors of tests, channel and report."""
    while True:
        text, fds, _, _ = socket.recv_fds(control, 64, 3)
        if not text:
            return
        if not fds:
            with contextlib.suppress(ImportError):
                importlib.import_module(text.decode())
            control.send(text)
            continue
        tests, channel, report = fds
        with open(tests, "rb") as file:
            content = file.read()
        random.seed(0)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
        try:
            examine(channel, report, content, int(text))
        finally:
            os.close(channel)
            os.close(report)


def examine(channel_fd: int, report_fd: int, tests: bytes, max_bytes: int) -> None:
    """Load, then run every test: lines ["loaded"] or why not, then ["passed"] or why not, up to the program's end.

    The first `always` (public) tests are all run, the others up to the first test that is not passed."""

    said = bytearray()

    def say(*words: Any) -> None:
        said.extend(json.dumps(words).encode() + b"\n")

    def flush() -> None:
        write_all(report_fd, said)
        said.clear()

    try:
        _examine(channel_fd, tests, max_bytes, say, flush)
    finally:
        flush()


def _examine(
    channel_fd: int, tests: bytes, max_bytes: int, say: Callable[..., None], flush: Callable[[], None]
) -> None:
    """`flush` is called when the program lets wait for itself, for its time is counted from the last line reported."""
    entry_point, of_program, mirrored, ahead, setup, units, always = marshal.loads(tests)
    channel = Channel(channel_fd, Remote, _FOR_THE_PROGRAM, max_bytes, waiting=flush)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    namespace = module.__dict__
    failed: list[Any] | None = None  # why no test can be run
    try:
        message = channel.receive()
        if not (isinstance(message, list) and message[:1] == ["loaded"] and len(message) == 2):
            say(*_load_failure(message))
            return
        wanted = {*of_program, entry_point}
        found = {name: channel.unpack(value) for name, value in dict(message[1]).items() if name in wanted}
        if entry_point is not None:
            if not isinstance(found.get(entry_point), Remote):
                say("raised", f"there is no function {entry_point}")
                return
            found["candidate"] = found[entry_point]
            if entry_point not in of_program:
                del found[entry_point]
        found["run_case"] = lambda case, method: _run_case(namespace[case], method)
        say("loaded")
        if mirrored:
            mirror.install(channel)
        namespace.update(found)
        exec(setup, namespace)
        namespace.update(found)
        if mirrored:  # written to be one module with the program, which may use what they import
            modules = {name: value.__name__ for name, value in namespace.items() if isinstance(value, types.ModuleType)}
            channel.ask("imported", modules)
        if ahead:
            channel.ask_ahead([[channel.pack(found[name]), *json.loads(arguments)] for name, arguments in ahead])
    except BaseException as error:
        failed = _outcome(error)
    passed = True
    for number, unit in enumerate(units):
        ended = number >= always and not passed  # as the benchmark's own function ends at an assertion that fails
        outcome = failed or (["not_run"] if ended else _run(unit, namespace, channel, number))
        passed = passed and outcome[0] == "passed"
        if outcome[0] == "lost":
            return
        say(*outcome)
        if outcome[0] == "unreadable":
            failed = outcome


def _run(unit: types.CodeType, namespace: dict[str, Any], channel: Channel, number: int) -> list[Any]:
    try:
        channel.turn_to(number)
        exec(unit, namespace)
        return ["passed"]
    except BaseException as error:  # also what the program raised
        return _outcome(error)


def _run_case(case: Any, method: str) -> None:
    import unittest

    case.setUpClass()
    try:
        case(method).debug()
    except unittest.SkipTest as error:
        if hasattr(error, "candidate"):  # it is the test that may skip
            raise
    finally:
        case.tearDownClass()
        case.doClassCleanups()


def _outcome(error: BaseException) -> list[Any]:
    said = getattr(error, "candidate", None)
    if isinstance(error, Lost):
        return ["unreadable", str(error)] if error.args else ["lost"]
    if isinstance(error, MemoryError):
        return ["memory"]
    if isinstance(said, str):
        return ["exited" if isinstance(error, SystemExit) else "raised", said]
    try:
        text = str(error)
    except BaseException:
        text = ""
    kind = type(error).__name__
    return ["failed", text if isinstance(error, AssertionError) else f"the test raised {kind}: {text}"]


def _load_failure(message: Any) -> Sequence[Any]:
    """What the candidate said instead of ["loaded"], if it is of the right form."""
    if isinstance(message, list) and message and message[0] in ("raised", "exited", "not_parsed", "memory"):
        return [message[0], *(str(word)[:300] for word in message[1:2])]
    return ["unreadable"]


def _attribute(target: Any, name: str, *value: Any) -> Any:
    """getattr or setattr on what a test handed over, which must not lead to the test itself or change what a mock says."""
    if name == "__name__" and not value:
        return target.__name__
    mock = sys.modules.get("unittest.mock")
    is_mock = mock is not None and isinstance(target, mock.NonCallableMock)
    if name.startswith("_") or isinstance(target, (types.FunctionType, types.MethodType, types.ModuleType, type)):
        raise AttributeError(f"{name} is not for the program")
    if is_mock and (hasattr(mock.Mock, name) or name.startswith("assert") or isinstance((*value, None)[0], Remote)):
        raise AttributeError(f"{name} of a mock is not for the program")
    return setattr(target, name, *value) if value else getattr(target, name)


_FOR_THE_PROGRAM = {name: FUNCTIONS[name] for name in (
    "call len bool iter next str int float getitem setitem delitem contains enter exit".split()
)} | {"getattr": _attribute, "setattr": _attribute, "print": lambda text: sys.stdout.write(text)}  # fmt: skip
