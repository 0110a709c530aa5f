"""Judge a file of programs that other tools made, as a model's own programs are judged.

Texts and results stay on disk: memory grows by about a kilobyte a row. Every finished program is a line of a journal, so
a killed run goes on where it was and ends with the same files. `judged_with.json` says what each file of results was made
of, and its SHA-256: one that was made of anything else is never read.
"""

from __future__ import annotations

import functools
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cptlab.judging.cleaning.clean import clean, with_context
from cptlab.judging.execution.executor import probe_sandbox
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.scorers.pylint import Pylint
from cptlab.judging.scorers.scorer import Scorer
from cptlab.judging.verdicts.judge import judge_stream
from cptlab.metrics.programs import JudgedProgram, hash_of_text, lines_of_code
from cptlab.progress import progress_bar
from cptlab.records import Completion, Message, Quality, Task, Verdict
from cptlab.storage.atomic import write_json, write_lines
from cptlab.storage.checksums import file_digest
from cptlab.storage.damaged import set_aside
from cptlab.storage.digests import fingerprint
from cptlab.storage.journal import Journal
from cptlab.storage.jsonl import dump_line, to_json
from cptlab.systems.code_digest import folder_digest, judging_digest
from cptlab.systems.completions import CompletionsFile, read_rows
from cptlab.tasks.benchmark import digest_of

COMPLETIONS, QUALITY, VERDICTS = "completions.jsonl", "quality.jsonl", "verdicts.jsonl"
JUDGED_WITH = "judged_with.json"
Todo = Iterable[tuple[int, dict[str, Any]]]  # rows and their completions


def judge_file(
    file: CompletionsFile,
    tasks: Sequence[Task],
    directory: Path,
    *,
    cache: Path,
    scorer: Scorer = Pylint(),
    workers: int | None = None,
    sandbox: str = "landlock",
    limits: Limits | None = None,
    context: str = "program",
    special_tokens: Sequence[str] = (),
    title: str = "given",
) -> None:
    """Write completions, quality and verdicts of the file's rows into `directory`, line i of each for row i.

    Go on with what an earlier call left there for the same file, tasks, limits, scorer, sandbox level and code; all other
    results are made anew. Equal programs for a task are run once, equal programs linted once. `sandbox`: the weakest level
    that will do (judging/sandbox/levels.py). `limits`: of each program, by default `Limits()`.
    `context`: "prompt" adds what a program lacks of the prompt. `special_tokens`: as `clean` takes them.
    """
    limits = limits or Limits()
    by_id = {task.id: task for task in tasks}
    directory.mkdir(parents=True, exist_ok=True)
    programs = [file.digest, digest_of(task for task in tasks if task.id in file.counts)]
    programs += [folder_digest("judging/cleaning"), context, *special_tokens]
    level = probe_sandbox(sandbox)["level"]
    results = _Results(
        directory,
        {
            COMPLETIONS: fingerprint(programs),
            VERDICTS: fingerprint([programs, asdict(limits), level, judging_digest()]),
            QUALITY: fingerprint([programs, scorer.identity(), judging_digest()]),
        },
    )
    if not results.has(COMPLETIONS):
        with progress_bar(f"{title}: cleaning programs", file.rows, "programs") as advance:
            results.write(COMPLETIONS, _counted(_completions(file, by_id, context, special_tokens), advance))

    def verdicts(todo: Todo) -> Iterator[tuple[int, Verdict]]:
        items = ((row, completion["program"], by_id[completion["task_id"]]) for row, completion in todo)
        return judge_stream(items, workers=workers, limits=limits, at_least=sandbox)

    def qualities(todo: Todo) -> Iterator[tuple[int, Quality]]:
        items = ((row, completion["program"]) for row, completion in todo)
        return scorer.stream(items, workers=workers, cache=cache)

    results.make(VERDICTS, Verdict, ("task_id", "program"), verdicts, f"{title}: running the tests")
    results.make(QUALITY, Quality, ("program",), qualities, f"{title}: scoring with {scorer.name}")


def _completions(
    file: CompletionsFile, by_id: dict[str, Task], context: str, special_tokens: Sequence[str]
) -> Iterator[str]:
    samples: Counter[str] = Counter()
    for task_id, text, is_solution in read_rows(file.path, list(by_id.values())):
        if task_id not in file.counts:  # it is left out of the benchmark
            continue
        program = clean(text, by_id[task_id], is_solution, special_tokens)
        cleaned = program != (text if is_solution else by_id[task_id].prompt.code + text)
        if context == "prompt":
            program = with_context(program, by_id[task_id])
        yield to_json(Completion(task_id, samples[task_id], text, program, tokens=0, finished=True, cleaned=cleaned))
        samples[task_id] += 1


