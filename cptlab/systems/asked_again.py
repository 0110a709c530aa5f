"""The second programs of a system with feedback (feedback.py), each in the place of the first one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from cptlab.decoding import positions_needed
from cptlab.records import Completion, Prompt, Quality
from cptlab.storage.chunk_store import ChunkStore
from cptlab.storage.jsonl import from_json
from cptlab.systems.chunks import TaskChunks
from cptlab.systems.cleaning import cleaned
from cptlab.systems.code_digest import code_digest, folder_digest
from cptlab.systems.judge import Judge
from cptlab.systems.judged_programs import Cost
from cptlab.systems.loading import LoadedSystem

SECOND_SEED = 1 << 33  # added to the seed of first answers
Place = tuple[str, int]  # task and sample
# Make these samples of each prompt, as samples.py does; the last argument gets each as it ends.
Generate = Callable[
    [LoadedSystem, Sequence[tuple[str, Prompt]], int, int, Sequence[Sequence[int]], Callable[[Completion], None]], None
]


def ask_again(
    system: LoadedSystem, first: ChunkStore, chunks: TaskChunks, judge: Judge, seed: int, generate: Generate
) -> tuple[ChunkStore, Cost]:
    """Return the programs after feedback, and what the second ones cost beside the first."""
    assert system.feedback is not None
    scores = judge.score(first, chunks, f"{system.name}, first answers")
    prompts = dict(_prompts(system, chunks, first, scores))
    tasks = {task.id: task for task in chunks.tasks}
    backbone, decoding = system.policy.backbone, system.decoding
    work = {
        "first": first.fingerprint,
        "scores": scores.fingerprint,
        "backbone": backbone.fingerprint,
        "dtype": str(backbone.dtype),
        "adapter": system.adapter_digest,
        "feedback": [repr(system.feedback), code_digest(system.feedback), backbone.prompt_form],
        "sampling": asdict(decoding.sampling),
        "guidance": repr(decoding.guidance),
        "engine": decoding.engine_facts() if decoding.engine == "vllm" else None,
        "cleaning": [folder_digest("judging/cleaning"), inspect.getsource(cleaned)],
        "seed": seed,
    }
    store = ChunkStore(judge.cache / "programs", Completion, work, chunks.keys)

    def ask(key: str, advance: Callable[[int], None]) -> list[Completion]:
        before = first.read(key)
        rows = {(one.task_id, one.sample): row for row, one in enumerate(before)}
        with store.journal(key) as journal:  # of a killed run: its programs are not made again
            made = {row: from_json(Completion, journal.read(row)) for row in journal}

            def ended(completion: Completion) -> None:
                place = completion.task_id, completion.sample
                program = cleaned(completion, tasks[completion.task_id], prompts[place])
                journal.add(rows[place], program)
                made[rows[place]] = program
                advance(1)

            todo = [place for place, row in rows.items() if place in prompts and row not in made]
            advance(len(before) - len(todo))
            asked = [(place[0], prompts[place]) for place in todo]
            if asked:
                samples = [[sample] for _, sample in todo]
                generate(system, asked, chunks.programs, seed + SECOND_SEED, samples, ended)
        return [made.get(row, one) for row, one in enumerate(before)]

    chunks.compute(store, f"{system.name}: sampling again after feedback", ask)
    again = [one for one in store.records() if (one.task_id, one.sample) in prompts]
    return store, Cost(len(again), sum(one.tokens for one in again))


def _prompts(
    system: LoadedSystem, chunks: TaskChunks, first: ChunkStore, scores: ChunkStore
) -> Iterator[tuple[Place, Prompt]]:
    """Yield the prompt of every program that is asked for again."""
    tasks = {task.id: task for task in chunks.tasks}
    backbone, feedback = system.policy.backbone, system.feedback
    assert feedback is not None
    one: Completion
    quality: Quality
    for one, quality in zip(first.records(), scores.records(), strict=True):
        if not quality.messages or not one.program.strip():
            continue
        told = functools.partial(
            feedback.apply, program=one.program, messages=quality.messages, is_chat=backbone.chat is not None
        )
        prompt = system.shown_prompt(tasks[one.task_id], told)
        needed = positions_needed(backbone, prompt, system.decoding.sampling, prefix=system.policy.prefix)
        if needed <= backbone.context_length:
            yield (one.task_id, one.sample), prompt
