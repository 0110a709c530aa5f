"""From a model's answers to verdicts: cleaning -> scores and selection -> post-processing -> scores -> verdicts.

No stage needs the model, so they can run where it is not, such as on machines without a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cptlab.records import Completion, Prompt, Quality
from cptlab.storage.chunk_store import ChunkStore
from cptlab.systems.chunks import Stage, TaskChunks
from cptlab.systems.cleaning import cleaned
from cptlab.systems.code_digest import code_digest, folder_digest
from cptlab.systems.judge import Judge
from cptlab.systems.system import PostProcessing, Selection
from cptlab.tasks.benchmark import digest_of


@dataclass(frozen=True)
class Judging:
    """How a system's stored answers become `n` judged programs a task. `chunks` are those of the answers.

    `prompts`: what the model was shown, by task id. Plain data: it may be handed to another process.
    """

    name: str
    answers: ChunkStore
    chunks: TaskChunks
    n: int
    judge: Judge
    prompts: Mapping[str, Prompt]
    selection: Selection | None = None
    post_processing: tuple[PostProcessing, ...] = ()

    def stages(self) -> list[Stage]:
        """Return the stages in order. The last three end with the kept programs, their scores and their verdicts."""
        chunks = replace(self.chunks, programs=self.n)
        stages = [self._cleaning()]
        if self.selection is not None:
            stages.append(self.judge.scoring(stages[0].store, self.chunks, f"{self.name}, all draws"))
        if self.selection is not None or self.post_processing:
            stages.append(self._keeping(stages[0].store, None if self.selection is None else stages[1].store, chunks))
        programs = stages[-1].store
        stages.append(self.judge.scoring(programs, chunks, self.name))
        stages.append(self.judge.testing(programs, chunks, self.name))
        return stages

    def _cleaning(self) -> Stage:
        """Take the programs out of the answers. Answers are kept as they are, so that another cleaning needs no sampling."""
        tasks = {task.id: (task, self.prompts[task.id]) for task in self.chunks.tasks}
        work = {
            "completions": self.answers.fingerprint,
            "cleaning": [folder_digest("judging/cleaning"), inspect.getsource(cleaned)],
            "tasks": digest_of(list(self.chunks.tasks)),
        }
        store = ChunkStore(self.judge.cache / "programs", Completion, work, self.chunks.keys)

        def clean(key: str, advance: Callable[[int], None]) -> list[Completion]:
            made = [cleaned(completion, *tasks[completion.task_id]) for completion in self.answers.read(key)]
            advance(len(made))
            return made

        return Stage(f"{self.name}: cleaning programs", self.chunks, store, clean)

    def _keeping(self, drawn: ChunkStore, scores: ChunkStore | None, chunks: TaskChunks) -> Stage:
        """Choose among the drawn programs and post-process those that are kept. The raw texts stay as they are."""
        selection, steps = self.selection, self.post_processing
        work: dict[str, Any] = {
            "completions": drawn.fingerprint,
            "scores": None if scores is None else scores.fingerprint,
            "selection": None if selection is None else [repr(selection), code_digest(selection)],
            "post_processing": [[repr(step), code_digest(step), step.versions()] for step in steps],
        }
        store = ChunkStore(self.judge.cache / "kept", Completion, work, chunks.keys)

        def keep(key: str, advance: Callable[[int], None]) -> list[Completion]:
            completions = drawn.read(key)
            if selection is not None and scores is not None:
                completions = _chosen(completions, scores.read(key), selection, self.n)
            programs = [completion.program for completion in completions]
            for step in steps:
                programs = step.apply(programs)
            advance(len(programs))
            return [replace(one, program=program) for one, program in zip(completions, programs, strict=True)]

        return Stage(f"{self.name}: choosing and repairing", chunks, store, keep)


def _chosen(completions: list[Completion], qualities: list[Quality], selection: Selection, n: int) -> list[Completion]:
    """Keep one of every `draws` programs that follow each other; they become samples 0 to n - 1 of their task."""
    found = []
    for start in range(0, len(completions), selection.draws):
        some = slice(start, start + selection.draws)
        chosen = completions[some][selection.choose(qualities[some])]
        found.append(replace(chosen, sample=len(found) % n))
    return found
