"""APPS's own comparison rules (`official`), for figures beside published ones. The rule `strict` is the one to trust.

Source: Hendrycks et al. 2021, github.com/hendrycks/apps, eval/testing_util.py (run_test, custom_compare_), commit
362aedc3. Only the comparison is reproduced, not the execution: there the program is rewritten as a function body,
standard input is a stand-in, and the comparison runs in the program's own process.

Accepts wrongly, standard output: lines in any order, each any number of times; tokens within a line in any order, each
any number of times; numbers, one per line, within 1e-8 + 1e-5 |expected| (100001 for 100000); numbers equal after
rounding to three decimals (0.0004 for 0). Accepts wrongly, returned values: x for [x, ...], so the first item alone for
a list; 1, 1.0 and True for each other; where a list starts with a dict of integer keys, that dict for the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def accepts_output(expected: str | list[str], printed: str) -> bool:
    """Whether APPS accepts `printed`, the whole standard output, for `expected` (a list stands for its lines).

    Time and memory are linear in both. What is neither text nor a list of texts equals nothing: the harness raises.
    """
    if isinstance(expected, list) and all(isinstance(line, str) for line in expected):
        expected = "\n".join(expected)
    if not isinstance(expected, str):
        return False
    lines = printed.splitlines()  # also at \r, \f and the like; the expected text is cut at \n only
    for candidate in (lines, [line.strip() for line in lines]):
        if "\n".join(candidate).strip() == expected.strip():
            return True
    wanted = [line.strip() for line in expected.split("\n") if line]  # a line of blanks alone stays, as ""
    if lines == wanted:
        return True
    lines = [line for line in lines if line]
    if lines == wanted or _close(lines, wanted):
        return True
    return _same_token_sets(lines, wanted, str) or _same_token_sets(lines, wanted, _rounded)


def _close(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether all lines are numbers, close to the wanted ones; the tolerance is relative to the wanted number."""
    if len(lines) != len(wanted):
        return False
    try:
        numbers, wanted_numbers = [float(line) for line in lines], [float(line) for line in wanted]
    except ValueError:
        return False
    with np.errstate(all="ignore"):
        return bool(np.allclose(numbers, wanted_numbers, rtol=1e-5, atol=1e-8))


def _same_token_sets(lines: Sequence[str], wanted: Sequence[str], read: Callable[[str], Any]) -> bool:
    """Whether both are the same set of sets of tokens, as `read` understands tokens; False where it raises ValueError.

    Lines without tokens are left out of `lines` only. A flood of text costs little: equal lines are read once, and the
    first token that is not wanted ends it.
    """
    try:
        wanted_sets = {frozenset(map(read, line.split())) for line in wanted}
        vocabulary, found = frozenset().union(*wanted_sets), set()
        for line in set(lines):
            tokens = set()
            for token in map(read, set(line.split())):
                if token not in vocabulary:
                    return False
                tokens.add(token)
            if tokens and tokens not in wanted_sets:
                return False
            if tokens:
                found.add(frozenset(tokens))
    except ValueError:
        return False
    return found == wanted_sets


def _rounded(token: str) -> float:
    return round(float(token), 3)


def accepts_value(expected: Any, value: Any) -> bool:
    """Whether APPS accepts the returned `value` for the JSON value `expected`, one entry of "outputs" as it stands there.

    A tuple counts as a list at the top; against `expected[0]`, so do all items if the first is one. A dict that is
    `expected` or its first item gets integer keys if all can be read so. Items are compared by Python's ==, but a NaN
    equals nothing (in a list == goes by identity, which means nothing across processes), nor does a NumPy array (the
    harness nearly always fails on one). The time depends on `expected`; nothing lazy in `value` is unrolled.
    """
    wanted = _with_integer_keys(expected)
    try:
        output = list(value) if isinstance(value, tuple) else value
        if _equal(wanted, output) or (isinstance(wanted, list) and wanted and _equal(wanted[0], output)):
            return True
        if not isinstance(output[0], tuple) or not isinstance(wanted[0], list) or len(output) != len(wanted[0]):
            return False
        return all(len(row) == len(items) and _equal(items, list(row)) for items, row in zip(wanted[0], output))
    except (TypeError, LookupError, ValueError, ArithmeticError, RecursionError):  # not comparable: wrong there, too
        return False


def _with_integer_keys(expected: Any) -> Any:
    first = expected[0] if isinstance(expected, list) and expected else expected
    try:
        return [{int(key): item for key, item in first.items()}] if isinstance(first, dict) else expected
    except ValueError:
        return expected


def _equal(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(value, list) and len(value) == len(wanted) and all(map(_equal, wanted, value))
    if isinstance(wanted, dict):
        if not isinstance(value, dict) or len(value) != len(wanted):
            return False
        return all(key in value and _equal(item, value[key]) for key, item in wanted.items())
    return not isinstance(value, np.ndarray) and bool(value == wanted)
