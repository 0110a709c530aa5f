"""A linter that is run on many files at once, as a scorer: its cache, its batches, and what it cannot read.

The linter is a process of its own under limits (limited_process.py), and its exit code or output says whether it came to
its end. Where it did not, the batch is cut in halves, so that one program costs no other its score. A program that Python
does not parse is not shown to the linter. It scores 0, as does one without statements.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.judging.lint.pylint_score import CRASH, TIMEOUT, installed_packages
from cptlab.judging.lint.score_cache import ScoreCache
from cptlab.judging.scorers.limited_process import Finished, run_limited
from cptlab.judging.scorers.scorer import Items
from cptlab.judging.scorers.source import count_statements, without_pragmas
from cptlab.judging.workers.server_pool import available_cpus
from cptlab.records import Message, Quality

BATCH = 64  # programs that one process gets
FORMULA_VERSION = "1"  # raise it when a score changes for the same messages
NOT_PARSED = "syntax-error"
# What most linters say something of: a command that prints text, or messages of another form, may print nothing of a clean one
TRIAL = "import os, sys\n\ndef f(a, b=[]):\n    x = 1\n    if a == None: return eval(undefined)\n"


@dataclass
class Reading:
    """What a linter says of one file: messages, and a figure where it measures one."""

    messages: list[Message] = field(default_factory=list)
    figure: float = 0.0


class Unreadable(Exception):
    """What a linter printed is not what it prints when it comes to its end."""


class ToolScorer(ABC):
    """The base of scorers that run a linter. `name` is how it is called."""

    name: str
    remedy = "Correct its settings, or install its tool."

    @abstractmethod
    def command(self, names: Sequence[str]) -> list[str]:
        """Return the command that checks the files with these names, in the folder that holds them."""

    @abstractmethod
    def read(self, finished: Finished) -> Mapping[str, Reading]:
        """Return what the command printed, by the name of the file; a file without messages may be absent.

        Raises Unreadable.
        """

    @abstractmethod
    def score(self, reading: Reading, statements: int) -> float:
        """Return the score, in [0, 10], of a program with at least one statement."""

    @abstractmethod
    def identity(self) -> dict[str, Any]: ...

    def check(self) -> None:
        """Run the linter on a program with mistakes. Raises UserError with what it says where that does not work."""
        finished, found = self._run([TRIAL])
        if found is None:
            said = " ".join((finished.errors or finished.output).split())[:500] or f"exit code {finished.code}"
            if finished.output and not finished.errors:
                said = f"what its linter prints cannot be read ({said})"
            raise UserError(f"The scorer {self.name} does not run: {said}. {self.remedy}")

    def stream(self, items: Items, *, workers: int | None, cache: Path | None) -> Iterator[tuple[Any, Quality]]:
        items, workers = iter(items), workers or available_cpus()
        with ExitStack() as stack:
            context = json.dumps([FORMULA_VERSION, self.identity(), installed_packages()], sort_keys=True)
            kept = None if cache is None else stack.enter_context(ScoreCache(cache / "scores", context))
            threads = stack.enter_context(ThreadPoolExecutor(workers))
            while some := list(itertools.islice(items, workers * BATCH)):
                todo = []
                for key, program in some:
                    quality = kept.get(program) if kept else None
                    if quality is None:
                        todo.append((key, program))
                    else:
                        yield key, quality
                size = max(1, -(-len(todo) // workers))
                batches = [todo[start : start + size] for start in range(0, len(todo), size)]
                scored = threads.map(lambda batch: self._score([program for _, program in batch]), batches)
                for batch, qualities in zip(batches, scored, strict=True):
                    for (key, program), quality in zip(batch, qualities, strict=True):
                        if kept and quality.messages[:1] not in ((TIMEOUT,), (CRASH,)):
                            kept.put(program, quality)
                        yield key, quality

    def _score(self, programs: Sequence[str]) -> list[Quality]:
        counted = [count_statements(program) for program in programs]
        cleaned = [without_pragmas(program) for program in programs]
        shown = [i for i, count in enumerate(counted) if isinstance(count, int) and count]
        readings = dict(zip(shown, self._readings([cleaned[i][0] for i in shown]), strict=True))
        return [self._quality(count, readings.get(i), cleaned[i][1]) for i, count in enumerate(counted)]

    def _quality(self, count: int | SyntaxError, reading: Reading | None, pragmas: int) -> Quality:
        if isinstance(count, SyntaxError):
            message = Message(NOT_PARSED, NOT_PARSED, count.lineno or 1)
            return Quality(0.0, 0, True, (message,), pragmas, self.name)
        if reading is None:  # there are no statements
            return Quality(0.0, count, False, (), pragmas, self.name)
        messages = tuple(sorted(reading.messages, key=lambda one: (one.line, one.id)))
        fatal = messages in ((TIMEOUT,), (CRASH,))
        return Quality(0.0 if fatal else self.score(reading, count), count, fatal, messages, pragmas, self.name)

    def _readings(self, programs: Sequence[str]) -> list[Reading]:
        """Return what is said of each program; TIMEOUT or CRASH alone where the linter does not come to its end."""
        if not programs:
            return []
        finished, found = self._run(programs)
        if found is not None:
            return found
        if len(programs) == 1:
            return [Reading([TIMEOUT if finished.timed_out else CRASH])]
        middle = len(programs) // 2
        return self._readings(programs[:middle]) + self._readings(programs[middle:])

    def _run(self, programs: Sequence[str]) -> tuple[Finished, list[Reading] | None]:
        with tempfile.TemporaryDirectory(prefix="cptlab-lint-") as name:
            folder = Path(name)
            names = [f"program_{i}.py" for i in range(len(programs))]
            for file, program in zip(names, programs, strict=True):
                (folder / file).write_bytes(program.encode("utf-8", "surrogatepass"))
            finished = run_limited(self.command(names), folder)
        if finished.timed_out or finished.code < 0:
            return finished, None
        try:
            found = self.read(finished)
        except Unreadable:
            return finished, None
        by_name = {Path(path).name: reading for path, reading in found.items()}
        return finished, [by_name.get(name) or Reading() for name in names]


def read_json(text: str) -> Any:
    """Return the JSON of a linter's output: a document, or one a line. Raises Unreadable."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise Unreadable from None
