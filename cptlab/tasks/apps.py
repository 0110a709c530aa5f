"""APPS (Hendrycks et al. 2021, arXiv 2105.09938): problems of three difficulties, as scripts or functions.

APPS comes in three forms, whose rows are first brought into the hub's fields:
- the hub's rows, also as JSONL files: question, solutions and input_output (both JSON texts), difficulty, starter_code;
- the folders of the original archive: question.txt, solutions.json, input_output.json, metadata.json, starter_code.py;
- MapCoder's JSONL: description, sample_io, test_list, with functions recast as scripts, and no solutions.

Tests are compared under the rules strict and official, strict deciding. The expected values of functions stay as in the
file, where they may be wrapped in a list of one. `Task.setup` holds the imports that the official harness puts before
every program, which LeetCode's `class Solution` programs count on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.records import DIFFICULTIES, Prompt, Task, Test
from cptlab.settings.setting import Setting, check_settings
from cptlab.storage.jsonl import integers_of_any_length
from cptlab.tasks.benchmark import Benchmark, Exclude, Fractions, divided
from cptlab.tasks.files import DataDir, Row, Source, check_data_dir, file_rows, find_file, make_tasks, read_rows
from cptlab.tasks.prompting import READ_AND_PRINT
from cptlab.tasks.spans import spans_of

# the hub's repository holds a loading script, which `datasets` no longer runs, beside these files
HUB_FILES = {split: f"hf://datasets/codeparrot/apps/{split}.jsonl" for split in ("train", "test")}
HUB = Source("apps/test.jsonl", ("json",), ("train", "test"), {"data_files": HUB_FILES})
# looked for below <data_dir>/apps, in this order
SOURCES = ("train.jsonl", "test.jsonl", "train", "test", "apps_selected150.jsonl", "layout")
OFFICIAL_IMPORTS = """\
import sys, time, itertools, collections, math, fractions, random, heapq
from itertools import accumulate, product, permutations, combinations
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
from typing import List, Tuple
import numpy as np
from heapq import *
sys.set_int_max_str_digits(0)
"""
STOPS = ("\nQUESTION", "\n---", "\nANSWER", "\n```")  # where bigcode-evaluation-harness ends an answer, or a fence
MAX_NEW_TOKENS = 1024  # of an answer
_EXAMPLES = re.compile(r"^[\W_]*(?:for\s+)?(?:sample|example)s?\b[\w ]{0,20}[^\w\n]*$", re.IGNORECASE | re.MULTILINE)
_SECTION = re.compile(
    r"^(?:-{3,}.*|#+ .*|\W*(?:notes?|constraints|follow[- ]up|hints?)\W*)$", re.IGNORECASE | re.MULTILINE
)


def apps(
    data_dir: DataDir = None,
    source: Annotated[
        str | None,
        Setting(
            "A file or folder below <data_dir>/apps, or a whole path; null: train and test if they are there, else the first "
            "that is, else the hub."
        ),
    ] = None,
    difficulty: Annotated[
        str | None, Setting("Tasks of this difficulty alone; null: of all.", choices=DIFFICULTIES)
    ] = None,
    fractions: Fractions = None,
    exclude: Exclude = (),
) -> Benchmark:
    """Load the tasks that have tests, each with its difficulty.

    Splits are the hub's; other files and folders are split test. Raise UserError for a source that does not exist or
    cannot be read.
    """
    check_settings(apps, difficulty=difficulty)
    found = [task for task, _ in _tasks_and_solutions(data_dir, source)]
    tasks = [task for task in found if difficulty in (None, task.difficulty)]
    if not tasks:
        raise UserError(f"None of the {len(found)} tasks is of difficulty {difficulty}. Set benchmark.difficulty=null.")
    benchmark = Benchmark(
        "apps",
        divided(tasks, fractions),
        all_solutions=lambda: ((task.id, program) for task, program in all_solutions(data_dir, source)),
    )
    return benchmark.without(exclude)


def all_solutions(data_dir: str | None = None, source: str | None = None) -> Iterator[tuple[Task, str]]:
    """Yield (task, program) for every solution that APPS has of every task. Some are wrong in APPS itself."""
    for task, programs in _tasks_and_solutions(data_dir, source):
        for program in programs:
            yield task, program


def _tasks_and_solutions(data_dir: str | None, source: str | None) -> list[tuple[Task, list[str]]]:
    programs: dict[str, list[str]] = {}

    def make(row: dict[str, Any]) -> Task | None:
        row = _hub_fields(row)
        solutions = json.loads(row["solutions"] or "[]")
        task = _task(row)
        if task is None:
            return None
        programs[task.id] = solutions
        return replace(task, canonical_solution=solutions[0] if solutions else None)

    with integers_of_any_length():
        return [(task, programs[task.id]) for task in make_tasks(_rows(data_dir, source), make)]


def _rows(data_dir: str | None, source: str | None) -> Iterator[Row]:
    check_data_dir(data_dir)
    if source is not None:
        found = _at(data_dir, source)
        if found is None:
            raise UserError(
                f"There is no {Path(data_dir or '.', 'apps', source)}. Correct benchmark.source, or set it to null."
            )
        return _read(found)
    places = [place for name in SOURCES if (place := _at(data_dir, name)) is not None]
    if not places:
        return read_rows(HUB, data_dir)
    whole = [place for place in places if _split(place) is not None]
    return (row for place in whole or places[:1] for row in _read(place))


def _at(data_dir: str | None, name: str) -> Path | None:
    place = Path(data_dir or ".", "apps", name)
    if place.is_dir():
        return place
    return find_file(data_dir, os.path.join("apps", name)) if data_dir is not None else None


def _split(place: Path) -> str | None:
    name = place.name.split(".")[0]
    return name if name in ("train", "test") else None


def _read(place: Path) -> Iterator[Row]:
    split = {"split": _split(place) or "test"}
    rows = _folder_rows(place) if place.is_dir() else file_rows(place)
    return ((where, split | row) for where, row in rows)


def _folder_rows(place: Path) -> Iterator[Row]:
    folders = sorted(folder for folder in place.iterdir() if (folder / "question.txt").is_file())
    if not folders:
        raise UserError(f"{place} holds no APPS problem, a folder with question.txt. Correct benchmark.source.")
    for folder in folders:
        files = {name: folder / name for name in ("question.txt", "metadata.json", "solutions.json",
                                                  "input_output.json", "starter_code.py")}  # fmt: skip
        try:
            text = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
            row = {
                "problem_id": int(folder.name),
                "question": text["question.txt"],
                "solutions": text.get("solutions.json", ""),
                "input_output": text.get("input_output.json", ""),
                "difficulty": json.loads(text["metadata.json"])["difficulty"],
                "starter_code": text.get("starter_code.py", ""),
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} is not an APPS problem: {error} is wrong or missing. Take a fresh copy."
            ) from None
        yield str(folder), row


def _hub_fields(row: dict[str, Any]) -> dict[str, Any]:
    """Bring a row of any form into the fields of the hub, with the number of MapCoder's sample tests under "shown"."""
    if "test_list" not in row:
        return row | {"problem_id": row["problem_id"] if "problem_id" in row else row["id"]}
    tests = [*row["sample_io"], *row["test_list"]]
    if any(len(test["output"]) != 1 for test in tests):
        raise ValueError("a test has several outputs or none")
    content = {"inputs": [test["input"] for test in tests], "outputs": [str(test["output"][0]) for test in tests]}
    return row | {"problem_id": row["id"], "question": row["description"], "solutions": "",
                  "input_output": json.dumps(content), "shown": len(row["sample_io"])}  # fmt: skip


