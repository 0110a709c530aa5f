"""The parts of a model's text that may be programs: fenced blocks, repeated prompts, stretches of Python between prose."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence

from cptlab.judging.cleaning.python_source import Parser, is_inert
from cptlab.judging.cleaning.special_tokens import SpecialTokens
from cptlab.records import Task

FENCE = re.compile(r"(?:`{3,}|~{3,})(?:[ \t]*([\w+.#-]*)[ \t]*$)?", re.MULTILINE)
MAX_FENCES = 60  # of one text that are looked at
STATEMENT = re.compile(
    r"(?:from|import|def|class|async|if|for|while|try|with)\b|[@#\"']|[A-Za-z_][\w.]*\("
    r"|[A-Za-z_][\w.,\[\] ]*(?::[^=]+)?[-+*/|&]?=(?!=)"
)
# statements of other versions of Python than the one that judges: they are no prose, so a program with them stays whole
OTHER_PYTHON = re.compile(
    r"^[ \t]*(?:type[ \t]+[^\W\d]\w*[ \t]*(?:\[[^\]\n]*\][ \t]*)?=[^=]|(?:async[ \t]+)?def[ \t]+\w+[ \t]*\[|class[ \t]+\w+[ \t]*\["
    r"|except[ \t]+[\w.]+[ \t]*,[^:\n]*:|(?:print|exec)[ \t]+[\"'])"
    r"|\b[fF]\"(?:[^\"{}\n]|\{\{|\}\}|\{[^\"{}\n]*\})*\{[^\"{}\n]*\"",  # f"{x["key"]}"
    re.MULTILINE,
)
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL)
_PYTHON = ("", "python", "python3", "py", "py3")
_MAX_CLOSINGS, _MAX_CUTS = 6, 40


def normalise(text: str, tokens: SpecialTokens) -> str:
    """Remove thoughts, byte order mark and carriage returns, and turn special tokens into fences."""
    return tokens.as_fences(_THOUGHT.sub("", text).replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff"))


def without_prompt(text: str, task: Task) -> tuple[str, bool]:
    """Return the text without the prompt, if it begins by repeating it, and whether it does."""
    start = text.lstrip()
    for prompt in (task.prompt.text.strip(), task.prompt.code.strip()):
        if prompt and start.startswith(prompt):
            return start[len(prompt) :], True
    return text, False


def arrangements(text: str, code: str) -> Iterator[tuple[str, str]]:
    """Yield (head, body): the text alone or behind the prompt's code, as it is and with its indentation repaired."""
    dedented = textwrap.dedent(text) if text[:1].isspace() else text
    yield "", text
    if code:
        yield code, text
    if dedented != text:
        yield "", dedented
    if code and text.strip():
        head, indent = code if code.endswith("\n") else code + "\n", _body_indent(code)
        yield head, indent + text.lstrip()
        yield head, textwrap.indent(textwrap.dedent(text).strip("\n"), indent) + "\n"


def _body_indent(code: str) -> str:
    """Return the indentation of the body that `code` has begun or is about to begin."""
    last = next((line for line in reversed(code.split("\n")) if line.strip()), "")
    indent = last[: len(last) - len(last.lstrip())]
    return indent + "    " if last.rstrip().endswith(":") else indent or "    "


def fenced_blocks(
    text: str, fences: Sequence[re.Match], closings: int = _MAX_CLOSINGS
) -> Iterator[tuple[int, int, str]]:
    """Yield (opening, closing, content) for every fence and each of the next fences as its end, or the end of the text.

    The nearest fence need not be the right one: a docstring may hold fences of its own.
    """
    for opening, fence in enumerate(fences):
        if (fence[1] or "").lower() not in _PYTHON:
            continue
        for closing in range(opening + 1, min(opening + closings, len(fences)) + 1):
            block = text[fence.end() : fences[closing].start() if closing < len(fences) else len(text)]
            block = block.lstrip("\n")
            if block.strip():
                yield opening, closing, block


def _is_stop(line: str) -> bool:
    """Whether a top-level statement, or anything that is not Python, may begin with this line."""
    return bool(line.strip()) and (not line[0].isspace() or line.lstrip().startswith(("```", "~~~")))


def python_ends(lines: Sequence[str], parser: Parser, head: str = "") -> Iterator[tuple[int, ast.Module]]:
    """Yield, once or not at all, how many of the lines are Python behind `head`, up to a stop, and their tree."""
    stops = [number for number, line in enumerate(lines) if number and _is_stop(line)]
    end = len(lines)
    for _ in range(_MAX_CUTS):
        answer = parser.parse(head + "\n".join(lines[:end]))
        if not isinstance(answer, SyntaxError):
            if answer is not None:
                yield end, answer
            return
        wrong = (answer.lineno or 1) - 1 - head.count("\n")
        end = max((stop for stop in stops if stop < end and stop <= wrong), default=0)
        if not end:
            return


def python_stretches(text: str, parser: Parser) -> Iterator[str]:
    """Yield the parts of `text` that are Python and more than mere words, in order; indented ones without their indent."""
    lines = text.split("\n")
    start = 0
    while start < len(lines) and parser.left:
        line = lines[start]
        length = 0
        if STATEMENT.match(line.lstrip()):
            indent = line[: len(line) - len(line.lstrip())]
            end = start + 1
            while end < len(lines) and (lines[end].startswith(indent) or not lines[end].strip()):
                end += 1
            part = [each[len(indent) :] for each in lines[start:end]]
            for count, tree in python_ends(part, parser):
                inert = next((statement.lineno for statement in tree.body if is_inert(statement)), count + 1)
                length = min(count, inert - 1) if tree.body else 0
            if length:
                yield "\n".join(part[:length]) + "\n"
        start += max(length, 1)


def as_is(text: str, fences: Sequence[re.Match], code: str, begins: re.Pattern | None) -> str:
    """Return the most program-like part of a text that does not parse: its longest block, else all of it."""
    blocks = [block for _, _, block in fenced_blocks(text, fences, 1)]
    if begins is not None:
        blocks = [block for block in blocks if begins.search(block)] or blocks
    best = max(blocks, key=len, default=text)
    return best if begins is not None and begins.search(best) else code + best
