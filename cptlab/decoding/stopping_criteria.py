"""Where a program ends in what the model writes: at a stop text, or where the function that the prompt opens is over.

How the engine calls it, with `healed` the text that healing (token_healing.py) makes the model repeat, '' without healing:

    stopping = StoppingCriteria(texts=sampling.stop, function_end=True)
    # every few steps, for each running row; `seen` is the length of the row's text at the last look (0 at first)
    text = backbone.decode(ids)[len(healed):]
    over = stopping.end(prompt.code, text, seen) >= 0
    # once per finished row, whenever its end was noticed
    ids, raw, text, stopped = stopping.cut(backbone, ids, prompt.code, healed)
    program, finished = prompt.code + text, stopped or ids[-1] in backbone.eos_ids

A text that shows its end still shows it when more follows, so a program does not depend on how often the engine looks.
"""

from __future__ import annotations

import ast
import bisect
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cptlab.backbone import Backbone

_OPENS = re.compile(r"^(?:async\b|def\b|class\b|@)", re.MULTILINE)
# what stands in column 0 and is neither blank nor a comment; a line that begins with a backslash goes on with the next
_COLUMN_0 = re.compile(r"(?:^|(?<=\r))[^ \t\f\r\n#\\]", re.MULTILINE)
_NEWLINE = re.compile(r"\r\n|\r|\n")
_UNFINISHED = 4  # the last characters of a text may still change: bytes of one whose other bytes are in the next token
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Cut(NamedTuple):
    """The tokens of one completion up to the one that shows its end: their text `raw`, what of it belongs to the
    program, and whether it was `stopped` there (else nothing was cut)."""

    ids: list[int]
    raw: str
    program: str
    stopped: bool


@dataclass(frozen=True)
class StoppingCriteria:
    """A program ends before the first of `texts`; and, with `function_end`, with the function that its prompt opens."""

    texts: tuple[str, ...] = ()
    function_end: bool = False

    def end(self, code: str, text: str, start: int = 0) -> int:
        """Where in `text`, which continues the program text `code`, the program ends, or -1 while it does not.

        The function is over where something new stands in column 0 outside of brackets and strings and all before it
        parses: the program then ends with the function's last line, blank lines and comments behind it are left out.
        A function without a body, its docstring aside, is not over: models repeat the signature. Where `code` opens no
        function, as in a script, only `texts` end a program.

        `start`: a length at which this text showed no end yet; what was looked at then is not looked at again.
        """
        start = max(0, start - _UNFINISHED)
        ends = [text.find(stop, max(0, start - len(stop))) for stop in self.texts]
        if self.function_end and _OPENS.search(code):
            ends.append(self._function_end(code, text, start))
        return min((end for end in ends if end >= 0), default=-1)

    @staticmethod
    def _function_end(code: str, text: str, start: int) -> int:
        for match in _COLUMN_0.finditer(text, start):
            if match.start() == 0 and not code.endswith(("\n", "\r")):
                continue  # the text goes on in the middle of a line
            before = code + text[: match.start()]
            # a statement of its own is put in its place: it would not parse within a continued line
            last = _last_line(before + "pass\n", code)
            if last:
                return max(0, _line_end(before, last) - len(code))
        return -1

    def cut(self, backbone: Backbone, ids: Sequence[int], code: str, healed: str = "") -> Cut:
        """What is kept of a completion's token ids: the shortest beginning whose text shows an end."""

        def text(length: int) -> str:
            return backbone.decode(ids[:length])[len(healed) :]

        def ended(length: int) -> bool:
            return self.end(code, text(length)) >= 0

        if not ended(len(ids)):
            return Cut(list(ids), text(len(ids)), text(len(ids)), False)
        # `ended` is false up to some length and true from there on: what makes it true are characters that no later
        # token changes (of one cut within its bytes only U+FFFD is seen, which begins a statement as well as it does)
        length = 1 + bisect.bisect_left(range(1, len(ids)), True, key=ended)
        raw = text(length)
        return Cut(list(ids[:length]), raw, raw[: self.end(code, raw)], True)


def _last_line(source: str, code: str) -> int:
    """The last line of the statement before the last one in `source`, where the function that `code` opens is
    complete; else 0."""
    digits = sys.get_int_max_str_digits()  # some libraries lift the limit, sympy for one
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes
            body = ast.parse(source).body[:-1]
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return 0  # null bytes, surrogates and deep nesting among them
    finally:
        sys.set_int_max_str_digits(digits)
    lines = 1 + len(_NEWLINE.findall(code)) - code.endswith(("\n", "\r"))
    in_code = [node for node in body if _first_line(node) <= lines]
    if not in_code or not isinstance(in_code[-1], _FUNCTION):
        return 0
    opened = in_code[-1].name
    later = body[len(in_code) - 1 :]
    if not any(isinstance(node, _FUNCTION) and node.name == opened and _has_body(node) for node in later):
        return 0
    return body[-1].end_lineno


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def _has_body(function: ast.stmt) -> bool:
    """Whether there is more than a docstring; a class that ends with a method needs that of it."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return bool(body) and (not isinstance(body[-1], _FUNCTION) or _has_body(body[-1]))


def _line_end(before: str, last: int) -> int:
    """The end of line `last` (from 1), or of the last indented comment behind it, newline included."""
    starts = [0, *(match.end() for match in _NEWLINE.finditer(before))]
    starts.append(len(before))
    while before[starts[last - 1] : starts[last]].rstrip("\r\n").endswith("\\") and last + 1 < len(starts):
        last += 1  # to a continuation, which is empty
    end = starts[last]
    for begin, following in zip(starts[last:], starts[last + 1 :], strict=False):
        line = before[begin:following]
        if line.strip() and line[0] in " \t":
            end = following
    return end
