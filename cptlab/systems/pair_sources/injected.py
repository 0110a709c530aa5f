"""Pairs of a clean program and the same program with one pylint message more, brought about by an edit.

An edited program is kept if pylint reports the wanted message, which the clean one does not have, and no other message more
or less, and if the tests say the same of both.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cptlab import pairs
from cptlab.errors import UserError
from cptlab.pairs import Choice, InjectedPairs
from cptlab.pairs.filters import written_program
from cptlab.pairs.injection import INJECTORS, Edit, apply_edits, injections
from cptlab.records import Completion, Pair, Task
from cptlab.systems.code_digest import folder_digest
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.pair_sources.variants import Fill, judge_variants, message_counts, same_verdict
from cptlab.systems.samples import SystemPrograms

TRIES = 3  # edited programs of a task for each pair that is wanted: some bring about other messages too


def injected_pairs(
    recipe: InjectedPairs, system: LoadedSystem, tasks: Sequence[Task], judge: Judge, fill: Fill
) -> tuple[list[Pair], dict[str, Any]]:
    """Return up to `per_task` pairs of each task, and `injected`: what was tried, dropped and kept, by message.

    Raises UserError where no training pair is left.
    """
    backbone = system.policy.backbone
    shown = [dataclasses.replace(task, prompt=system.shown_prompt(task)) for task in tasks]
    clean = _clean_programs(recipe, system, tasks, shown, judge, fill)
    tries = {task.id: _tries(recipe, task, clean[task.id]) for task in shown if task.id in clean}
    variants = {
        task.id: [
            clean[task.id],
            *(_edited(task, clean[task.id], i, edits) for i, (_, edits) in enumerate(tries[task.id], 1)),
        ]
        for task in shown
        if tries.get(task.id)
    }
    work = {
        "programs": [[one.program for one in some] for some in variants.values()],
        "edits": folder_digest("pairs/injection"),
    }
    judged = judge_variants("injected", variants, shown, work, judge)
    counts = Counter(tasks=len(tasks), clean=len(clean), tried=0, other_messages=0, other_verdict=0)
    found, by_message = [], Counter()
    for task in shown:
        records = judged[task.id]
        kept = 0
        for (message, edits), (_, quality, verdict) in zip(tries.get(task.id, ()), records[1:], strict=True):
            counts["tried"] += 1
            before, after = message_counts(records[0][1]), message_counts(quality)
            if before[message] or set(after - before) != {message} or before - after:
                counts["other_messages"] += 1
            elif not same_verdict(verdict, records[0][2]):
                counts["other_verdict"] += 1
            elif kept < recipe.per_task and records[0][1].score > quality.score:
                kept += 1
                by_message[message] += 1
                both = [records[0], (_, quality, verdict)]
                found.append(_pair(task, both, edits, backbone.encode_completion, backbone.decode))
    if not any(pair.split == "train" for pair in found):
        raise UserError(
            f"No pairs are left: of {counts['tasks']} tasks {counts['clean']} have a program to edit, and of {counts['tried']} "
            f"edited programs {counts['other_messages']} have not exactly the wanted message more and "
            f"{counts['other_verdict']} another verdict. Take more tasks, more of pairs.messages, or pairs.source=model."
        )
    return found, {"injected": dict(counts) | {"by_message": dict(sorted(by_message.items()))}}


def _clean_programs(
    recipe: InjectedPairs, system: LoadedSystem, tasks: Sequence[Task], shown: Sequence[Task], judge: Judge, fill: Fill
) -> dict[str, Completion]:
    """Return the program of each task that is edited, as if the model had written it behind its prompt."""
    if recipe.source == "canonical":
        return {
            task.id: Completion(task.id, 0, body + task.prompt.closing, task.prompt.code + body, 0, True)
            for task in shown
            if (body := _behind_prompt(task)) is not None
        }
    prompts = {task.id: task.prompt for task in shown}
    found = {}
    programs = SystemPrograms(system, tasks, recipe.n, judge, recipe.seed)
    fill(programs)
    for task_id, completions, qualities, verdicts in programs.by_task():
        code = prompts[task_id].code
        whole = [
            place
            for place, one in enumerate(completions)
            if written_program(one, code) is not None and qualities[place].score > 0
        ]
        if whole:
            best = min(whole, key=lambda place: (not verdicts[place].passed, -qualities[place].score, place))
            found[task_id] = dataclasses.replace(completions[best], sample=0)
    return found


def _behind_prompt(task: Task) -> str | None:
    """Return the part of the canonical solution that a model would write; None where it does not go on from the prompt."""
    solution, code = task.canonical_solution, task.prompt.code
    return solution.removeprefix(code) if solution is not None and solution.startswith(code) else None


def _tries(recipe: InjectedPairs, task: Task, clean: Completion) -> list[tuple[str, list[Edit]]]:
    """Return the messages to try and their edits, drawn by seed and task."""
    rng = random.Random(f"{recipe.seed} {task.id}")
    code, wanted = task.prompt.code, list(recipe.messages or INJECTORS)
    start = len(code) if clean.program.startswith(code) else 0
    rng.shuffle(wanted)
    found = []
    for message in wanted:
        ways = injections(clean.program, message, start)
        if ways and len(found) < TRIES * recipe.per_task:
            found.append((message, rng.choice(ways)))
    return found


def _edited(task: Task, clean: Completion, sample: int, edits: Sequence[Edit]) -> Completion:
    program = apply_edits(clean.program, edits)
    old, new = (one.removeprefix(task.prompt.code) for one in (clean.program, program))
    return dataclasses.replace(clean, sample=sample, program=program, raw=new + clean.raw[len(old) :])


def _pair(task: Task, both: Sequence[Any], edits: Sequence[Edit], encode: Any, decode: Any) -> Pair:
    completions, qualities, verdicts = zip(*both, strict=True)
    gap = (qualities[0].score - qualities[1].score) / 10
    similarity = float(pairs.cosine_similarities([one.program for one in completions])[0, 1])
    combined = pairs.SelectionOptions().combined(gap, similarity)
    choice = Choice(0, 1, similarity, combined, verdicts[0].public_passed > 0)
    shift = len(task.prompt.code) if completions[0].program.startswith(task.prompt.code) else 0
    moved = [Edit(edit.start - shift, edit.end - shift, edit.text) for edit in edits]
    return pairs.make_pair(task, choice, completions, qualities, encode, decode, edits=moved)
