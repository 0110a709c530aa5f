"""The test files of EvalPlus (arXiv 2305.01210): inputs, results, and one loop that compares them.

The loop is cut into parts that each take every tenth input, so that a time limit holds for a tenth of thousands of
calls (EvalPlus limits each call), and a program that never ends is stopped early.
"""

from __future__ import annotations

import re
import textwrap

PARTS = 10
MAX_NEW_TOKENS = 768  # of an answer, as EvalPlus samples it
_LOOP = re.compile(r"^for i, (?:inp in enumerate\(inputs\)|\(inp, exp\) in enumerate\(zip\(inputs, results\)\)):\n"
                   r"(?: +.*\n*)+\Z", re.MULTILINE)  # fmt: skip
_CHECK = "def check(candidate):\n"
# HumanEval/32 unpacks the returned number; EvalPlus's own evaluator has it this way
_REPAIRS = {"assert _poly(*candidate(*inp), inp) <= 0.0001": "assert abs(_poly(*inp, candidate(*inp))) <= 0.0001"}


def loop_tests(source: str) -> tuple[str, list[str]]:
    """Split a test file, or the body of its function `check` if it has one, into its beginning and the parts of its loop.

    Raise ValueError for a file of another form.
    """
    if _CHECK in source:
        head, body = source.split(_CHECK)
        source = head + textwrap.dedent(body)
    loop = _LOOP.search(source)
    if loop is None:
        raise ValueError("its tests do not end with EvalPlus's loop over inputs")
    text = loop.group().rstrip() + "\n"
    for wrong, right in _REPAIRS.items():
        text = text.replace(wrong, right)
    header, body = text.split("\n", 1)
    parts = [re.sub(r"\b(inputs|results)\b", rf"\1[{part}::{PARTS}]", header) + "\n" + body for part in range(PARTS)]
    return source[: loop.start()], parts
