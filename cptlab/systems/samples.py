"""A model's programs for a list of tasks, each with its score and verdict: made once, kept on disk, resumed.

The stored files are found again by what they depend on (backbone, prefix, tasks, sampling, seed, n), so a killed run
goes on where it was and an evaluation of the same base model is not repeated by every run of a sweep.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cptlab.adapters import Prefix
from cptlab.backbone import Backbone
from cptlab.decoding import Guidance, Sampling, Strategy, generate
from cptlab.decoding.engine import TOKEN_BUDGET
from cptlab.errors import UserError
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.progress import progress_bar
from cptlab.records import Completion, Prompt, Quality, Task, Verdict
from cptlab.storage.chunk_store import ChunkStore
from cptlab.storage.jsonl import write_jsonl
from cptlab.tasks.benchmark import digest_of
from cptlab.tasks.template import apply_template

CHUNK_PROGRAMS = 640  # programs that a kill can cost at most


@dataclass(frozen=True)
class Judged:
    """Line-aligned: the i-th completion, its score and its verdict. n completions a task, in task order."""

    completions: list[Completion]
    qualities: list[Quality]
    verdicts: list[Verdict]

    def by_task(self) -> Iterator[tuple[str, list[Completion], list[Quality], list[Verdict]]]:
        """(task id, completions, qualities, verdicts) for each task."""
        start = 0
        while start < len(self.completions):
            task_id, end = self.completions[start].task_id, start
            while end < len(self.completions) and self.completions[end].task_id == task_id:
                end += 1
            yield task_id, self.completions[start:end], self.qualities[start:end], self.verdicts[start:end]
            start = end

    def results(self) -> tuple[dict[str, list[Quality]], dict[str, list[Verdict]]]:
        """(qualities, verdicts) of each task, as judging.summary takes them."""
        rows = list(self.by_task())
        return {row[0]: row[2] for row in rows}, {row[0]: row[3] for row in rows}

    def of(self, task_ids: Sequence[str]) -> Judged:
        """The rows of these tasks."""
        wanted = set(task_ids)
        rows = [i for i, completion in enumerate(self.completions) if completion.task_id in wanted]
        return Judged(*([part[i] for i in rows] for part in (self.completions, self.qualities, self.verdicts)))

    def failing_public(self) -> list[list[int]]:
        """Of each task, the samples that do not pass all public tests."""
        return [[completion.sample for completion, verdict in zip(completions, verdicts, strict=True)
                 if verdict.public_passed < verdict.public_total] for _, completions, _, verdicts in self.by_task()]

    def replaced(self, made: Sequence[Completion]) -> list[Completion]:
        """The completions, with those of `made` in the place of their namesakes."""
        new = {(completion.task_id, completion.sample): completion for completion in made}
        return [new.get((old.task_id, old.sample), old) for old in self.completions]

    def write(self, directory: Path) -> None:
        """completions.jsonl, quality.jsonl and verdicts.jsonl of an evaluation run's system."""
        write_jsonl(directory / "completions.jsonl", self.completions)
        write_jsonl(directory / "quality.jsonl", self.qualities)
        write_jsonl(directory / "verdicts.jsonl", self.verdicts)


