"""A system's programs for a list of tasks, each with its score and verdict: made once, kept on disk, resumed.

    prompts -> sampling -> cleaning (-> feedback: again) -> selection -> post-processing -> scores -> verdicts

Every step that takes long is a store below the cache, found again by what it depends on (backbone, adapter, prompts,
decoding, seed, n, …). So a killed run goes on where it was, and a base model's programs are not made again by every run
of a sweep. Each program is kept as soon as it ends. Those that a kill leaves unfinished are made again in other batches,
from the same random numbers: the same programs up to rounding (decoding/sampling.py).
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from cptlab.decoding import generate
from cptlab.records import Completion, Prompt, Quality, Task
from cptlab.storage.chunk_store import ChunkStore
from cptlab.storage.jsonl import from_json
from cptlab.systems.asked_again import ask_again
from cptlab.systems.chunks import TaskChunks
from cptlab.systems.cleaning import cleaned
from cptlab.systems.code_digest import code_digest, folder_digest, judging_digest
from cptlab.systems.judge import Judge, digest_of_tests
from cptlab.systems.judged_programs import Cost, JudgedPrograms
from cptlab.systems.loading import LoadedSystem, refuse_without_public_tests
from cptlab.systems.system import Selection
from cptlab.tasks.benchmark import digest_of

FRESH_SEED = 1 << 32  # added to the seed of a plain second try; seeds of first tries are smaller
CHUNK_PROGRAMS = 640  # programs that are stored, scored and judged together


def sample_and_judge(
    system: LoadedSystem, tasks: Sequence[Task], n: int, judge: Judge, *, seed: int = 0
) -> JudgedPrograms:
    """Make `n` programs for each task, score them and run them on the tests.

    With a guidance whose gate opens after a failure, a program is made without guidance first, and made again, with it
    and the same random numbers, where that fails a public test. A plain second try has other random numbers. With a
    selection, the tests run on the programs that are kept. Raises UserError where a prompt does not fit the context, and
    for a choice that makes no sense here.
    """
    draws = n * system.draws
    drawn_chunks = TaskChunks(tasks, max(1, CHUNK_PROGRAMS // draws), draws)
    answers, cost, seconds = _sample(system, drawn_chunks, judge, seed)
    drawn = _clean(system, answers, drawn_chunks, judge)
    if system.feedback is not None:
        drawn, again = ask_again(system, drawn, drawn_chunks, judge, seed, _generate)
        cost, seconds = Cost(cost.programs + again.programs, cost.tokens + again.tokens), None
    chunks, programs = replace(drawn_chunks, programs=n), drawn
    if system.selection is not None or system.post_processing:
        scores = None if system.selection is None else judge.score(drawn, drawn_chunks, f"{system.name}, all draws")
        programs = _keep(system, drawn, scores, chunks, judge)
    scored = judge.score(programs, chunks, system.name)
    judged = judge.run_tests(programs, chunks, system.name)
    kept = n * len(tasks)
    return JudgedPrograms(
        list(programs.records()),
        list(scored.records()),
        list(judged.records()),
        Cost(cost.programs / kept, cost.tokens / kept),
        seconds,
    )


def _sample(system: LoadedSystem, chunks: TaskChunks, judge: Judge, seed: int) -> tuple[ChunkStore, Cost, float | None]:
    """Draw the answers, uncleaned. The cost is that of all answers together, those that were made again included.

    The seconds are those of the sampling; None where any answer was stored before.
    """
    backbone, decoding = system.policy.backbone, system.decoding
    guidance, strategy = decoding.guidance, decoding.strategy
    prompts = {task.id: system.shown_prompt(task) for task in chunks.tasks}
    work: dict[str, Any] = {
        "backbone": backbone.fingerprint,
        "dtype": str(backbone.dtype),
        "adapter": system.adapter_digest,
        "prompts": hashlib.sha256(repr(list(prompts.values())).encode()).hexdigest(),
        "sampling": asdict(decoding.sampling),
        "guidance": repr(guidance),
        "strategy": repr(strategy),
        "n": chunks.programs,
        "seed": seed,
        "tasks": [task.id for task in chunks.tasks],
    }
    if guidance is not None:
        work["mask"] = backbone.mask_id
        work["code"] = [code_digest(part) for part in (guidance.negative, guidance.gate, guidance.rule)]
    if strategy is not None:
        work["code of the strategy"] = code_digest(strategy)
    if decoding.engine == "vllm":
        work["engine"] = decoding.engine_facts()
    first: JudgedPrograms | None = None
    if decoding.after_failure:
        refuse_without_public_tests(chunks.tasks)
        plainly = system.with_decoding(decoding.plain(), f"{system.name}, first answers")
        first = sample_and_judge(plainly, chunks.tasks, chunks.programs, judge, seed=seed)
        work["tests"] = [digest_of_tests(chunks.tasks), asdict(judge.limits), judge.level, judging_digest()]
        if decoding.second_try:
            work["seed"] = seed = seed + FRESH_SEED
    store = ChunkStore(judge.cache / "completions", Completion, work, chunks.keys)
    seconds: list[float] = []  # of the chunks that are sampled whole in this process

    def sample(key: str, advance: Callable[[int], None]) -> list[Completion]:
        tasks = chunks.tasks_of(key)
        earlier = None if first is None else first.of([task.id for task in tasks])
        wanted = [range(chunks.programs)] * len(tasks) if earlier is None else earlier.failing_public()
        first_row = {task.id: i * chunks.programs for i, task in enumerate(tasks)}
        with store.journal(key) as journal:  # of a killed run: its programs are not made again
            made = {row: from_json(Completion, journal.read(row)) for row in journal}

            def ended(completion: Completion) -> None:
                row = first_row[completion.task_id] + completion.sample
                journal.add(row, completion)
                made[row] = completion
                advance(1)

            advance(len(made))
            stored, started = len(made), time.monotonic()
            missing = [
                [one for one in some if first_row[task.id] + one not in made]
                for task, some in zip(tasks, wanted, strict=True)
            ]
            _generate(system, [(task.id, prompts[task.id]) for task in tasks], chunks.programs, seed, missing, ended)
            if not stored:
                seconds.append(time.monotonic() - started)
        completions = [made[row] for row in sorted(made)]
        if earlier is None:
            return completions
        advance(len(earlier.completions) - len(completions))
        return earlier.replaced(completions)

    chunks.compute(store, f"{system.name}: sampling programs", sample)
    drawn = list(store.records())
    if first is not None:
        again = {
            (row[0], i) for row, failed in zip(first.by_task(), first.failing_public(), strict=True) for i in failed
        }
        drawn = first.completions + [one for one in drawn if (one.task_id, one.sample) in again]
    whole = first is None and len(seconds) == len(chunks.keys)
    cost = Cost(len(drawn), sum(completion.tokens for completion in drawn))
    return store, cost, round(sum(seconds), 2) if whole else None


def _generate(
    system: LoadedSystem,
    prompts: Sequence[tuple[str, Prompt]],
    n: int,
    seed: int,
    samples: Sequence[Sequence[int]],
    ended: Callable[[Completion], None],
) -> None:
    """Make these of the `n` samples of each prompt, with the engine of the system's decoding."""
    backbone, decoding = system.policy.backbone, system.decoding
    prefix: Any = system.policy.prefix
    if decoding.engine == "vllm":
        from cptlab.serving.sampling import generate_with_vllm

        generate_with_vllm(backbone, prompts, decoding.sampling, prefix=prefix, seed=seed, samples=samples, ended=ended)
        return
    for _ in generate(
        backbone,
        prompts,
        n,
        decoding.sampling,
        prefix=prefix,
        guidance=decoding.guidance,
        strategy=decoding.strategy,
        seed=seed,
        samples=samples,
        token_budget=decoding.token_budget,
        ended=ended,
    ):
        pass


