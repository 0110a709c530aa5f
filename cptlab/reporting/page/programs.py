"""The programs of an evaluation in a page: a table of its tasks, filters, and the programs side by side.

The programs travel as compressed JSON in base64, and the script shows those of one task at a time. Examples that a rule
chose are there as HTML, too, for a browser without JavaScript.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cptlab.metrics.definitions import PYLINT, label_of
from cptlab.records import STATUSES, Completion, Message
from cptlab.reporting import side_by_side
from cptlab.reporting.evaluation import Evaluation, StoredProgram
from cptlab.reporting.layout import Table
from cptlab.reporting.page.table import to_html
from cptlab.reporting.page.text import escaped, lines_of
from cptlab.storage.jsonl import from_json, open_lines

PROGRAMS = 20_000  # in a page; some 5 MB of short programs
CHARACTERS = 20_000  # of a program; what is longer is cut
CATEGORIES = {"F": "fatal", "E": "error", "W": "warning", "R": "refactor", "C": "convention", "I": "information"}


@dataclass(frozen=True)
class Programs:
    """All programs of an evaluation. Where there are more than `PROGRAMS`, the first of each task and system."""

    evaluation: Evaluation

    @property
    def per_task(self) -> int:
        """How many programs of each task and system are shown at most."""
        counts = [len(found) for answers in self.evaluation.systems.values() for found in answers.values()]
        return max(1, min(max(counts), PROGRAMS * max(counts) // sum(counts)))

    def to_html(self) -> str:
        """Return the filters, the table of tasks, the place of the chosen task, the examples and the data."""
        chosen = {system: side_by_side.choose_tasks(self.evaluation, system) for system in self.evaluation.others}
        data = json.dumps(self._data(chosen), separators=(",", ":"))
        packed = base64.b64encode(gzip.compress(data.encode(), 9, mtime=0)).decode()
        return (
            f"{self._cut()}<div id='explorer' hidden>{self._filters()}</div>\n"
            f"<div id='tasks'>{to_html(tasks_table(self.evaluation), 'table-tasks')}</div>\n"
            f"<div id='task' hidden></div>\n<div id='examples'>{''.join(self._examples(chosen))}</div>\n"
            f"<script type='text/plain' id='data'>{packed}</script>\n"
        )

    def _cut(self) -> str:
        most = max(len(found) for answers in self.evaluation.systems.values() for found in answers.values())
        if self.per_task == most:
            return ""
        return f"<p>The page holds the first {self.per_task} programs of each task and system.</p>"

    def _filters(self) -> str:
        counts: Counter[Message] = Counter()
        statuses = set()
        for program in self._shown():
            counts.update({Message(message.id, message.symbol, 0) for message in program.quality.messages})
            statuses.add(program.verdict.status)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0].id))
        levels = [level for level in self.evaluation.levels if level != "all"]
        menus = {
            "difficulty": ("Difficulty", "all", [(level, level) for level in levels]),
            "system": ("System", "any", [(str(i), system) for i, system in enumerate(self.evaluation.systems)]),
            "verdict": ("Verdict", "any", [(str(i), _words(s)) for i, s in enumerate(STATUSES) if s in statuses]),
            "message": ("Message", "any", [(m.id, f"{m.id} {m.symbol} ({n:,} programs)") for m, n in ranked]),
        }
        fields = "".join(
            f"<label>{label} <select name='{name}'><option value=''>{every}</option>"
            + "".join(f"<option value='{escaped(value)}'>{escaped(text)}</option>" for value, text in options)
            + "</select></label>\n"
            for name, (label, every, options) in menus.items()
            if len(options) > 1 or name == "message"
        )
        return (
            f"<form id='filters' role='search' aria-label='Filter the programs'>\n{fields}"
            "<label>Text <input type='search' name='text' size='24' placeholder='id, prompt or program'></label>\n"
            + "<label><input type='checkbox' name='examples'> only examples</label>\n" * bool(self.evaluation.others)
            + "<button type='reset'>Clear</button>\n<output id='left' aria-live='polite'></output></form>\n"
            + "<p class='note'>A task is left where one of its programs fits every filter. "
            + f"Examples: {escaped(side_by_side.rule(self.evaluation))} " * bool(self.evaluation.others)
            + "Keys: <kbd>j</kbd> next task, <kbd>k</kbd> previous task, <kbd>/</kbd> text filter. "
            "<label><input type='checkbox' id='keys' checked> keys on</label></p>"
        )

    def _shown(self) -> Iterator[StoredProgram]:
        for answers in self.evaluation.systems.values():
            for programs in answers.values():
                yield from programs[: self.per_task]

    def _examples(self, chosen: Mapping[str, Sequence[side_by_side.SideBySide]]) -> Iterator[str]:
        texts = read_completions(
            program for examples in chosen.values() for one in examples for program in one.programs.values()
        )
        yield f"<h3>Examples</h3><p>{escaped(side_by_side.rule(self.evaluation))}</p>\n" * bool(chosen)
        for system, examples in chosen.items():
            title = f"{len(examples)} tasks: {self.evaluation.baseline} and {system}"
            yield f"<details><summary>{escaped(title)}</summary>"
            for one in examples:
                columns = (
                    _program(name, program, texts[program.file, program.place])
                    for name, program in one.programs.items()
                )
                prompt = f"<pre>{escaped(one.task.prompt.text)}</pre>" if one.task.prompt.text else ""
                yield (
                    f"<article><h4>{escaped(one.task.id)}</h4><p>{escaped(one.task.difficulty)} mean score "
                    f"{one.change:+.2f}</p>{prompt}<div class='pair'>{''.join(columns)}</div></article>\n"
                )
            yield "</details>\n"

    def _data(self, chosen: Mapping[str, Sequence[side_by_side.SideBySide]]) -> dict[str, Any]:
        """Return what programs.js reads: a program is [sample, score, status, reason, remarks, text, messages]."""
        evaluation, per_task = self.evaluation, self.per_task
        texts = read_completions(self._shown())
        messages: dict[tuple[str, str], int] = {}

        def packed(program: StoredProgram) -> list[Any]:
            completion, found = texts[program.file, program.place], []
            for message in sorted(program.quality.messages, key=lambda m: (m.line, m.id)):
                found += [messages.setdefault((message.id, message.symbol), len(messages)), message.line]
            score, verdict = round(program.quality.score, 2), program.verdict
            shown = [score, STATUSES.index(verdict.status), verdict.reason, remarks(program)]
            return [completion.sample, *shown, shorter(completion.program), found]

        examples = {one.task.id for found in chosen.values() for one in found}
        tasks = [
            {
                "id": task.id,
                "difficulty": task.difficulty,
                "prompt": shorter(task.prompt.text),
                "example": task.id in examples,
                "programs": [list(map(packed, found[task.id][:per_task])) for found in evaluation.systems.values()],
            }
            for task in evaluation.tasks
        ]
        return {
            "systems": list(evaluation.systems),
            "statuses": list(map(_words, STATUSES)),
            "categories": categories_of(evaluation.scorer),
            "tasks": tasks,
            "messages": list(messages),
        }


def tasks_table(evaluation: Evaluation) -> Table:
    """One row a task: of each system the mean score, the programs that passed, and messages per program."""
    rows, records = [], []
    for task in evaluation.tasks:
        cells = [task.id, task.difficulty or "–"]
        for system, answers in evaluation.systems.items():
            found = answers[task.id]
            passed = sum(program.verdict.status == "passed" for program in found)
            score, messages = (
                fmean(p.quality.score for p in found),
                fmean(len(p.quality.messages) for p in found),
            )
            cells += [f"{score:.2f}", f"{passed} of {len(found)}", f"{messages:.1f}"]
            counts = {
                "programs": len(found),
                "passed": passed,
                f"{evaluation.scorer}_mean": score,
                "messages": messages,
            }
            records.append({"task": task.id, "difficulty": task.difficulty, "system": system, **counts})
        rows.append(tuple(cells))
    columns = ("Task", "Difficulty", *("Score", "Passed", "Messages") * len(evaluation.systems))
    label = label_of(evaluation.scorer)
    note = f"Score: mean {label} score. Messages: {label} messages per program."
    groups = tuple((system, 3) for system in evaluation.systems)
    return Table("tasks", f"{len(rows)} tasks", columns, tuple(rows), tuple(records), 2, groups, note)


def read_completions(programs: Iterable[StoredProgram]) -> dict[tuple[Path, int], Completion]:
    """Return the completions of many programs by file and place. Each file is read once, from front to back."""
    places: dict[Path, set[int]] = {}
    for program in programs:
        places.setdefault(program.file, set()).add(program.place)
    found = {}
    for path, wanted in places.items():
        with open_lines(path) as file:
            for place in sorted(wanted):
                file.seek(place)
                found[path, place] = from_json(Completion, file.readline().decode("utf-8"))
    return found


def remarks(program: StoredProgram) -> str:
    """'61 tokens, cleaned, cut off'."""
    said = [f"{program.tokens} tokens"] * (program.tokens > 0)
    said += ["cleaned"] * program.cleaned + ["cut off"] * (not program.finished)
    return ", ".join(said)


def shorter(text: str) -> str:
    """Return the text, cut where it is longer than a page should hold."""
    if len(text) <= CHARACTERS:
        return text
    return f"{text[:CHARACTERS]}\n[{len(text) - CHARACTERS:,} more characters]"


def _words(status: str) -> str:
    return status.replace("_", " ")


def _program(system: str, program: StoredProgram, completion: Completion) -> str:
    """One program with its messages at their lines; programs.js builds the same."""
    categories = categories_of(program.quality.scorer)
    verdict, lines = program.verdict, lines_of(shorter(completion.program))
    at: dict[int, list[Message]] = {}
    for message in sorted(program.quality.messages, key=lambda m: (m.line, m.id)):
        at.setdefault(min(max(message.line, 1), len(lines)), []).append(message)
    shown = "".join(
        f"<li><code>{escaped(line)}</code>{''.join(_message(one, categories) for one in at.get(number, ()))}</li>"
        for number, line in enumerate(lines, 1)
    )
    said = [f"score {program.quality.score:.2f}", _words(verdict.status), verdict.reason, remarks(program)]
    return (
        f"<section aria-label='{escaped(system)}'><h5>{escaped(system)}, sample {completion.sample}</h5>"
        f"<p class='said'>{escaped(', '.join(filter(None, said)))}</p><ol class='program'>{shown}</ol></section>"
    )


def categories_of(scorer: str) -> dict[str, str]:
    """Return what the first letter of a message means; I stands for all others."""
    return CATEGORIES if scorer == PYLINT else {"I": label_of(scorer)}


def _message(message: Message, categories: Mapping[str, str]) -> str:
    category = message.id[0] if message.id[:1] in categories else "I"
    return (
        f"<span class='message {category}'>{escaped(message.id)} {escaped(message.symbol)} "
        f"<span class='category'>{categories[category]}</span></span>"
    )