def sample_and_judge(
    backbone: Backbone, tasks: Sequence[Task], n: int, sampling: Sampling, *, cache: Path, seed: int = 0,
    prefix: Prefix | None = None, guidance: Guidance | None = None, strategy: Strategy | None = None,
    token_budget: int = TOKEN_BUDGET, limits: Limits | None = None, extra_disabled: Sequence[str] = (),
    workers: int | None = None, sandbox: str = "landlock", title: str = "",
) -> Judged:
    """`n` programs for each task, scored by pylint and run on the tests.

    With a guidance whose gate opens after a failure, a program is made without guidance first, and made again, with it,
    where that fails a public test. `sandbox`: the weakest that will do (judging/sandbox/levels.py). `title` names the system
    in the progress bars. Raises UserError where a prompt does not fit the context, and where a choice makes no sense here.
    """
    prompts = {task.id: prompt_of(task, backbone) for task in tasks}
    per_chunk = max(1, CHUNK_PROGRAMS // n)
    groups = [tasks[i:i + per_chunk] for i in range(0, len(tasks), per_chunk)]
    keys = [str(i) for i in range(len(groups))]
    work: dict[str, Any] = {
        "backbone": backbone.fingerprint,
        "dtype": str(next(backbone.model.parameters()).dtype),
        "prefix": None if prefix is None else _digest(prefix),
        "prompts": hashlib.sha256(repr(list(prompts.values())).encode()).hexdigest(),
        "sampling": asdict(sampling), "guidance": repr(guidance), "strategy": repr(strategy),
        "n": n, "seed": seed, "tasks": [task.id for task in tasks],
    }
    if guidance is not None:
        work["mask"] = backbone.mask_id
        work["code"] = [_code(part) for part in (guidance.negative, guidance.gate, guidance.rule)]
    if strategy is not None:
        work["code of the strategy"] = _code(strategy)
    first: Judged | None = None
    if guidance is not None and getattr(guidance.gate, "after_failure", False):
        _refuse_without_public_tests(tasks)
        first = sample_and_judge(
            backbone, tasks, n, sampling, cache=cache, seed=seed, prefix=prefix, strategy=strategy,
            token_budget=token_budget, limits=limits, extra_disabled=extra_disabled, workers=workers, sandbox=sandbox,
            title=f"{title}, first answers",
        )
        work["tests"] = _digest_of_tests(tasks)
    sampled = ChunkStore(cache / "completions", Completion, work, keys)

    def sample(key: str) -> list[Completion]:
        chosen = [(task.id, prompts[task.id]) for task in groups[int(key)]]
        earlier = None if first is None else first.of([task.id for task in groups[int(key)]])
        wanted = None if earlier is None else earlier.failing_public()
        rows = generate(backbone, chosen, n, sampling, prefix=prefix, guidance=guidance, strategy=strategy, seed=seed,
                        samples=wanted, token_budget=token_budget, progress=advance)
        if earlier is not None:
            advance(len(earlier.completions) - sum(map(len, wanted)))
        made = [completion for row in rows for completion in row]
        return made if earlier is None else earlier.replaced(made)

    with progress_bar(f"{title}: sampling programs", n * len(tasks), "programs") as advance:
        advance(n * len(tasks) - _pending(sampled, groups, n))
        sampled.compute(sample)
    return _judged(sampled, groups, n, cache=cache, limits=limits or Limits(), extra_disabled=extra_disabled,
                   workers=workers, sandbox=sandbox, title=title)


def _judged(
    sampled: ChunkStore, groups: list[Sequence[Task]], n: int, *, cache: Path, limits: Limits,
    extra_disabled: Sequence[str], workers: int | None, sandbox: str, title: str,
) -> Judged:
    """Scores and verdicts of stored programs."""
    tasks = [task for group in groups for task in group]
    by_id, keys = {task.id: task for task in tasks}, [str(i) for i in range(len(groups))]
    total, work = n * len(tasks), {"completions": sampled.fingerprint}
    scored = ChunkStore(cache / "quality", Quality, work | {"pylint": version("pylint"), "off": sorted(extra_disabled)}, keys)

    def score(key: str) -> list[Quality]:
        programs = [completion.program for completion in sampled.read(key)]
        return score_programs(programs, workers=workers, extra_disabled=extra_disabled, cache_dir=cache / "pylint",
                              progress=advance)

    with progress_bar(f"{title}: scoring with pylint", total, "programs") as advance:
        advance(total - _pending(scored, groups, n))
        scored.compute(score)

    tests = {"tests": _digest_of_tests(tasks), "limits": asdict(limits)}
    judged = ChunkStore(cache / "verdicts", Verdict, work | tests, keys)

    def judge(key: str) -> list[Verdict]:
        items = [(completion.program, by_id[completion.task_id]) for completion in sampled.read(key)]
        return judge_programs(items, workers=workers, limits=limits, progress=advance, at_least=sandbox)

    with progress_bar(f"{title}: running the tests", total, "programs") as advance:
        advance(total - _pending(judged, groups, n))
        judged.compute(judge)
    return Judged(list(sampled.records()), list(scored.records()), list(judged.records()))


def _code(part: Any) -> str:
    """A digest of the file that a gate or the like is written in: an edited one makes other programs."""
    module = sys.modules[type(part).__module__]
    try:
        return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
    except (OSError, TypeError):  # written at a prompt
        return f"{type(part).__module__}.{type(part).__qualname__}"


def _refuse_without_public_tests(tasks: Sequence[Task]) -> None:
    without = [task.id for task in tasks if not task.public_tests]
    if without:
        raise UserError(
            f"decoding/gate=failed_tests asks for public tests, and {len(without)} of {len(tasks)} tasks have none, such as "
            f"{without[0]}. Choose another gate, or another benchmark."
        )


def _digest_of_tests(tasks: Sequence[Task]) -> str:
    return digest_of([replace(task, prompt=Prompt(""), canonical_solution=None) for task in tasks])


def prompt_of(task: Task, backbone: Backbone) -> Prompt:
    """What this backbone is shown for a task: the benchmark's prompt, in the backbone's template if it has one."""
    return apply_template(task.prompt, backbone.prompt_template) if backbone.prompt_template else task.prompt


def _pending(store: ChunkStore, groups: list[Sequence[Task]], n: int) -> int:
    return n * sum(len(groups[int(key)]) for key in store.missing())


def _digest(prefix: Prefix) -> str:
    return hashlib.sha256(prefix.collapsed().detach().cpu().contiguous().numpy().tobytes()).hexdigest()
