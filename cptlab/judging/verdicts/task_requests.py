"""Turn programs for a task into requests of the executor, and refuse tasks that cannot be judged."""

from __future__ import annotations

import json
import marshal
import re
from typing import Any

from cptlab.errors import UserError
from cptlab.judging.execution.prefetch import known_calls
from cptlab.judging.execution.request import ExecutionRequest
from cptlab.judging.verdicts.verdict import shorten
from cptlab.records import Task, Test
from cptlab.storage.jsonl import integers_of_any_length

_SLOW_IMPORTS = ("numpy", "unittest")


class TaskRequests:
    """The requests for programs of one task. The tests are encoded once. UserError as `check_task` says."""

    def __init__(self, task: Task) -> None:
        check_task(task)
        self.task = task
        self.tests = _compile_tests(task) if task.kind == "check" else None
        self.inputs = () if self.tests else tuple(_input(task, test) for test in task.tests)

    def request(self, source: str) -> ExecutionRequest:
        """Return the request to run the program `source` on the tests of the task."""
        task = self.task
        return ExecutionRequest(
            source,
            None if task.kind == "stdin" else task.entry_point,
            self.inputs,
            prelude=_prelude(task, source),
            tests=self.tests,
            test_count=len(task.tests),
            names=tuple({*task.names, task.entry_point} - {None}),
            imports=tuple(name for name in _SLOW_IMPORTS if name in task.setup),
            own_examiner="unittest" in task.setup or task.memory_mb is not None,
            mock_patches="unittest" in task.setup,
            cpu_seconds=task.cpu_seconds,
            memory_mb=task.memory_mb,
        )


def check_task(task: Task) -> None:
    """Raise UserError for a task without tests, without a known kind, or with tests that are not JSON data."""
    if not task.tests:
        raise UserError(f"Task {task.id} has no tests, so it cannot judge a program. Give it at least one test.")
    if task.kind not in ("call", "stdin", "check") or (task.kind == "call" and not task.entry_point):
        raise UserError(
            f"Task {task.id} is neither 'stdin' nor 'check' nor 'call' with an entry point. Correct its kind."
        )
    for test in task.tests if task.kind != "check" else ():
        right = isinstance(test.expected, str) if task.kind == "stdin" else _is_json([test.args, test.expected])
        if not right:
            raise UserError(
                f"Task {task.id}: a test holds {shorten([test.args, test.expected])}, which is not JSON data. "
                "Use None, bool, int, float, str, lists, and dicts with str keys."
            )


def _is_json(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(map(_is_json, value.values()))
    return value is None or type(value) in (bool, int, float, str)


def _input(task: Task, test: Test) -> str:
    if task.kind != "call":
        return test.stdin or ""
    with integers_of_any_length():
        return json.dumps(test.args)


def _prelude(task: Task, source: str) -> str:
    """Return the imports that the benchmark puts before a program; numpy, which takes long, only where it may be used."""
    if task.kind == "check":
        return ""
    lines = task.setup.splitlines(keepends=True)
    return "".join(line for line in lines if "numpy" not in line or re.search(r"\bnp\b", source))


def _compile_tests(task: Task) -> bytes:
    """Compile the tests of a 'check' task into the form that examiner.py reads."""
    texts = [test.code or "" for test in task.tests]
    try:
        setup, *tests = [compile(text, "<tests>", "exec", dont_inherit=True) for text in (task.setup, *texts)]
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(
            f"Task {task.id}: its tests are not Python ({error}). Correct the benchmark's file, or take a fresh copy."
        ) from None
    prefetched = known_calls(texts, ("candidate", *task.names))
    with_patches = "unittest" in task.setup
    return marshal.dumps((task.entry_point, task.names, with_patches, prefetched, setup, tests, len(task.public_tests)))