def _task(row: dict[str, Any]) -> Task | None:
    """Make the task of a row; None if it has no tests, as some rows of the hub."""
    content = json.loads(row["input_output"] or "{}")
    inputs, outputs, function = content.get("inputs", []), content.get("outputs", []), content.get("fn_name")
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs")
    if row["difficulty"] not in DIFFICULTIES:
        raise ValueError(f"difficulty {row['difficulty']!r} is none of {', '.join(DIFFICULTIES)}")
    if not inputs:
        return None
    question, starter = row["question"], row["starter_code"] or ""
    if function is None:
        tests = [Test(stdin=_text(given), expected=_text(printed)) for given, printed in zip(inputs, outputs)]
    else:
        tests = [Test(args=tuple(given), expected=returned) for given, returned in zip(inputs, outputs)]
    examples = _compact(question[examples_of(question)[0] :])
    if "shown" in row:
        public = [index < row["shown"] for index in range(len(tests))]
    else:
        public = [_is_shown(test, examples) for test in tests]
    return Task(
        id=f"APPS/{row['split']}/{row['problem_id']}",
        benchmark="apps",
        split=row["split"],
        difficulty=row["difficulty"],
        kind="stdin" if function is None else "call",
        prompt=_prompt(question, starter, function is None),
        question=chat_question(question, starter, function is None),
        entry_point=function,
        public_tests=tuple(test for test, shown in zip(tests, public) if shown),
        hidden_tests=tuple(test for test, shown in zip(tests, public) if not shown),
        rules=("strict", "official"),
        setup=OFFICIAL_IMPORTS,
    )


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "\n".join(lines)


