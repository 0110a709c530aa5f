"""A system's programs with their scores and verdicts, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cptlab.metrics.programs import JudgedProgram, judged_program
from cptlab.records import Completion, Quality, Verdict
from cptlab.storage.jsonl import write_jsonl


@dataclass(frozen=True)
class Cost:
    """The programs and tokens drawn per kept program."""

    programs: float
    tokens: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class JudgedPrograms:
    """Line-aligned: the i-th completion, its score and its verdict. n completions a task, in task order.

    `seconds`: how long sampling took; None where any program was stored before.
    """

    completions: list[Completion]
    qualities: list[Quality]
    verdicts: list[Verdict]
    cost: Cost
    seconds: float | None = field(default=None, compare=False)

    def by_task(self) -> Iterator[tuple[str, list[Completion], list[Quality], list[Verdict]]]:
        """Yield (task id, completions, qualities, verdicts) for each task."""
        start = 0
        while start < len(self.completions):
            task_id, end = self.completions[start].task_id, start
            while end < len(self.completions) and self.completions[end].task_id == task_id:
                end += 1
            yield task_id, self.completions[start:end], self.qualities[start:end], self.verdicts[start:end]
            start = end

    def results(self) -> dict[str, list[JudgedProgram]]:
        """Return the programs of each task, as metrics.summary takes them."""
        return {task_id: list(map(judged_program, *records)) for task_id, *records in self.by_task()}

    def failing_public(self) -> list[list[int]]:
        """Return, for each task, the samples that do not pass all public tests."""
        return [
            [
                completion.sample
                for completion, verdict in zip(completions, verdicts, strict=True)
                if verdict.public_passed < verdict.public_total
            ]
            for _, completions, _, verdicts in self.by_task()
        ]

    def replaced(self, made: Sequence[Completion]) -> list[Completion]:
        """Return the completions, with those of `made` in the place of their namesakes."""
        new = {(completion.task_id, completion.sample): completion for completion in made}
        return [new.get((old.task_id, old.sample), old) for old in self.completions]

    def write(self, directory: Path) -> None:
        """Write completions.jsonl, quality.jsonl and verdicts.jsonl of a system in an evaluation run."""
        write_jsonl(directory / "completions.jsonl", self.completions)
        write_jsonl(directory / "quality.jsonl", self.qualities)
        write_jsonl(directory / "verdicts.jsonl", self.verdicts)
