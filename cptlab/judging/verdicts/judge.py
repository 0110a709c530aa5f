"""Judge programs: run each on the tests of its task in the sandbox, and compare its answers here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

    Items are taken as workers become free, so any number is judged in bounded memory. Otherwise as `judge_programs`.
    """
    made: dict[int, TaskRequests] = {}  # it holds the task, so that the task's id stays its own

    def requests() -> Iterator[tuple[Any, ExecutionRequest]]:
        for key, source, task in items:
            if id(task) not in made:
                made[id(task)] = TaskRequests(task)
            yield (key, task), made[id(task)].request(source)

    with Executor(workers, limits, at_least) as executor:
        for (key, task), results in executor.run(requests()):
            yield key, verdict_of(task, results)
