"""Decide the verdict on a program from the results of its runs. Nothing that the program reported is trusted.

Answers of functions and scripts are compared with the expected values by the rules of comparison.py. For a 'check' task
the outcome of the benchmark's own tests decides (execution/examiner.py).

Status, decided by the first test that counts and was not passed, public tests before hidden ones:
passed      every test was passed
failed      a wrong answer
error       an exception, no function of that name, a call that exits, a process that ended before it answered
timeout     CPU time and sleep (or the wall-time backstop) used up
memory      MemoryError
crashed     killed by a signal, e.g. a stack overflow in C; or its report was too long or not readable
not_parsed  Python refuses to compile it
After a timeout or a crash the remaining tests are not run and count as not passed. So do the hidden tests of a 'check'
task after the first that is not passed, as the benchmark's own function ends there.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from typing import Any

from cptlab.judging.execution.request import ExecutionResult
from cptlab.judging.verdicts.comparison import output_matches, value_matches
from cptlab.records import Task, Verdict

_ARITIES = {"loaded": 1, "ended": 1, "passed": 1, "memory": 1, "value": 2, "raised": 2, "exited": 2, "not_parsed": 2,
            "failed": 2, "not_run": 1}  # fmt: skip
Outcome = tuple[str, str]  # the status of one test, and the reason


def _parse_int(digits: str) -> int:
    """Longer integers are written as {"int": hex}; to read these digits could take forever."""
    if len(digits) > 20:
        raise ValueError("an integer that is too long")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_parse_int)


def verdict_of(task: Task, results: Sequence[ExecutionResult]) -> Verdict:
    """Return the verdict on a program, from its results on the tests of `task`."""
    outcomes = {"call": _call_outcomes, "stdin": _script_outcomes, "check": _check_outcomes}[task.kind]
    by_rule = {rule: outcomes(task, results, rule) for rule in task.rules}
    decisive = by_rule[task.rules[0]]
    public = len(task.public_tests)
    passed = [status == "passed" for status, _ in decisive]
    status, reason = "passed", ""
    for index, outcome in enumerate(decisive):
        if outcome[0] != "passed":
            name = f"public test {index + 1}" if index < public else f"hidden test {index - public + 1}"
            status, reason = outcome[0], f"{name}: {outcome[1]}"
            break
    return Verdict(
        status=status,
        reason=reason,
        public_passed=sum(passed[:public]),
        public_total=public,
        hidden_passed=sum(passed[public:]),
        hidden_total=len(task.hidden_tests),
        by_rule={rule: _status(found) for rule, found in by_rule.items()} if len(by_rule) > 1 else {},
    )


def _status(outcomes: Sequence[Outcome]) -> str:
    return next((status for status, _ in outcomes if status != "passed"), "passed")


def _call_outcomes(task: Task, results: Sequence[ExecutionResult], rule: str) -> list[Outcome]:
    result = results[0] if results else None
    reports = [_parse(line) for line in result.lines] if result else []
    wrapped = "official" in task.rules and all(_is_wrapped(test.expected) for test in task.tests)
    outcomes = []
    if reports[:1] == [["loaded"]]:
        for test, report in zip(task.tests, reports[1:], strict=False):
            if report[0] != "value":
                outcomes.append(_failure(report))
            elif value_matches(rule, test.expected, report[1]) or (
                wrapped and value_matches(rule, test.expected[0], report[1])
            ):
                outcomes.append(("passed", ""))
            else:
                outcomes.append(("failed", f"expected {shorten(test.expected)}, got {_show(report[1])}"))
        end = _ended(result)
    else:  # it was not loaded
        end = _failure(reports[0]) if reports else _ended(result)
    return outcomes + [end] * (len(task.tests) - len(outcomes))


def _is_wrapped(expected: Any) -> bool:
    """Whether an expected value is in a list of one, as all are in some tasks of APPS."""
    return isinstance(expected, list) and len(expected) == 1


def _check_outcomes(task: Task, results: Sequence[ExecutionResult], rule: str) -> list[Outcome]:
    result = results[0] if results else None
    reports = [_parse(line) for line in result.lines] if result else []
    if reports[:1] != [["loaded"]]:
        return [_failure(reports[0]) if reports else _ended(result)] * len(task.tests)
    reports = reports[1 : 1 + len(task.tests)]
    outcomes = [("passed", "") if report == ["passed"] else _failure(report) for report in reports]
    return outcomes + [_ended(result)] * (len(task.tests) - len(outcomes))


def _script_outcomes(task: Task, results: Sequence[ExecutionResult], rule: str) -> list[Outcome]:
    outcomes = []
    for test, result in zip(task.tests, results, strict=False):
        report = _parse(result.lines[0]) if result.lines else None
        left_at_once = report is None and result.cause == "exit" and result.code == 0  # os._exit(0)
        if (report == ["ended"] and result.cause == "exit") or left_at_once:
            if output_matches(rule, test.expected, result.stdout):
                outcomes.append(("passed", ""))
            else:
                outcomes.append(("failed", f"expected {shorten(test.expected)}, printed {shorten(result.stdout)}"))
        else:
            outcomes.append(_failure(report) if report and result.cause == "exit" else _ended(result))
    end = _ended(results[-1] if results else None)
    return outcomes + [end] * (len(task.tests) - len(outcomes))


def _parse(line: str) -> list[Any]:
    """Parse a line of a report: a word and what goes with it; ["unreadable"] if it is not of that form."""
    try:
        words = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return ["unreadable"]
    if isinstance(words, list) and words and isinstance(words[0], str) and _ARITIES.get(words[0]) == len(words):
        return words
    return ["unreadable"]


def _failure(report: list[Any]) -> Outcome:
    kind = report[0]
    if kind == "failed":
        return "failed", shorten(report[1], quote=False) or "its assertion does not hold"
    if kind == "not_run":
        return "failed", "not run"
    if kind == "not_parsed":
        return "not_parsed", shorten(report[1], quote=False)
    if kind == "memory":
        return "memory", "memory limit reached"
    if kind == "raised":
        return "error", shorten(report[1], quote=False)
    if kind == "exited":
        return "error", f"exited instead of returning ({shorten(report[1], quote=False)})"
    return "crashed", "its report cannot be read"


def _ended(result: ExecutionResult | None) -> Outcome:
    """Return why a process gave no further answer."""
    if result is None:
        return "crashed", "its server was lost"
    if result.cause == "cpu":
        return "timeout", "CPU time limit reached"
    if result.cause == "sleep":
        return "timeout", "slept through its time limit"
    if result.cause == "wall":
        return "timeout", "wall time limit reached"
    if result.cause == "lost":
        return "crashed", "its answers ended the tests"
    if result.cause == "flood":
        return "crashed", "its report was too long"
    if result.cause == "signal":
        try:
            return "crashed", f"killed by {signal.Signals(result.code).name}"
        except ValueError:
            return "crashed", f"killed by signal {result.code}"
    return "error", f"the process ended (status {result.code}) before it answered"


def shorten(value: Any, quote: bool = True) -> str:
    """Return `value` as text for a message, of at most 120 characters."""
    try:
        text = repr(value) if quote or not isinstance(value, str) else value
    except ValueError:  # Python refuses to write it
        text = "an integer of thousands of digits"
    text = text.encode("utf-8", "backslashreplace").decode()  # half a character cannot be written to a file
    return text if len(text) <= 120 else text[:117] + "..."


def _show(encoded: Any) -> str:
    """Return an encoded value about as Python would write it, shortened."""
    if isinstance(encoded, dict) and len(encoded) == 1:
        kind, content = next(iter(encoded.items()))
        return f"{'an object of type' if kind == 'other' else kind} {shorten(content)}"
    return shorten(encoded)
