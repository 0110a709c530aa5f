"""Verdicts: programs run in the sandbox, their answers compared here, where the expected values are.

Call-based tasks and scripts are compared by the rules of comparison.py; for a 'check' task whatever the benchmark's own
tests say of the values that came back is the outcome (examiner.py).

Status, decided by the first test that was not passed, public tests before hidden ones:
passed      every test was passed
failed      a wrong answer
error       an exception, no function of that name, a call that exits, a process that ended before it answered
timeout     CPU time and sleep (or the wall-time backstop) used up
memory      MemoryError
crashed     killed by a signal, e.g. a stack overflow in C; or its report was too long or not readable
not_parsed  Python refuses to compile it
After a timeout or a crash the remaining tests are not run and count as not passed; so do the hidden tests of a 'check'
task after the first that is not passed, as the benchmark's own function ends there.
"""

from __future__ import annotations

import json
import marshal
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cptlab.errors import UserError
from cptlab.judging.execution.prefetch import calls_ahead
from cptlab.judging.sandbox.sandbox import Limits, Program, Run, Sandbox
from cptlab.judging.verdicts.comparison import same_json_value, same_text
from cptlab.judging.workers.server_pool import available_cpus
from cptlab.records import Task, Test, Verdict
from cptlab.storage.jsonl import to_json


def _int(digits: str) -> int:
    """Longer integers are written as {"int": hex}; reading these digits could take for ever."""
    if len(digits) > 20:
        raise ValueError("an integer that is too long")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_int)
_SLOW_IMPORTS = ("numpy", "unittest")


def judge_programs(
    items: Sequence[tuple[str, Task]],
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
    at_least: str = "landlock",
) -> list[Verdict]:
    """The verdict on each (program, task), in order. Equal items are run once.

    `workers`: programs that run at a time, by default one per CPU. `limits`: of each, by default `Limits()`. `progress`
    gets the number of items settled since its last call. `at_least`: the weakest sandbox that will do (sandbox.LEVELS).
    UserError for a task without tests, for tests that are not plain JSON data or not Python, and for a weaker sandbox.
    """
    verdicts: list[Verdict | None] = [None] * len(items)
    names: dict[int, str] = {}  # one text per task object, so that equal tasks are one
    places: dict[tuple[str, str], list[int]] = {}
    for index, (source, task) in enumerate(items):
        if id(task) not in names:
            _check(task)
            names[id(task)] = to_json(task)
        places.setdefault((source, names[id(task)]), []).append(index)
    if not items:
        return []
    todo = ((key, *items[index]) for key, (index, *_) in places.items())
    workers = min(workers or available_cpus(), len(places))
    for key, verdict in judge_stream(todo, workers=workers, limits=limits, at_least=at_least):
        for index in places[key]:
            verdicts[index] = verdict
        if progress is not None:
            progress(len(places[key]))
    return verdicts


def judge_stream(
    items: Iterable[tuple[Any, str, Task]],
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    at_least: str = "landlock",
) -> Iterator[tuple[Any, Verdict]]:
    """(key, verdict) for each (key, program, task), in the order in which they are ready.

    Items are taken as workers become free, so any number is judged in bounded memory. Else as `judge_programs`.
    """
    prepared: dict[int, tuple[Task, tuple[str, ...], bytes | None]] = {}  # holds the task, so that its id stays its own

    def programs() -> Iterator[tuple[Any, Program]]:
        for key, source, task in items:
            if id(task) not in prepared:
                _check(task)
                tests = _compiled(task) if task.kind == "check" else None
                prepared[id(task)] = task, () if tests else tuple(_input(task, test) for test in task.tests), tests
            _, inputs, tests = prepared[id(task)]
            entry_point = None if task.kind == "stdin" else task.entry_point
            yield (
                (key, task),
                Program(
                    source,
                    entry_point,
                    inputs,
                    tests=tests,
                    prelude=_prelude(task, source),
                    steps=len(task.tests),
                    imports=tuple(name for name in _SLOW_IMPORTS if name in task.setup),
                    alone="unittest" in task.setup or task.memory_mb is not None,
                    mirrored="unittest" in task.setup,
                    names=tuple({*task.names, task.entry_point} - {None}),
                    cpu_seconds=task.cpu_seconds,
                    memory_mb=task.memory_mb,
                ),
            )

    with Sandbox(workers, limits, at_least) as sandbox:
        for (key, task), runs in sandbox.run(programs()):
            yield key, verdict_of(task, runs)