def _prompt(question: str, starter: str, is_script: bool) -> Prompt:
    """Return the prompt of the official evaluation (generate_gpt_codes.py)."""
    text = "\nQUESTION:\n"
    start, end = examples_of(question)
    cuts = [("nl", 0, start), ("tests", start, end), ("nl", end, len(question))]
    cuts = [(name, len(text) + begin, len(text) + stop) for name, begin, stop in cuts]
    text += question
    cuts.append(("code", len(text), len(text) + len(starter)))
    text += f"{starter}\nUse {'Standard Input' if is_script else 'Call-Based'} format\nANSWER:\n"
    return Prompt(text, "", spans_of(text, cuts), STOPS, max_new_tokens=MAX_NEW_TOKENS)


def chat_question(question: str, starter: str, is_script: bool) -> Prompt:
    """Return what a chat model is asked: the question and, in its own words, the form of the answer."""
    start, end = examples_of(question)
    cuts = [("nl", 0, start), ("tests", start, end), ("nl", end, len(question))]
    if is_script:
        text = f"{question}\n\n{READ_AND_PRINT}"
    else:
        text = f"{question}\n\nComplete this code:\n{starter}"
        cuts.append(("code", len(text) - len(starter), len(text)))
    return Prompt(text, "", spans_of(text, cuts), max_new_tokens=MAX_NEW_TOKENS)


def examples_of(question: str) -> tuple[int, int]:
    """Return where the examples begin and end: from the first heading of examples to the next other section."""
    first = _EXAMPLES.search(question)
    if first is None:
        return len(question), len(question)
    for section in _SECTION.finditer(question, first.end()):
        if not _EXAMPLES.match(section.group()) and not re.search(
            r"\b(input|output)\b", section.group(), re.IGNORECASE
        ):
            return first.start(), section.start()
    return first.start(), len(question)


def _is_shown(test: Test, examples: str) -> bool:
    """Whether input and output of a test stand in this order in the examples of the question."""
    if test.stdin is not None:
        parts = [test.stdin, test.expected]
    else:
        single = isinstance(test.expected, list) and len(test.expected) == 1
        parts = [json.dumps(value) for value in (*test.args, test.expected[0] if single else test.expected)]
    at = 0
    for part in map(_compact, parts):
        at = examples.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return bool(examples)


def _compact(text: str) -> str:
    return re.sub(r"\s", "", text)
