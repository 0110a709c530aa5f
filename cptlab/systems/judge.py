"""Score and run a system's stored programs, once for each program, judge and set of limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from cptlab.judging.execution.executor import probe_sandbox
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.scorers.pylint import Pylint
from cptlab.judging.scorers.scorer import Scorer, score_all
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.records import Prompt, Quality, Task, Verdict
from cptlab.storage.chunk_store import ChunkStore
from cptlab.storage.jsonl import from_json
from cptlab.systems.chunks import Stage, TaskChunks
from cptlab.systems.code_digest import judging_digest
from cptlab.tasks.benchmark import digest_of


@dataclass(frozen=True)
class Judge:
    """How programs are judged, and below which directory the results are kept.

    `scorer`: what quality is. `workers`: processes; None: one per core.
    `sandbox`: the weakest level that will do (judging/sandbox/levels.py). `score_cache`: whether scores are also kept by
    program, in an SQLite file, which is not for a disk that several machines write to.
    """

    cache: Path
    scorer: Scorer = Pylint()
    workers: int | None = None
    sandbox: str = "landlock"
    limits: Limits = field(default_factory=Limits)
    score_cache: bool = True

    @cached_property
    def level(self) -> str:
        """The sandbox level that programs are run at: the strongest of this machine, which verdicts may depend on."""
        return probe_sandbox(self.sandbox)["level"]

    def scoring(self, programs: ChunkStore, chunks: TaskChunks, title: str) -> Stage:
        """Return the stage that scores stored completions: a Quality each."""
        work = {
            "completions": programs.fingerprint,
            "judging": judging_digest(),
            "scorer": self.scorer.identity(),
        }
        scored = ChunkStore(self.cache / "quality", Quality, work, chunks.keys)

        def score(key: str, advance: Callable[[int], None]) -> list[Quality]:
            return self.qualities([completion.program for completion in programs.read(key)], advance)

        return Stage(f"{title}: scoring with {self.scorer.name}", chunks, scored, score)

    def qualities(self, programs: Sequence[str], progress: Callable[[int], None] | None = None) -> list[Quality]:
        """Score programs, in order. `progress` gets numbers of programs."""
        cache = self.cache if self.score_cache else None
        return score_all(self.scorer, programs, workers=self.workers, cache=cache, progress=progress)

    def verdicts(
        self, items: Sequence[tuple[str, Task]], ended: Callable[[int, Verdict], None] | None = None
    ) -> list[Verdict]:
        """Run programs on the tests of their tasks, in order. `ended` gets the place and the verdict of each."""
        return judge_programs(items, workers=self.workers, limits=self.limits, ended=ended, at_least=self.sandbox)

    def testing(self, programs: ChunkStore, chunks: TaskChunks, title: str) -> Stage:
        """Return the stage that runs stored completions on the tests of their tasks: a Verdict each."""
        by_id = {task.id: task for task in chunks.tasks}
        work = {
            "completions": programs.fingerprint,
            "tests": digest_of_tests(chunks.tasks),
            "limits": asdict(self.limits),
            "sandbox": self.level,
            "judging": judging_digest(),
        }
        judged = ChunkStore(self.cache / "verdicts", Verdict, work, chunks.keys)

        def judge(key: str, advance: Callable[[int], None]) -> list[Verdict]:
            completions = programs.read(key)
            with judged.journal(key) as journal:  # of a killed run: its verdicts are not reached again
                made = {row: from_json(Verdict, journal.read(row)) for row in journal}
                todo = [row for row in range(len(completions)) if row not in made]

                def ended(place: int, verdict: Verdict) -> None:
                    journal.add(todo[place], verdict)
                    made[todo[place]] = verdict
                    advance(1)

                advance(len(made))
                items = [(completions[row].program, by_id[completions[row].task_id]) for row in todo]
                self.verdicts(items, ended)
            return [made[row] for row in sorted(made)]

        return Stage(f"{title}: running the tests", chunks, judged, judge)


def digest_of_tests(tasks: Sequence[Task]) -> str:
    """Return a digest of all that a verdict on these tasks depends on."""
    return digest_of([replace(task, prompt=Prompt(""), question=None, canonical_solution=None) for task in tasks])