def verdict_of(task: Task, runs: Sequence[Run]) -> Verdict:
    """What the runs of a program say about the tests of `task`. Nothing that the program said is trusted."""
    outcomes = {"call": _call_outcomes, "stdin": _script_outcomes, "check": _check_outcomes}[task.kind]
    by_rule = {rule: outcomes(task, runs, rule) for rule in task.rules}
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


def _status(outcomes: Sequence[tuple[str, str]]) -> str:
    return next((status for status, _ in outcomes if status != "passed"), "passed")


def _call_outcomes(task: Task, runs: Sequence[Run], rule: str) -> list[tuple[str, str]]:
    run = runs[0] if runs else None
    said = [_said(line) for line in run.lines] if run else []
    wrapped = "official" in task.rules and all(_is_wrapped(test.expected) for test in task.tests)
    outcomes = []
    if said[:1] == [["loaded"]]:
        for test, words in zip(task.tests, said[1:], strict=False):
            if words[0] != "value":
                outcomes.append(_failure(words))
            elif same_json_value(rule, test.expected, words[1]) or (
                wrapped and same_json_value(rule, test.expected[0], words[1])
            ):
                outcomes.append(("passed", ""))
            else:
                outcomes.append(("failed", f"expected {_short(test.expected)}, got {_show(words[1])}"))
        end = _ended(run)
    else:  # it was not loaded
        end = _failure(said[0]) if said else _ended(run)
    return outcomes + [end] * (len(task.tests) - len(outcomes))


def _is_wrapped(expected: Any) -> bool:
    """Some tasks of APPS have every expected value in a list of one."""
    return isinstance(expected, list) and len(expected) == 1


def _check_outcomes(task: Task, runs: Sequence[Run], rule: str) -> list[tuple[str, str]]:
    run = runs[0] if runs else None
    said = [_said(line) for line in run.lines] if run else []
    if said[:1] != [["loaded"]]:
        return [_failure(said[0]) if said else _ended(run)] * len(task.tests)
    outcomes = [("passed", "") if words == ["passed"] else _failure(words) for words in said[1 : 1 + len(task.tests)]]
    return outcomes + [_ended(run)] * (len(task.tests) - len(outcomes))


def _script_outcomes(task: Task, runs: Sequence[Run], rule: str) -> list[tuple[str, str]]:
    outcomes = []
    for test, run in zip(task.tests, runs, strict=False):
        said = _said(run.lines[0]) if run.lines else None
        left_at_once = said is None and run.cause == "exit" and run.code == 0  # os._exit(0)
        if (said == ["ended"] and run.cause == "exit") or left_at_once:
            if same_text(rule, test.expected, run.stdout):
                outcomes.append(("passed", ""))
            else:
                outcomes.append(("failed", f"expected {_short(test.expected)}, printed {_short(run.stdout)}"))
        else:
            outcomes.append(_failure(said) if said and run.cause == "exit" else _ended(run))
    end = _ended(runs[-1] if runs else None)
    return outcomes + [end] * (len(task.tests) - len(outcomes))


def _said(line: str) -> list[Any]:
    """A line of a report: a word and what goes with it; ["unreadable"] if it is not of that form."""
    try:
        words = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return ["unreadable"]
    lengths = {"loaded": 1, "ended": 1, "passed": 1, "memory": 1, "value": 2, "raised": 2, "exited": 2, "not_parsed": 2,
               "failed": 2, "not_run": 1}  # fmt: skip
    if isinstance(words, list) and words and isinstance(words[0], str) and lengths.get(words[0]) == len(words):
        return words
    return ["unreadable"]


