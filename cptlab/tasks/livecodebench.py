"""LiveCodeBench (arXiv 2403.07974): contest problems with their dates, as scripts or as methods of `class Solution`.

The files are those of the hub's livecodebench/code_generation_lite: test.jsonl, test2.jsonl and so on, one for each release.
Public tests are the examples of the problem. Private ones are JSON text, or that text pickled, compressed by zlib and
written in base64. Nothing but a text is unpickled. A test of a function has one JSON value a line for each argument.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.records import DIFFICULTIES, Prompt, Task, Test
from cptlab.settings.setting import Setting, check_settings
from cptlab.tasks import docstrings
from cptlab.tasks.apps import MAX_NEW_TOKENS, chat_question, examples_of
from cptlab.tasks.benchmark import Benchmark, Exclude, Fractions, divided
from cptlab.tasks.files import DataDir, Row, Source, check_data_dir, file_rows, make_tasks, read_rows
from cptlab.tasks.spans import spans_of

HUB_FILES = {"test": "hf://datasets/livecodebench/code_generation_lite/test*.jsonl"}
HUB = Source("livecodebench/test.jsonl", ("json",), ("test",), {"data_files": HUB_FILES})
LEVELS = dict(zip(("easy", "medium", "hard"), DIFFICULTIES, strict=True))
CPU_SECONDS = 6.0  # of a test, as in its own judge
SCRIPT_STOPS = ('\n"""', "\n```")
# names that its own judge gives to every program; `builtins` is last, so that no module hides a built-in function
_MODULES = ("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
            "functools", "operator", "io", "sys", "json")  # fmt: skip
IMPORTS = "\n".join([f"from {name} import *" for name in (*_MODULES, "typing", "builtins")] + [
    f"import {', '.join(_MODULES)}", "sys.setrecursionlimit(50000)\n"
])  # fmt: skip

Day = Annotated[str | None, Setting("A day such as 2024-08-01, itself included; null: no limit.")]


def livecodebench(
    data_dir: DataDir = None,
    path: Annotated[
        str | None,
        Setting("A file, or a folder of test*.jsonl; null: <data_dir>/livecodebench if it is there, else the hub."),
    ] = None,
    start_date: Day = None,
    end_date: Day = None,
    difficulty: Annotated[
        str | None,
        Setting(
            "Problems of this difficulty alone (easy is introductory, hard competition); null: of all.",
            choices=DIFFICULTIES,
        ),  # fmt: skip
    ] = None,
    fractions: Fractions = None,
    exclude: Exclude = (),
) -> Benchmark:
    """Load the problems of contests from `start_date` to `end_date`, all in split test unless `fractions` divide them.

    Raises UserError for a day that is none, files that do not exist or cannot be read, and if no problem is left.
    """
    check_settings(livecodebench, difficulty=difficulty)
    first, last = _day("start_date", start_date, date.min), _day("end_date", end_date, date.max)

    def make(row: dict[str, Any]) -> Task | None:
        level = LEVELS.get(row["difficulty"])
        if level is None:
            raise ValueError(f"difficulty {row['difficulty']!r} is none of {', '.join(LEVELS)}")
        day = date.fromisoformat(row["contest_date"][:10])
        return _task(row, level) if first <= day <= last and difficulty in (None, level) else None

    tasks = make_tasks(_rows(data_dir, path), make)
    if not tasks:
        raise UserError(
            f"No problem of LiveCodeBench is left of contests from {start_date or 'the first'} to {end_date or 'the last'}"
            f"{f' and of difficulty {difficulty}' if difficulty else ''}. Widen benchmark.start_date, end_date or difficulty."
        )
    return Benchmark("livecodebench", divided(tasks, fractions)).without(exclude)


def _day(name: str, given: str | None, otherwise: date) -> date:
    try:
        return otherwise if given is None else date.fromisoformat(given)
    except ValueError:
        raise UserError(f"benchmark.{name}={given} is no day. Write it as 2024-08-01.") from None


def _rows(data_dir: str | None, path: str | None) -> Iterator[Row]:
    check_data_dir(data_dir)
    place = Path(path).expanduser() if path is not None else Path(data_dir or ".", "livecodebench")
    if path is None and (data_dir is None or not place.is_dir()):
        return read_rows(HUB, None)
    found = [place] if place.is_file() else sorted([*place.glob("test*.jsonl"), *place.glob("test*.jsonl.gz")])
    if not found:
        raise UserError(
            f"{place} is no file and holds no test*.jsonl. Put the files of livecodebench/code_generation_lite there, or "
            "correct benchmark.path."
        )
    return (row for file in found for row in file_rows(file))


def _task(row: dict[str, Any], level: str) -> Task:
    entry_point = json.loads(row["metadata"] or "{}").get("func_name")
    public = [_test(one, entry_point) for one in json.loads(row["public_test_cases"])]
    hidden = [_test(one, entry_point) for one in private_tests(row["private_test_cases"])]
    if not public and not hidden:
        raise ValueError("it has no tests")
    question, starter = row["question_content"].strip(), row["starter_code"].rstrip()
    return Task(
        id=f"LiveCodeBench/{row['question_id']}",
        benchmark="livecodebench",
        split="test",
        difficulty=level,
        kind="stdin" if entry_point is None else "call",
        prompt=_prompt(question, starter),
        question=chat_question(question, starter, entry_point is None),
        entry_point=entry_point,
        public_tests=tuple(public),
        hidden_tests=tuple(hidden),
        setup=IMPORTS,
        cpu_seconds=CPU_SECONDS,
    )


def _prompt(question: str, starter: str) -> Prompt:
    """Return the problem as a docstring that the program follows, which begins with the starter code if there is some."""
    opening, code = '"""\n', f"{starter}\n" if starter else ""
    start, end = examples_of(question)
    cuts = [("nl", 0, start), ("tests", start, end), ("nl", end, len(question))]
    cuts = [(name, len(opening) + begin, len(opening) + stop) for name, begin, stop in cuts]
    text = f'{opening}{question}\n"""\n{code}'
    spans = spans_of(text, [*cuts, ("code", len(text) - len(code), len(text))])
    return Prompt(text, code, spans, docstrings.STOPS if code else SCRIPT_STOPS, max_new_tokens=MAX_NEW_TOKENS)


def _test(case: dict[str, Any], entry_point: str | None) -> Test:
    if case["testtype"] != ("stdin" if entry_point is None else "functional"):
        raise ValueError(f"a test of type {case['testtype']!r} does not go with func_name {entry_point!r} in metadata")
    if entry_point is None:
        return Test(stdin=case["input"], expected=case["output"])
    arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
    return Test(args=tuple(arguments), expected=json.loads(case["output"]))


class _TextOnly(pickle.Unpickler):
    """Reads plain values. A pickle that names a class or function, as one that runs code must, is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")


def private_tests(text: str) -> list[dict[str, Any]]:
    """Return the tests of a field private_test_cases, plain or compressed. Raises ValueError for anything else."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        content = _TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError) as error:
        raise ValueError(f"its private_test_cases cannot be read ({error})") from None
    if not isinstance(content, str):
        raise ValueError(f"its private_test_cases hold a {type(content).__name__} and no text")
    return json.loads(content)
