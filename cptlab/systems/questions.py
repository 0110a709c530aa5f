"""Which of the first answers a system with feedback asks about once more, and with what prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cptlab.records import Prompt, Task, Verdict
from cptlab.systems.judge import Judge
from cptlab.systems.judged_programs import JudgedPrograms
from cptlab.systems.loading import LoadedSystem, fits

Question = tuple[str, int, Prompt]  # a task, one of its samples, and what is asked about it


def questions(system: LoadedSystem, tasks: Sequence[Task], first: JudgedPrograms, judge: Judge) -> list[Question]:
    """Return what is asked about the first answers of which the system's feedback has something to tell.

    Where the longer prompt does not fit into the context, the task's own prompt is asked again.
    """
    feedback = system.feedback
    assert feedback is not None
    by_id = {task.id: task for task in tasks}
    rows = list(zip(first.completions, first.qualities, first.verdicts, strict=True))
    verdicts = [verdict for *_, verdict in rows]
    if feedback.needs_public_tests:
        verdicts = _on_public_tests([(one.program, by_id[one.task_id], verdict) for one, _, verdict in rows], judge)
    found: list[Question] = []
    for (completion, quality, _), verdict in zip(rows, verdicts, strict=True):
        task = by_id[completion.task_id]
        told = feedback.tell(task, quality, verdict)
        if told is not None:
            prompt = system.shown_prompt(task, about=(completion.program, told))
            found.append((task.id, completion.sample, prompt if fits(system, prompt) else system.shown_prompt(task)))
    return found


def _on_public_tests(rows: Sequence[tuple[str, Task, Verdict]], judge: Judge) -> list[Verdict]:
    """Return the verdicts with the reason of the first public test that failed, which the verdict itself may not give."""
    unsaid = [
        i
        for i, (_, task, verdict) in enumerate(rows)
        if task.uncounted == "public" and verdict.public_passed < verdict.public_total
    ]
    alone = [(rows[i][0], replace(rows[i][1], hidden_tests=(), uncounted="")) for i in unsaid]
    judged = judge.verdicts(alone)
    verdicts = [verdict for *_, verdict in rows]
    for i, verdict in zip(unsaid, judged, strict=True):
        verdicts[i] = replace(verdicts[i], reason=verdict.reason)
    return verdicts
