"""Your own tasks as a benchmark: JSON lines with a prompt and tests in each (docs/benchmarks.md has an example).

A prompt is a description, which the program follows as in MBPP, or a signature with its docstring, which the program
goes on with as in HumanEval. Tests are assertions, calls with expected values, or inputs of a script with expected
outputs (own_tests.py). `tests` are shown to the model behind a description and are public; `hidden_tests` are not. Both count.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.records import DIFFICULTIES, Prompt, Task
from cptlab.settings.setting import Setting
from cptlab.tasks import docstrings, mbpp
from cptlab.tasks.benchmark import Benchmark, Exclude, divided
from cptlab.tasks.evalplus import MAX_NEW_TOKENS
from cptlab.tasks.files import Row, file_rows
from cptlab.tasks.own_tests import FORMS, defined_names, needed_of_program, parsed, read_tests, shown_tests, with_body
from cptlab.tasks.prompting import READ_AND_PRINT
from cptlab.tasks.spans import spans_of
from cptlab.tasks.splits import SPLITS

FIELDS = (
    "id", "prompt", "entry_point", "tests", "hidden_tests", "code", "canonical_solution", "setup", "split", "difficulty",
)  # fmt: skip
OTHER_NAMES = {"text": "prompt", "description": "prompt", "question": "prompt", "test_list": "tests", "solution": "canonical_solution"}  # fmt: skip
SCRIPT_STOPS = ('\n"""', "\n```")  # where a base model begins another task, or a fence
WITHOUT_SPLITS, ALL_IN_TEST = (8, 1, 1), (0, 0, 1)


def jsonl(
    path: Annotated[str | None, Setting("Your file of tasks: JSON lines (.jsonl) or a JSON list, also as .gz.")] = None,
    fractions: Annotated[
        Sequence[float] | None,
        Setting(
            "Divide the tasks anew into train, validation and test, such as [8,1,1]; null: the rows' own splits, or where they "
            "have none [8,1,1], or all in test if there are too few for that.",
            at_least=0,
        ),
    ] = None,
    exclude: Exclude = (),
) -> Benchmark:
    """Load the tasks of a file; its name without endings is the benchmark's. Raises UserError for the first wrong row."""
    if path is None:
        raise UserError(
            "benchmark=jsonl needs your file of tasks. Add benchmark.path=tasks.jsonl (docs/benchmarks.md)."
        )
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"There is no file {file}. Correct benchmark.path.")
    if not file.name.removesuffix(".gz").endswith((".jsonl", ".json")):
        raise UserError(f"{file} is neither .jsonl (one JSON object a line) nor .json (a list of them). Name it so.")
    name = file.name.partition(".")[0] or "jsonl"
    tasks: dict[str, Task] = {}
    places: dict[str, str] = {}
    for where, row in _rows(file):
        try:
            with warnings.catch_warnings(action="ignore"):  # programs with "\d" and the like
                task = _task(row, name)
            if (first := places.setdefault(task.id.casefold(), where)) != where:
                raise ValueError(f"field id: {task.id} is the id of {first}, too. Give each task an id of its own")
            if tasks and bool(task.split) != any(other.split for other in tasks.values()):
                raise ValueError(
                    "field split: some rows have a split and some have none. Give one to all rows or to none"
                )
        except ValueError as error:
            raise UserError(f"{where}, {error}{'' if str(error).endswith('?') else '.'}") from None
        tasks[task.id] = task
    if not tasks:
        raise UserError(f"{file} holds no task. Write one JSON object a line (docs/benchmarks.md).")
    found = divided(list(tasks.values()), fractions)
    if not all(task.split for task in found):
        found = divided(found, WITHOUT_SPLITS)
        if len({task.split for task in found}) < len(WITHOUT_SPLITS):
            found = divided(found, ALL_IN_TEST)
    return Benchmark(name, found).without(exclude)


def _rows(file: Path) -> Iterator[Row]:
    for where, row in file_rows(file):
        row = {key: value for key, value in row.items() if not key.startswith("_") and value is not None}
        if "task_id" in row:
            row = {"id": row.pop("task_id"), **row}
        yield where, row


def _task(row: dict[str, Any], benchmark: str) -> Task:
    """Make the task of a row. Raises ValueError, which names the field, what is wrong with it and what to do."""
    _check_names(row)
    description, code = _text(row, "prompt"), _text(row, "code", optional=True)
    entry_point = _text(row, "entry_point", optional=True) or None
    if entry_point is not None and not entry_point.isidentifier():
        raise ValueError(f"field entry_point: {entry_point!r} is no name. Give the function's name alone, such as add")
    setup = _text(row, "setup", optional=True)
    kind, public = read_tests("tests", row.get("tests", []), entry_point)
    hidden_kind, hidden = read_tests("hidden_tests", row.get("hidden_tests", []), entry_point)
    if not public and not hidden:
        raise ValueError(f"field tests: there are none. Write tests of one form: {FORMS}")
    if public and hidden and hidden_kind != kind:
        raise ValueError("field hidden_tests: they have another form than tests. Write both in one form")
    kind = kind or hidden_kind
    if setup and kind != "check":
        raise ValueError("field setup: it runs before assertions, and the tests here are none. Leave it out")
    shown = _whole("tests", shown_tests(public, entry_point))
    prompt = _prompt(description, code, entry_point, shown)
    program = _canonical(_text(row, "canonical_solution", optional=True), prompt.code, entry_point)
    imports, names = [], ()
    if kind == "check":
        assert entry_point is not None
        imports, names = needed_of_program(public, hidden, setup, entry_point, prompt.code, program)
    if entry_point is not None and not re.search(rf"\b{entry_point}\b", prompt.text):
        raise ValueError(
            f"field entry_point: nothing tells the model the name {entry_point}. Say it in prompt, give the signature in code, or "
            "show a test in tests"
        )
    return Task(
        id=_whole("id", str(row["id"])),
        benchmark=benchmark,
        split=_choice(row, "split", SPLITS),
        difficulty=_choice(row, "difficulty", DIFFICULTIES),
        kind=kind,
        prompt=prompt,
        question=_script_question(description, shown) if kind == "stdin" else None,
        entry_point=entry_point,
        public_tests=tuple(public),
        hidden_tests=tuple(hidden),
        canonical_solution=program,
        setup="\n".join([*imports, setup]) if setup or imports else "",
        names=names,
    )