class _Results:
    """The files of results in a directory, of which each is kept only if it was made of what its name has in `made_of`."""

    def __init__(self, directory: Path, made_of: dict[str, str]) -> None:
        self.directory, self.made_of = directory, made_of
        self._note = directory / JUDGED_WITH
        found = self._read_note()
        self._known = {name: found[name] for name in made_of if found.get(name, {}).get("made_of") == made_of[name]}
        for name in made_of:
            path = directory / name
            if path.is_dir():
                set_aside(path, "it is a directory")
            if name not in self._known:
                path.unlink(missing_ok=True)
                journal_of(path).unlink(missing_ok=True)
                self._known[name] = {"made_of": made_of[name]}
            elif path.exists() and self._known[name].get("sha256", "") not in ("", file_digest(path)):
                set_aside(path, "it is not as it was written")
        write_json(self._note, self._known)

    def has(self, name: str) -> bool:
        """Whether a file is there, whole."""
        return "sha256" in self._known[name] and (self.directory / name).exists()

    def write(self, name: str, lines: Iterable[str]) -> None:
        write_lines(self.directory / name, lines)
        self._known[name]["sha256"] = file_digest(self.directory / name)
        write_json(self._note, self._known)

    def make(
        self, name: str, kind: type, same: Sequence[str], work: Callable[[Todo], Iterator[tuple[int, Any]]], title: str
    ) -> None:
        """Write a record of `kind` for each completion. Those whose fields `same` are equal are worked on once."""
        if self.has(name):
            return
        completions = self.directory / COMPLETIONS
        first: dict[bytes, int] = {}  # the first row of equal programs
        rows = array("q")
        for completion in _read(completions):
            key = hashlib.sha256(repr([completion[name] for name in same]).encode()).digest()[:16]
            rows.append(first.setdefault(key, len(rows)))
        equals = Counter(rows)
        del first
        with Journal(journal_of(self.directory / name), kind) as journal:
            todo = (
                (row, completion)
                for row, completion in enumerate(_read(completions))
                if rows[row] == row and row not in journal
            )
            done = sum(equals[row] for row in journal)
            with progress_bar(title, len(rows), "programs", done=done) as advance:
                if len(journal) < len(equals):
                    for row, record in work(todo):
                        journal.add(row, record)
                        advance(equals[row])
            self.write(name, (journal.read(row) for row in rows))

    def _read_note(self) -> dict[str, Any]:
        if not self._note.exists():
            return {}
        try:
            found = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if isinstance(found, dict) and all(isinstance(one, dict) for one in found.values()):
            return found
        set_aside(self._note, "it is not as it was written")
        return {}


def journal_of(results: Path) -> Path:
    return results.with_suffix(".journal")


def drop_journals(directory: Path) -> None:
    """Remove what only a run that goes on needs."""
    for name in (QUALITY, VERDICTS):
        journal_of(directory / name).unlink(missing_ok=True)


def count_lacking_context(
    directory: Path, tasks: Sequence[Task], *, workers: int | None, sandbox: str, limits: Limits
) -> int:
    """Return how many programs fail for the sole reason that they lack what the prompt gives: with it they pass."""
    by_id = {task.id: task for task in tasks}
    lacking: Counter[tuple[str, str]] = Counter()
    for completion, _, verdict in _results(directory):
        if verdict["status"] == "error":
            program = with_context(completion["program"], by_id[completion["task_id"]])
            if program != completion["program"]:
                lacking[completion["task_id"], program] += 1
    items = ((key, key[1], by_id[key[0]]) for key in lacking)
    judged = judge_stream(items, workers=workers, limits=limits, at_least=sandbox)
    return sum(lacking[key] for key, verdict in judged if verdict.passed) if lacking else 0


def write_row_verdicts(path: Path, directory: Path) -> None:
    """Write one line a row in file order: {row, task_id, verdict, reason, tests, quality, messages}, and by_rule if any."""
    write_lines(path, map(dump_line, _row_verdicts(directory)))


def _row_verdicts(directory: Path) -> Iterator[dict[str, Any]]:
    for row, (completion, quality, verdict) in enumerate(_results(directory)):
        tests = {part: verdict[f"public_{part}"] + verdict[f"hidden_{part}"] for part in ("passed", "total")}
        yield {
            "row": row,
            "task_id": completion["task_id"],
            "verdict": verdict["status"],
            "reason": verdict["reason"],
            "tests": tests,
            "quality": quality["score"],
            "messages": [{name: message[name] for name in ("id", "line", "symbol")} for message in quality["messages"]],
        } | ({"by_rule": verdict["by_rule"]} if verdict["by_rule"] else {})


def results_by_task(directory: Path) -> dict[str, list[JudgedProgram]]:
    """Return the programs of each task for metrics.summary, without texts and reasons, and equal messages as one object."""
    message = functools.cache(Message)
    programs: dict[str, list[JudgedProgram]] = {}
    for completion, quality, verdict in _results(directory):
        messages = tuple(message(**found) for found in quality["messages"])
        program = JudgedProgram(
            Quality(
                quality["score"],
                quality["statements"],
                quality["fatal"],
                messages,
                scorer=quality.get("scorer", "pylint"),
            ),
            Verdict(verdict["status"], by_rule=verdict["by_rule"]),
            lines_of_code(completion["program"]),
            cleaned=completion.get("cleaned", False),
            text_hash=hash_of_text(completion["program"]),
        )
        programs.setdefault(completion["task_id"], []).append(program)
    return programs


def _results(directory: Path) -> Iterator[tuple[dict[str, Any], ...]]:
    return zip(*(_read(directory / name) for name in (COMPLETIONS, QUALITY, VERDICTS)), strict=True)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file that this module wrote."""
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _counted(lines: Iterable[str], advance: Callable[[int], None]) -> Iterator[str]:
    for line in lines:
        yield line
        advance(1)
