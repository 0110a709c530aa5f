"""A system's programs for a list of tasks, each with its score and verdict: made once, kept on disk, resumed.

    prompts -> sampling (-> feedback: again) -> cleaning -> selection -> post-processing -> scores -> verdicts

Every step that takes long is a store below the cache, found again by what it depends on (backbone, adapter, prompts,
decoding, seed, n, …). So a killed run goes on where it was, and a base model's programs are not made again by every run
of a sweep. Each program is kept as soon as it ends. Those that a kill leaves unfinished are made again in other batches,
from the same random numbers: the same programs up to rounding (decoding/sampling.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from cptlab.decoding import generate
from cptlab.records import Completion, Prompt, Quality, Task, Verdict
from cptlab.storage.chunk_store import ChunkStore
from cptlab.storage.jsonl import from_json
from cptlab.systems.chunks import Stage, TaskChunks
from cptlab.systems.code_digest import code_digest, folder_digest, judging_digest
from cptlab.systems.earlier_answers import EarlierAnswers, choice
from cptlab.systems.judge import Judge, digest_of_tests
from cptlab.systems.judged_programs import Cost, JudgedPrograms
from cptlab.systems.judging_stages import Judging
from cptlab.systems.loading import LoadedSystem, refuse_without_public_tests
from cptlab.systems.questions import Question, questions

FRESH_SEED = 1 << 32  # added to the seed of a plain second try; seeds of first tries are smaller
CHUNK_PROGRAMS = 640  # programs that are stored, scored and judged together


def sample_and_judge(
    system: LoadedSystem, tasks: Sequence[Task], n: int, judge: Judge, *, seed: int = 0
) -> JudgedPrograms:
    """Make `n` programs for each task, score them and run them on the tests.

    With a guidance whose gate opens after a failure, a program is made without guidance first, and made again, with it
    and the same random numbers, where that fails a public test. A plain second try has other random numbers, and so have
    answers to a prompt with feedback. With a
    selection, the tests run on the programs that are kept. Raises UserError where a prompt does not fit the context, and
    for a choice that makes no sense here.
    """
    programs = SystemPrograms(system, tasks, n, judge, seed)
    programs.fill()
    return programs.judged()


class SystemPrograms:
    """The programs of a system for a list of tasks, as stages that fill their stores chunk by chunk.

    `sampling` needs the model; the stages of `judging` do not. `first`: for a decoding that tries again after a failure,
    the programs of the first try. A chunk depends on its tasks alone, so it does not matter who makes which.
    """

    def __init__(
        self,
        system: LoadedSystem,
        tasks: Sequence[Task],
        n: int,
        judge: Judge,
        seed: int = 0,
        chunk_programs: int = CHUNK_PROGRAMS,
    ) -> None:
        self.system, self.n, self.seed, self._judge = system, n, seed, judge
        draws = n * system.draws
        self.chunks = TaskChunks(tasks, max(1, chunk_programs // draws), draws)
        self.prompts = {task.id: system.shown_prompt(task) for task in tasks}
        self.first: SystemPrograms | None = None
        self._asked: dict[str, list[Question]] = {}  # by chunk, what is asked about first answers with feedback
        if system.decoding.after_failure or system.feedback is not None:
            if system.decoding.after_failure:
                refuse_without_public_tests(tasks)
            before = system.decoding if system.feedback is not None else system.decoding.plain()
            plainly = system.with_decoding(before, f"{system.name}, first answers")
            self.first = SystemPrograms(plainly, tasks, draws, judge, seed, chunk_programs)
        self._seconds: list[float] = []  # of the chunks that are sampled whole in this process
        self.sampling = self._sampling(judge, seed)
        self.judging = Judging(
            system.name,
            self.sampling.store,
            self.chunks,
            n,
            judge,
            self.prompts,
            system.selection,
            system.post_processing,
        )
        self.stages = [self.sampling, *self.judging.stages()]

    def fill(self, keys: Collection[str] | None = None) -> None:
        """Make those of the chunks `keys` (None: all) that are missing, stage by stage."""
        if self.first is not None:
            self.first.fill(keys)
        for stage in self.stages:
            stage.fill(keys)

    def missing(self) -> list[str]:
        """Return the keys of the chunks in which any stage is missing."""
        lacking = {key for stage in self.stages for key in stage.store.missing()}
        return [key for key in self.chunks.keys if key in lacking]

    def by_task(self) -> Iterator[tuple[str, list[Completion], list[Quality], list[Verdict]]]:
        """Yield (task id, completions, qualities, verdicts) for each task, with one chunk in memory at a time."""
        for key in self.chunks.keys:
            yield from self.judged([key]).by_task()

    def judged(self, keys: Collection[str] | None = None) -> JudgedPrograms:
        """Return the programs of the chunks `keys` (None: all), which are there, with scores, verdicts and cost.

        The cost is that of all answers together, those that were made again included. The seconds are those of the
        sampling; None where any answer was stored before.
        """
        keys = self.chunks.keys if keys is None else keys
        *_, programs, scores, verdicts = (stage.store for stage in self.stages)
        kept, qualities, found = (
            [one for key in keys for one in store.read(key)] for store in (programs, scores, verdicts)
        )
        drawn = [completion for key in keys for completion in self._drawn(key)]
        cost = Cost(len(drawn) / len(kept), sum(completion.tokens for completion in drawn) / len(kept))
        whole = self.first is None and len(self._seconds) == len(keys)
        return JudgedPrograms(kept, qualities, found, cost, round(sum(self._seconds), 2) if whole else None)

    def _drawn(self, key: str) -> list[Completion]:
        """Return all answers that were drawn for a chunk: also the first ones of those that were made again."""
        answers = self.sampling.store.read(key)
        if self.first is None:
            return answers
        first = self.first.judged([key])
        again = {
            (row[0], i) for row, failed in zip(first.by_task(), first.failing_public(), strict=True) for i in failed
        }
        if self.system.feedback is not None:
            again = {(task_id, sample) for task_id, sample, _ in self._questions(key, first)}
        return first.completions + [one for one in answers if (one.task_id, one.sample) in again]

    def _questions(self, key: str, first: JudgedPrograms) -> list[Question]:
        """Return what is asked about the first answers of a chunk, found once."""
        if key not in self._asked:
            self._asked[key] = questions(self.system, self.chunks.tasks_of(key), first, self._judge)
        return self._asked[key]

    def _sampling(self, judge: Judge, seed: int) -> Stage:
        """Return the stage that draws the answers, uncleaned."""
        system, chunks = self.system, self.chunks
        backbone, decoding = system.policy.backbone, system.decoding
        guidance, strategy = decoding.guidance, decoding.strategy
        work: dict[str, Any] = {
            "backbone": backbone.fingerprint,
            "dtype": str(backbone.dtype),
            "adapter": system.adapter_digest,
            "sampling": asdict(decoding.sampling),
            "guidance": repr(guidance),
            "strategy": repr(strategy),
            "seed": seed,
            **choice(chunks, self.prompts),
        }
        if guidance is not None:
            work["mask"] = backbone.mask_id
            work["code"] = [code_digest(part) for part in (guidance.negative, guidance.gate, guidance.rule)]
        if strategy is not None:
            work["code of the strategy"] = code_digest(strategy)
        if decoding.steering is not None:
            work["steering"] = [repr(decoding.steering), code_digest(decoding.steering)]
        if decoding.engine == "vllm":
            work["engine"] = decoding.engine_facts()
        if self.first is not None:
            work["tests"] = [digest_of_tests(chunks.tasks), asdict(judge.limits), judge.level, judging_digest()]
            if decoding.second_try or system.feedback is not None:
                work["seed"] = seed = seed + FRESH_SEED
            if system.feedback is not None:
                feedback = system.feedback
                work["feedback"] = [repr(feedback), code_digest(feedback), folder_digest("systems/feedback")]
                work["scores"] = judge.scorer.identity()
        store = ChunkStore(judge.cache / "completions", Completion, work, chunks.keys)
        others = EarlierAnswers(store) if self.first is None and strategy is None else None

        def sample(key: str, advance: Callable[[int], None]) -> list[Completion]:
            tasks = chunks.tasks_of(key)
            earlier = None if self.first is None else self.first.judged([key])
            first_row = {task.id: i * chunks.programs for i, task in enumerate(tasks)}
            asked = [(task.id, self.prompts[task.id]) for task in tasks]
            wanted: list[Sequence[int]] = [range(chunks.programs)] * len(tasks)
            if earlier is not None and system.feedback is not None:
                about = self._questions(key, earlier)
                asked = [(task_id, prompt) for task_id, _, prompt in about]
                wanted = [(sample,) for _, sample, _ in about]
            elif earlier is not None:
                wanted = list(earlier.failing_public())
            with store.journal(key) as journal:  # of a killed run: its programs are not made again
                made = {row: from_json(Completion, journal.read(row)) for row in journal}

                def ended(completion: Completion) -> None:
                    row = first_row[completion.task_id] + completion.sample
                    journal.add(row, completion)
                    made[row] = completion
                    advance(1)

                advance(len(made))
                for one in others.of([task.id for task in tasks], chunks.programs) if others else ():
                    if first_row[one.task_id] + one.sample not in made:
                        ended(one)
                stored, started = len(made), time.monotonic()
                missing = [
                    [one for one in some if first_row[task_id] + one not in made]
                    for (task_id, _), some in zip(asked, wanted, strict=True)
                ]
                _generate(system, asked, chunks.programs, seed, missing, ended)
                if not stored:
                    self._seconds.append(time.monotonic() - started)
            completions = [made[row] for row in sorted(made)]
            if earlier is None:
                return completions
            advance(len(earlier.completions) - len(completions))
            return earlier.replaced(completions)

        return Stage(f"{system.name}: sampling programs", chunks, store, sample)


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
        steering=decoding.steering,
        seed=seed,
        samples=samples,
        token_budget=decoding.token_budget,
        slots=decoding.slots,
        ended=ended,
    ):
        pass