def _check_names(row: dict[str, Any]) -> None:
    for name in row:
        if name not in FIELDS:
            near = OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, FIELDS, 1)), None)
            hint = f"Did you mean {near}?" if near else f"A row has the fields {', '.join(FIELDS)}."
            raise ValueError(f"field {name}: there is no such field. {hint} What begins with _ is ignored")
    for name, example in (("id", "3"), ("prompt", '"Write a function that …"')):
        if name not in row:
            raise ValueError(f'field {name}: it is missing. Add one, such as "{name}": {example}')
    if type(row["id"]) is not int and not (isinstance(row["id"], str) and row["id"].strip()):
        raise ValueError(f"field id: {row['id']!r} is neither a text nor a whole number. Give one")


def _text(row: dict[str, Any], name: str, optional: bool = False) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"field {name}: it must be a text, and is {type(value).__name__}. Write it between quotes")
    if not value.strip() and not optional:
        raise ValueError(f"field {name}: it is empty. Write it")
    return _whole(name, value.replace("\r\n", "\n"))


def _whole(name: str, text: str) -> str:
    """Return the text. ValueError for half of a character (a lone surrogate), which no tokenizer and no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"field {name}: it has half of a character, {ascii(text[error.start])}. Correct it") from None
    return text


def _choice(row: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = row.get(name, "")
    if value and value not in choices:
        raise ValueError(f"field {name}: {value!r} is none of {', '.join(choices)}. Choose one, or leave the field out")
    return value


def _prompt(description: str, code: str, entry_point: str | None, shown: str) -> Prompt:
    """Return the prompt that a base model continues, with the texts that end its answer."""
    begins = _begins_function(description, entry_point)
    if begins and code:
        raise ValueError(
            "field code: prompt begins the program already. Leave code out, or describe the task in prompt"
        )
    if begins:
        return docstrings.docstring_prompt(description.rstrip() + "\n", str(entry_point), MAX_NEW_TOKENS)
    code = _checked_code(code, entry_point) if code.strip() else ""
    nl = description.strip()
    text = f'"""\n{nl}\n{shown}\n"""\n' if shown else f'"""\n{nl}\n"""\n'
    cuts = [("nl", 4, 4 + len(nl)), ("tests", 5 + len(nl), 5 + len(nl) + len(shown))]
    spans = spans_of(text + code, [*cuts, ("code", len(text), len(text + code))])
    stops = SCRIPT_STOPS if entry_point is None else docstrings.STOPS if code else mbpp.STOPS
    return Prompt(text + code, code, spans, stops, max_new_tokens=MAX_NEW_TOKENS)


def _script_question(description: str, shown: str) -> Prompt:
    """Return what a chat model is asked for a script, with the form of its input and output in words."""
    nl = description.strip()
    text = "\n\n".join(part for part in (nl, shown, READ_AND_PRINT) if part)
    cuts = [("nl", 0, len(nl)), ("tests", 2 + len(nl), 2 + len(nl) + len(shown))]
    return Prompt(text, "", spans_of(text, cuts), max_new_tokens=MAX_NEW_TOKENS)


def _begins_function(description: str, entry_point: str | None) -> bool:
    """Whether a prompt is a signature with its docstring. ValueError for one that is begun and cannot be read."""
    if entry_point is None or not any(line.startswith(f"def {entry_point}(") for line in description.split("\n")):
        return False
    tree = parsed("prompt", description, "Write the signature with its docstring, or describe the task in words")
    function = next(node for node in tree.body[::-1] if getattr(node, "name", None) == entry_point)
    if not isinstance(function, ast.FunctionDef) or not ast.get_docstring(function):
        raise ValueError(
            "field prompt: it is a signature without a docstring. Describe the task in prompt, and put the signature into code"
        )
    return True


def _checked_code(code: str, entry_point: str | None) -> str:
    """Return what the program begins with. ValueError where it is no beginning of a program that defines the function."""
    remedy = (
        "Give what the program begins with, such as imports and the line of def; the body belongs to canonical_solution"
    )
    try:
        tree = ast.parse(code)
    except SyntaxError:
        tree = parsed("code", with_body(code), remedy)
    if entry_point is None:
        return code
    function = next((node for node in tree.body[::-1] if getattr(node, "name", None) == entry_point), None)
    if function is None:
        raise ValueError(f"field code: it does not begin {entry_point}. {remedy}")
    body = [node for node in getattr(function, "body", []) if not isinstance(node, (ast.Pass, ast.Expr))]
    if isinstance(function, ast.FunctionDef) and body:
        raise ValueError(f"field code: it holds the whole of {entry_point}, which the model would be shown. {remedy}")
    return code


def _canonical(solution: str, code: str, entry_point: str | None) -> str | None:
    """Return the whole program of a solution that is one, or that goes on where `code` ends."""
    if not solution.strip():
        return None
    for program in (solution, code + solution):
        try:
            compile(program, "program", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
        if entry_point is None or entry_point in defined_names(program):
            return program
    parsed("canonical_solution", solution, "Correct it, or leave the field out")
    raise ValueError(f"field canonical_solution: it does not define {entry_point}. Correct it, or entry_point")
