"""Decide when decoding stops, and cut the program there.

A program ends at an end-of-text token, at the limit of new tokens, before a stop text, or with the function that its
prompt opens. Tokens show the first two at once. The text shows the others, and the engine looks at it every few steps:

    stopping = StoppingCriteria(texts=(*prompt.stops, *sampling.stop), function_end=True)
    # for each running row; `seen` is the length of the row's text at the last look (0 at first)
    over = stopping.end(prompt.code, text, seen) >= 0
    # once for each finished row
    ids, raw, text, stopped = stopping.cut(backbone, ids, prompt.code, healed)
    program, finished = prompt.code + text, stopped or ids[-1] in backbone.eos_ids

`healed` is the text that token healing makes the model repeat, and "" without healing. A text that shows its end still
shows it when more text follows, so a program does not depend on how often the engine looks.
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

from torch import Tensor

from cptlab.backbone import Backbone

_OPENS = re.compile(r"^(?:async\b|def\b|class\b|@)", re.MULTILINE)
# a character in column 0 that is neither blank nor a comment; a line that begins with a backslash continues on the next
_COLUMN_0 = re.compile(r"(?:^|(?<=\r))[^ \t\f\r\n#\\]", re.MULTILINE)
_NEWLINE = re.compile(r"\r\n|\r|\n")
_UNFINISHED = 4  # the last characters may still change: the next token may hold the other bytes of one of them
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def ended_by_token(tokens: Tensor, eos: Tensor, lengths: Tensor | int, limits: Tensor | int) -> Tensor:
    """Return which rows [R] end with their last token, `tokens` [R]: at an end-of-text token or at their limit.

    `eos` holds the end-of-text tokens, `lengths` the number of new tokens of each row, the last one included.
    """
    return (tokens[:, None] == eos).any(-1) | (lengths >= limits)


class Cut(NamedTuple):
    """A completion up to the token that shows its end.

    `raw` is the text of `ids`, and `program` is the part of it that belongs to the program. `stopped` is False if the
    text shows no end, so nothing was cut.
    """

    ids: list[int]
    raw: str
    program: str
    stopped: bool


@dataclass(frozen=True)
class StoppingCriteria:
    """A program ends before the first of `texts` and, with `function_end`, with the function that its prompt opens."""

    texts: tuple[str, ...] = ()
    function_end: bool = False

    def __bool__(self) -> bool:
        """Whether a text can end a program at all."""
        return bool(self.texts) or self.function_end

    def end(self, code: str, text: str, start: int = 0) -> int:
        """Return where the program ends in `text`, which continues the program text `code`, or -1 if it does not end.

        The function is over if something new begins in column 0, outside of brackets and strings, and all before it
        parses. The program then ends with the function's last line, without the blank lines and comments behind it.
        A function that has no body but a docstring is not over, because models repeat the signature. If `code` opens no
        function, as in a script, only `texts` end a program.

        `start` is a length at which this text showed no end yet. The text before it is not searched again.
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
                continue  # the text continues a line of the code
            before = code + text[: match.start()]
            # `pass` replaces what begins here. Within a continued line it would not parse.
            last = _last_line(before + "pass\n", code)
            if last:
                return max(0, _line_end(before, last) - len(code))
        return -1

    def cut(self, backbone: Backbone, ids: Sequence[int], code: str, healed: str = "") -> Cut:
        """Cut a completion to the shortest beginning of its token ids whose text shows an end."""

        def text(length: int) -> str:
            return backbone.decode(ids[:length])[len(healed) :]

        def ended(length: int) -> bool:
            return self.end(code, text(length)) >= 0

        if not ended(len(ids)):
            return Cut(list(ids), text(len(ids)), text(len(ids)), False)
        # `ended` is false up to some length and true from there on, because the characters that make it true do not
        # change with later tokens. A character cut within its bytes shows as U+FFFD, which begins a statement as well.
        length = 1 + bisect.bisect_left(range(1, len(ids)), True, key=ended)
        raw = text(length)
        return Cut(list(ids[:length]), raw, raw[: self.end(code, raw)], True)


def _last_line(source: str, code: str) -> int:
    """Return the last line of the last statement but one in `source`, or 0 if the function that `code` opens is not
    complete."""
    digits = sys.get_int_max_str_digits()  # some libraries lift the limit, sympy for one
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes
            body = ast.parse(source).body[:-1]
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return 0  # also for null bytes, surrogates and deep nesting
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
    last = body[-1].end_lineno
    assert last is not None
    return last


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def _has_body(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Return whether a function has more than a docstring. If a class ends with a method, the method must have it."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return bool(body) and (not isinstance(body[-1], _FUNCTION) or _has_body(body[-1]))


def _line_end(before: str, last: int) -> int:
    """Return the end of line `last` (from 1) or of the last indented comment behind it, newline included."""
    starts = [0, *(match.end() for match in _NEWLINE.finditer(before))]
    starts.append(len(before))
    while before[starts[last - 1] : starts[last]].rstrip("\r\n").endswith("\\") and last + 1 < len(starts):
        last += 1  # a continuation line, which is empty
    end = starts[last]
    for begin, following in zip(starts[last:], starts[last + 1 :], strict=False):
        line = before[begin:following]
        if line.strip() and line[0] in " \t":
            end = following
    return end
