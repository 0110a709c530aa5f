"""The values that travel between the steps: tasks, prompts, completions, scores, verdicts and pairs.

Every record is a frozen dataclass of plain data. `to_json` and `from_json` turn it into one JSON line and back;
`write_jsonl` replaces a file atomically, so a reader never sees half of one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cptlab.errors import UserError

DIFFICULTIES = ("introductory", "interview", "competition")


@dataclass(frozen=True)
class Span:
    """A named part of a prompt: `text[start:end]`, in characters. Names: nl, tests, code, shots, anchor."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Prompt:
    """What the language model is shown. `code` is the tail of `text` that belongs to the program itself.

    A program is `prompt.code + completion`; for a function that is its signature line, for a script ''.
    """

    text: str
    code: str = ""
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        if not self.text.endswith(self.code):
            raise ValueError("Prompt.code must be the end of Prompt.text")


@dataclass(frozen=True)
class Test:
    """One test. Call-based: `args` and `expected`, plain JSON data. Script: `stdin` and `expected`, both text.

    Check-based: `code`, Python that runs after `Task.setup` in the examiner's process and raises where the program fails.
    """

    __test__ = False  # not a pytest class

    expected: Any = None
    args: tuple[Any, ...] = ()
    stdin: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Task:
    """One problem of a benchmark.

    `kind` is 'call' (a function `entry_point`, tests are data), 'stdin' (a script) or 'check' (tests are the benchmark's
    own Python). For 'check', `setup` is the benchmark's code that runs before the tests, and `names` are the names in
    both that stand for what the program defines; `candidate` stands for the entry point. `cpu_seconds` and `memory_mb` are
    what a test of this task needs where the usual limits are too low. `rules` are the comparison rules of its tests, the one that
    decides first: strict, official (APPS).
    """

    id: str
    benchmark: str
    split: str
    difficulty: str
    kind: str
    prompt: Prompt
    entry_point: str | None = None
    public_tests: tuple[Test, ...] = ()
    hidden_tests: tuple[Test, ...] = ()
    reference: str | None = None
    tags: tuple[str, ...] = ()
    setup: str = ""
    names: tuple[str, ...] = ()
    cpu_seconds: float | None = None
    memory_mb: int | None = None
    rules: tuple[str, ...] = ("strict",)

    @property
    def tests(self) -> tuple[Test, ...]:
        return self.public_tests + self.hidden_tests


@dataclass(frozen=True)
class Completion:
    """One sample: the model's raw text, and the program that is judged (`prompt.code` + cleaned text)."""

    task_id: str
    sample: int
    raw: str
    program: str
    tokens: int
    finished: bool  # ended by itself (end-of-text or a stop rule), not by the length limit


@dataclass(frozen=True)
class Message:
    """One pylint message: `id` like 'W0612', `symbol` like 'unused-variable', `line` from 1."""

    id: str
    symbol: str
    line: int


@dataclass(frozen=True)
class Quality:
    """The pylint score of one program (CPT eq. 15), in [0, 10], and what it was computed from."""

    score: float
    statements: int
    fatal: bool
    messages: tuple[Message, ...] = ()
    pragmas: int = 0  # pylint pragmas that were neutralised before scoring


@dataclass(frozen=True)
class Verdict:
    """What running the tests said. `status`: passed, failed, error, timeout, memory, crashed or not_parsed.

    `public_passed` counts public tests passed ("essential tests" of CPT Algorithm 1). `by_rule` holds the status under
    each comparison rule of a task that has several.
    """

    status: str
    reason: str = ""
    public_passed: int = 0
    public_total: int = 0
    hidden_passed: int = 0
    hidden_total: int = 0
    by_rule: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclass(frozen=True)
class Pair:
    """One row (I, x_a, m_a, x_b, m_b) of the comparative data set (CPT IV-D); a is the better program.

    Texts are completions: the instruction (prompt text) followed by one of them is what the model reads.
    Masks hold one 0 or 1 per token of the completion alone (no special tokens), 1 where the programs differ.
    """

    task_id: str
    difficulty: str
    split: str
    instruction: str
    better: str
    worse: str
    better_mask: tuple[int, ...]
    worse_mask: tuple[int, ...]
    better_score: float
    worse_score: float
    similarity: float
    combined_score: float
    both_pass_public: bool
    better_finished: bool = True  # ended by itself, so an end-of-text token belongs behind it
    worse_finished: bool = True
    better_lines: tuple[int, ...] = field(default=())  # completion lines (from 0) that carry a pylint message
    worse_lines: tuple[int, ...] = field(default=())


def to_json(record: Any) -> str:
    """One line of JSON, keys in the order of the fields."""
    content = dataclasses.asdict(record)
    line = json.dumps(content, ensure_ascii=False)
    try:
        line.encode()
        return line
    except UnicodeEncodeError:  # half a character, which a model may well print
        return json.dumps(content)


def from_json(kind: type, line: str) -> Any:
    """The record of dataclass `kind` in a line written by `to_json`. Raises ValueError where it does not fit."""
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
    return _build(kind, data)


def _build(kind: type, data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"a {kind.__name__} is a JSON object, not {type(data).__name__}")
    hints, required = _fields(kind)
    unknown = sorted(set(data) - set(hints))
    missing = sorted(required - set(data))
    if unknown or missing:
        raise ValueError(f"{kind.__name__}: missing fields {missing}, unknown fields {unknown}")
    return kind(**{name: _convert(hints[name], value, name) for name, value in data.items()})


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields, and the names of those without a default."""
    required = (f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING)
    return typing.get_type_hints(kind), frozenset(required)


def _convert(hint: Any, value: Any, name: str) -> Any:
    if hint is Any:
        return value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, name)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"field {name} is a list, not {type(value).__name__}")
        return tuple(_convert(args[0], item, name) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"field {name} is an object, not {type(value).__name__}")
        return {key: _convert(args[1], item, name) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _build(hint, value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"field {name} is {hint.__name__}, not {type(value).__name__}")
    return value


def write_jsonl(path: str | os.PathLike, records: Iterable[Any]) -> None:
    """Write records to `path`, one a line; the file appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        for record in records:
            file.write(to_json(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_jsonl(path: str | os.PathLike, kind: type) -> Iterator[Any]:
    """The records of a JSONL file. A malformed row is a UserError that names file and line."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}. Check the path, or remake the file with the command that wrote it.")
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield from_json(kind, line)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: {error}. Correct or delete that line, or remake the file."
                ) from None