def _clean(system: LoadedSystem, answers: ChunkStore, chunks: TaskChunks, judge: Judge) -> ChunkStore:
    """Take the programs out of the answers. Answers are kept as they are, so that another cleaning needs no sampling."""
    tasks = {task.id: (task, system.shown_prompt(task)) for task in chunks.tasks}
    work = {
        "completions": answers.fingerprint,
        "cleaning": [folder_digest("judging/cleaning"), inspect.getsource(cleaned)],
        "tasks": digest_of(list(chunks.tasks)),
    }
    store = ChunkStore(judge.cache / "programs", Completion, work, chunks.keys)

    def clean(key: str, advance: Callable[[int], None]) -> list[Completion]:
        made = [cleaned(completion, *tasks[completion.task_id]) for completion in answers.read(key)]
        advance(len(made))
        return made

    chunks.compute(store, f"{system.name}: cleaning programs", clean)
    return store


def _keep(
    system: LoadedSystem, drawn: ChunkStore, scores: ChunkStore | None, chunks: TaskChunks, judge: Judge
) -> ChunkStore:
    """Choose among the drawn programs and post-process those that are kept. The raw texts stay as they are."""
    selection, steps = system.selection, system.post_processing
    work: dict[str, Any] = {
        "completions": drawn.fingerprint,
        "scores": None if scores is None else scores.fingerprint,
        "selection": None if selection is None else [repr(selection), code_digest(selection)],
        "post_processing": [[repr(step), code_digest(step), step.versions()] for step in steps],
    }
    store = ChunkStore(judge.cache / "kept", Completion, work, chunks.keys)

    def keep(key: str, advance: Callable[[int], None]) -> list[Completion]:
        completions = drawn.read(key)
        if selection is not None and scores is not None:
            completions = _chosen(completions, scores.read(key), selection, chunks.programs)
        programs = [completion.program for completion in completions]
        for step in steps:
            programs = step.apply(programs)
        advance(len(programs))
        return [replace(one, program=program) for one, program in zip(completions, programs, strict=True)]

    chunks.compute(store, f"{system.name}: choosing and repairing", keep)
    return store


def _chosen(completions: list[Completion], qualities: list[Quality], selection: Selection, n: int) -> list[Completion]:
    """Keep one of every `draws` programs that follow each other; they become samples 0 to n - 1 of their task."""
    found = []
    for start in range(0, len(completions), selection.draws):
        some = slice(start, start + selection.draws)
        chosen = completions[some][selection.choose(qualities[some])]
        found.append(replace(chosen, sample=len(found) % n))
    return found
