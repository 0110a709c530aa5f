"""Programs of several models for one prompt, as text: side by side on a wide terminal, else one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from cptlab.records import Quality

if TYPE_CHECKING:
    from rich.console import Console
    from rich.syntax import Syntax

COLUMN = 60  # characters that a program needs at least beside another one
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass(frozen=True)
class Answer:
    """A program with its pylint score and messages. `finished`: it ended by itself, not at the limit of tokens."""

    program: str
    quality: Quality
    tokens: int
    finished: bool


def print_answers(answers: Mapping[str, Sequence[Answer]], console: Console | None = None) -> None:
    """Print the programs of each model, which are equally many, and the mean scores where there are several."""
    from rich.console import Console

    console = console or Console(highlight=False)
    several = len(next(iter(answers.values()))) > 1
    side_by_side = console.is_terminal and console.width >= COLUMN * len(answers)
    for number, row in enumerate(zip(*answers.values(), strict=True), 1):
        if several:
            _line(console, f"Program {number}", "bold")
        if side_by_side:
            _side_by_side(console, dict(zip(answers, row, strict=True)))
            continue
        for name, answer in zip(answers, row, strict=True):
            _line(console, _heading(name, answer), "bold")
            _program(console, answer.program)
            _line(console, "\n".join(["", *_remarks(answer), ""]))
    if several:
        means = [f"{name} {fmean(one.quality.score for one in some):.2f}" for name, some in answers.items()]
        _line(console, f"Mean pylint score: {', '.join(means)}")


def _heading(name: str, answer: Answer) -> str:
    return f"{name}: pylint {answer.quality.score:.2f}"


def _remarks(answer: Answer) -> list[str]:
    """Return the messages of pylint, and whether the answer was cut off."""
    messages = sorted(answer.quality.messages, key=lambda one: one.line)
    lines = [f"  line {one.line}: {one.id} ({one.symbol})" for one in messages]
    lines = lines or ["  no messages"]
    if not answer.finished:
        lines.append(f"  cut off after {answer.tokens} tokens (max_new_tokens)")
    return lines


def _program(console: Console, program: str) -> None:
    """Print a program; to a file or a pipe as it is."""
    if console.is_terminal:
        console.print(_coloured(program))
    else:
        console.file.write(program.rstrip("\n") + "\n")


def _coloured(program: str, numbered: bool = False) -> Syntax:
    """Return a program for a terminal, which obeys no control character that a model wrote."""
    from rich.syntax import Syntax

    looks = {"theme": "ansi_dark", "background_color": "default", "word_wrap": True, "line_numbers": numbered}
    return Syntax(program.rstrip("\n").translate(CONTROLS), "python", **looks)


def _side_by_side(console: Console, row: Mapping[str, Answer]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in row:
        table.add_column(ratio=1)
    table.add_row(*(Text(_heading(name, answer), "bold") for name, answer in row.items()))
    table.add_row(*(_coloured(answer.program, numbered=True) for answer in row.values()))
    table.add_row(*(Text("\n".join(["", *_remarks(answer), ""])) for answer in row.values()))
    console.print(table)


def _line(console: Console, text: str, style: str = "") -> None:
    if console.is_terminal:
        console.print(text, style=style, markup=False, soft_wrap=True)
    else:
        console.file.write(text + "\n")