def _failure(words: list[Any]) -> tuple[str, str]:
    kind = words[0]
    if kind == "failed":
        return "failed", _short(words[1], quote=False) or "its assertion does not hold"
    if kind == "not_run":
        return "failed", "not run"
    if kind == "not_parsed":
        return "not_parsed", _short(words[1], quote=False)
    if kind == "memory":
        return "memory", "memory limit reached"
    if kind == "raised":
        return "error", _short(words[1], quote=False)
    if kind == "exited":
        return "error", f"exited instead of returning ({_short(words[1], quote=False)})"
    return "crashed", "its report cannot be read"


def _ended(run: Run | None) -> tuple[str, str]:
    """Why a process gave no further answer."""
    if run is None:
        return "crashed", "its server was lost"
    if run.cause == "cpu":
        return "timeout", "CPU time limit reached"
    if run.cause == "sleep":
        return "timeout", "slept through its time limit"
    if run.cause == "wall":
        return "timeout", "wall time limit reached"
    if run.cause == "lost":
        return "crashed", "its answers ended the tests"
    if run.cause == "flood":
        return "crashed", "its report was too long"
    if run.cause == "signal":
        try:
            return "crashed", f"killed by {signal.Signals(run.code).name}"
        except ValueError:
            return "crashed", f"killed by signal {run.code}"
    return "error", f"the process ended (status {run.code}) before it answered"


def _input(task: Task, test: Test) -> str:
    return json.dumps(test.args) if task.kind == "call" else (test.stdin or "")


def _prelude(task: Task, source: str) -> str:
    """The imports that the benchmark puts before a program; numpy, which takes long, only where it may be used."""
    if task.kind == "check":
        return ""
    lines = task.setup.splitlines(keepends=True)
    return "".join(line for line in lines if "numpy" not in line or re.search(r"\bnp\b", source))


def _compiled(task: Task) -> bytes:
    """The tests of a 'check' task in the form that `examiner.examine` reads."""
    try:
        codes = [compile(text, "<tests>", "exec", dont_inherit=True)
                 for text in (task.setup, *(test.code or "" for test in task.tests))]  # fmt: skip
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(
            f"Task {task.id}: its tests are not Python ({error}). Correct the benchmark's file, or take a fresh copy."
        ) from None
    ahead = calls_ahead([test.code or "" for test in task.tests], ("candidate", *task.names))
    return marshal.dumps(
        (task.entry_point, task.names, "unittest" in task.setup, ahead, codes[0], codes[1:], len(task.public_tests))
    )


def _check(task: Task) -> None:
    if not task.tests:
        raise UserError(f"Task {task.id} has no tests, so nothing can be said of a program. Give it at least one test.")
    if task.kind not in ("call", "stdin", "check") or (task.kind == "call" and not task.entry_point):
        raise UserError(
            f"Task {task.id} is neither 'stdin' nor 'check' nor 'call' with an entry point. Correct its kind."
        )
    for test in task.tests if task.kind != "check" else ():
        right = isinstance(test.expected, str) if task.kind == "stdin" else _plain([test.args, test.expected])
        if not right:
            raise UserError(
                f"Task {task.id}: a test holds {_short([test.args, test.expected])}, which is not plain JSON data. "
                "Use None, bool, int, float, str, lists, and dicts with str keys."
            )


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(map(_plain, value.values()))
    return value is None or type(value) in (bool, int, float, str)


def _short(value: Any, quote: bool = True) -> str:
    text = repr(value) if quote or not isinstance(value, str) else value
    text = text.encode("utf-8", "backslashreplace").decode()  # half a character cannot be written to a file
    return text if len(text) <= 120 else text[:117] + "..."


def _show(encoded: Any) -> str:
    """An encoded value as Python would write it, shortened."""
    if isinstance(encoded, dict) and len(encoded) == 1:
        kind, content = next(iter(encoded.items()))
        return f"{'an object of type' if kind == 'other' else kind} {_short(content)}"
    return _short(encoded)
