"""Judge programs: run each on the tests of its task in the sandbox, and compare its answers here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from cptlab.judging.execution.executor import Executor
from cptlab.judging.execution.request import ExecutionRequest
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.verdicts.task_requests import TaskRequests, check_task
from cptlab.judging.verdicts.verdict import verdict_of
from cptlab.judging.workers.server_pool import available_cpus
from cptlab.records import Task, Verdict
from cptlab.storage.jsonl import to_json


def judge_programs(
    items: Sequence[tuple[str, Task]],
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    ended: Callable[[int, Verdict], None] | None = None,
    at_least: str = "landlock",
) -> list[Verdict]:
    """Return the verdict on each (program, task), in order. Equal items are run once.

    `workers`: programs that run at a time, by default one per CPU. `limits`: of each, by default `Limits()`. `ended` is
    called with the place and the verdict of each item as soon as it is ready. `at_least`: the weakest sandbox that will do (sandbox/levels.py).
    UserError for a task without tests, for tests that are not JSON data or not Python, and for a weaker sandbox.
    """
    names: dict[int, str] = {}  # one text per task object, so that equal tasks are one
    places: dict[tuple[str, str], list[int]] = {}
    for index, (source, task) in enumerate(items):
        if id(task) not in names:
            check_task(task)
            names[id(task)] = to_json(task)
        places.setdefault((source, names[id(task)]), []).append(index)
    if not items:
        return []
    verdicts: dict[int, Verdict] = {}
    todo = ((key, *items[index]) for key, (index, *_) in places.items())
    workers = min(workers or available_cpus(), len(places))
    for key, verdict in judge_stream(todo, workers=workers, limits=limits, at_least=at_least):
        for index in places[key]:
            verdicts[index] = verdict
            if ended is not None:
                ended(index, verdict)
    return [verdicts[index] for index in range(len(items))]


def judge_stream(
    items: Iterable[tuple[Any, str, Task]],
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    at_least: str = "landlock",
) -> Iterator[tuple[Any, Verdict]]:
    """Yield (key, verdict) for each (key, program, task), in the order in which the verdicts are ready.

    Items are taken as workers become free, so any number is judged in bounded memory. Tests that do not count run in a
    process of their own, so that they change no verdict. Otherwise as `judge_programs`.
    """
    made: dict[int, tuple[Task, list[TaskRequests]]] = {}  # it holds the task, so that the task's id stays its own
    waiting: dict[int, dict[int, Verdict]] = {}  # the parts of a verdict that are ready, by the number of the item

    def requests() -> Iterator[tuple[Any, ExecutionRequest]]:
        for number, (key, source, task) in enumerate(items):
            if id(task) not in made:
                made[id(task)] = task, [TaskRequests(part) for part in _parts(task)]
            for part, tests in enumerate(made[id(task)][1]):
                yield (number, key, task, part), tests.request(source)

    with Executor(workers, limits, at_least) as executor:
        for (number, key, task, part), results in executor.run(requests()):
            tests = made[id(task)][1]
            ready = waiting.setdefault(number, {})
            ready[part] = verdict_of(tests[part].task, results)
            if len(ready) == len(tests):
                yield key, _joined(task, [ready[part] for part in sorted(waiting.pop(number))])


def _parts(task: Task) -> list[Task]:
    """Return the task with the tests that count, and the same with the others if there are any."""
    if not task.uncounted_tests:
        return [task]
    public, hidden = replace(task, hidden_tests=()), replace(task, public_tests=())
    return [hidden, public] if task.uncounted == "public" else [public, hidden]


def _joined(task: Task, parts: Sequence[Verdict]) -> Verdict:
    if len(parts) == 1:
        return parts[0]
    counted, other = parts
    public, hidden = (other, counted) if task.uncounted == "public" else (counted, other)
    return replace(
        counted,
        public_passed=public.public_passed,
        public_total=public.public_total,
        hidden_passed=hidden.hidden_passed,
        hidden_total=hidden.hidden_total,
        by_rule=counted.by_rule | {task.uncounted: other.status},
    )
