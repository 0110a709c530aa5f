"""How a task of kata is written as a prompt: two shapes with the same parts.

`leading` is kata's own: a docstring that stands before the function. `docstring` is that of HumanEval: the function's
docstring, so that it belongs to the program; for scripts, a comment. A model that knows both can be asked whether a
prefix that was trained on one shape helps on the other (CPT Table XIII).
"""

from __future__ import annotations

import textwrap
from typing import Any

from cptlab.kata.render import Step
from cptlab.kata.writer import INPUT_NAMES
from cptlab.records import Prompt, Span

SHAPES = ("leading", "docstring")
WIDTH = 76  # of the description in a program's own docstring or comment, where a long line is a message of pylint's
# kata-lm ends by itself; another base model is stopped where it would begin the next task, a fence, a test or a session
STOPS = ('\n"""', "\n```", "\nif __name__", "\n>>> ")


def make_prompt(steps: list[Step], kind: str, text: str, example: tuple[Any, Any], shape: str = "leading") -> Prompt:
    """Return instruction, one example and, for functions, the signature. It ends where a token ends (before a newline)."""
    given, result = example
    shown = f">>> solve({given!r})\n{result!r}"
    if kind == "stdin":
        shown = f"Input: {stdin_text(given)}Output: {printed(result)}".rstrip("\n")
    signature = "" if kind == "stdin" else f"def solve({INPUT_NAMES[steps[0][0].source]}):"
    if shape == "leading":
        margin, head, tail = "", '"""', '\n"""' + (f"\n{signature}" if signature else "")
    elif kind == "stdin":
        margin, head, tail = "# ", "# ", ""
    else:
        margin, head, tail = "    ", f'{signature}\n    """', '\n    """'
    if shape != "leading":
        text = textwrap.fill(text, WIDTH, subsequent_indent=margin)
        shown = shown.replace("\n", f"\n{margin}")
    between = f"\n{margin.rstrip()}\n{margin}"
    whole = head + text + between + shown + tail
    tests_at = len(head) + len(text) + len(between)
    spans = [Span("nl", len(head), len(head) + len(text)), Span("tests", tests_at, tests_at + len(shown))]
    if signature:
        start = whole.index(signature)
        spans.append(Span("code", start, start + len(signature)))
    code = whole[whole.index(signature) :] if signature else ""
    return Prompt(whole, code, tuple(spans), STOPS)


def printed(value: Any) -> str:
    """What a script prints for a result."""
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) + "\n"


def stdin_text(value: Any) -> str:
    """How an input stands on standard input."""
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) + "\n"
