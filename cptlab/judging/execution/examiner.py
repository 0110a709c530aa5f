"""The trusted side of a 'check' task: run the benchmark's own tests, in a process that the candidate cannot reach.

Expected values and comparison are here; of the program the examiner sees only the values that come back (rpc.py). It
reports one line for the loading, then one for each test. It is forked from the judging server before that holds anything
secret, and serves many programs, each in a fresh namespace. Tests that use unittest, which may patch anything and leave it
so, get an examiner of their own.
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

from cptlab.judging.execution import mock_patches
from cptlab.judging.execution.proxies import OPERATORS, CandidateObject
from cptlab.judging.execution.rpc import OPERATIONS, Connection, ConnectionLost
from cptlab.judging.workers.messages import write_all


def serve(control: socket.socket) -> None:
    """Serve the messages on `control` until it closes.

    A message is the name of a module to import in advance, which is confirmed; or a limit in bytes, with the descriptors of
    tests, connection and report.
    """
    while True:
        text, fds, _, _ = socket.recv_fds(control, 64, 3)
        if not text:
            return
        if not fds:
            with contextlib.suppress(ImportError):
                importlib.import_module(text.decode())
            control.send(text)
            continue
        tests, connection, report = fds
        with open(tests, "rb") as file:
            content = file.read()
        random.seed(0)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
        try:
            examine(connection, report, content, int(text))
        finally:
            os.close(connection)
            os.close(report)


def examine(connection_fd: int, report_fd: int, tests: bytes, max_bytes: int) -> None:
    """Load the program and run its tests (made by verdicts/task_requests.py), up to the program's end.

    Report ["loaded"] or a failure, then for each test ["passed"] or a failure. All public tests are run, hidden ones up to
    the first test that is not passed.
    """
    lines = bytearray()

    def report(*words: Any) -> None:
        lines.extend(json.dumps(words).encode() + b"\n")

    def flush() -> None:
        write_all(report_fd, lines)
        lines.clear()

    try:
        _examine(connection_fd, tests, max_bytes, report, flush)
    finally:
        flush()


def _examine(
    connection_fd: int, tests: bytes, max_bytes: int, report: Callable[..., None], flush: Callable[[], None]
) -> None:
    """Call `flush` when the program keeps the examiner waiting: its time counts from the last line reported."""
    entry_point, names, with_patches, prefetched, setup, units, public = marshal.loads(tests)
    connection = Connection(connection_fd, CandidateObject, _FOR_THE_PROGRAM, max_bytes, on_wait=flush)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    namespace = module.__dict__
    failed: list[Any] | None = None  # why no test can be run
    try:
        message = connection.receive()
        if not (isinstance(message, list) and message[:1] == ["loaded"] and len(message) == 2):
            report(*_load_failure(message))
            return
        wanted = {*names, entry_point}
        found = {name: connection.unpack(value) for name, value in dict(message[1]).items() if name in wanted}
        if entry_point is not None:
            if not isinstance(found.get(entry_point), CandidateObject):
                report("raised", f"there is no function {entry_point}")
                return
            found["candidate"] = found[entry_point]
            if entry_point not in names:
                del found[entry_point]
        found["run_case"] = lambda case, method: _run_case(namespace[case], method)
        report("loaded")
        if with_patches:
            mock_patches.install(connection)
        namespace.update(found)
        exec(setup, namespace)
        namespace.update(found)
        if with_patches:  # such tests share a module with the program, which may use what they import
            modules = {name: value.__name__ for name, value in namespace.items() if isinstance(value, types.ModuleType)}
            connection.request("import", modules)
        if prefetched:
            calls = [[connection.pack(found[name]), *json.loads(arguments)] for name, arguments in prefetched]
            connection.prefetch(calls)
    except BaseException as error:  # whatever the program or the tests raise
        failed = _outcome(error)
    passed = True
    for number, unit in enumerate(units):
        ended = number >= public and not passed  # as the benchmark's own function ends at an assertion that fails
        outcome = failed or (["not_run"] if ended else _run(unit, namespace, connection, number))
        passed = passed and outcome[0] == "passed"
        if outcome[0] == "lost":
            return
        report(*outcome)
        if outcome[0] == "unreadable":
            failed = outcome


def _run(unit: types.CodeType, namespace: dict[str, Any], connection: Connection, number: int) -> list[Any]:
    try:
        connection.use_prefetched(number)
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
    raised = getattr(error, "candidate", None)  # set where the program raised it
    if isinstance(error, ConnectionLost):
        return ["unreadable", str(error)] if error.args else ["lost"]
    if isinstance(error, MemoryError):
        return ["memory"]
    if isinstance(raised, str):
        return ["exited" if isinstance(error, SystemExit) else "raised", raised]
    try:
        text = str(error)
    except BaseException:  # a hostile __str__
        text = ""
    kind = type(error).__name__
    return ["failed", text if isinstance(error, AssertionError) else f"the test raised {kind}: {text}"]


def _load_failure(message: Any) -> Sequence[Any]:
    """Return what the candidate sent instead of ["loaded"], if it is of the right form."""
    if isinstance(message, list) and message and message[0] in ("raised", "exited", "not_parsed", "memory"):
        return [message[0], *(str(word)[:300] for word in message[1:2])]
    return ["unreadable"]


def _attribute(target: Any, name: str, *value: Any) -> Any:
    """Get or set an attribute of an object that a test handed over; it must not lead to the test or change a mock's record."""
    if name == "__name__" and not value:
        return target.__name__
    mock = sys.modules.get("unittest.mock")
    if name.startswith("_") or isinstance(target, (types.FunctionType, types.MethodType, types.ModuleType, type)):
        raise AttributeError(f"{name} is not for the program")
    if mock is not None and isinstance(target, mock.NonCallableMock):
        if hasattr(mock.Mock, name) or name.startswith("assert") or isinstance((*value, None)[0], CandidateObject):
            raise AttributeError(f"{name} of a mock is not for the program")
    return setattr(target, name, *value) if value else getattr(target, name)


_FOR_THE_PROGRAM = {name: OPERATIONS[name] for name in (
    *"call len bool iter next repr str int float getitem setitem delitem contains enter exit copy deepcopy".split(), *OPERATORS
)} | {"getattr": _attribute, "setattr": _attribute, "print": lambda text: sys.stdout.write(text)}  # fmt: skip
