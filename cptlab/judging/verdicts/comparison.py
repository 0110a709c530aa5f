"""Compare answers with expected values, by the rules `strict` and `official`.

Strict, returned values: exact, with types told apart (1, 1.0 and True differ; NaN equals NaN). A tuple counts as the list of
its items, because tests are JSON and cannot tell them apart. Subclasses (Counter, namedtuple, IntEnum) and numpy's numbers
count as their built-in base. Dict keys are strings. An object that is not data equals nothing.
Strict, standard output: as text, without blanks at the ends of lines and without blank lines at the end.
The rule `official` is APPS's own (apps_rules.py).
"""

from __future__ import annotations

import math
from typing import Any

from cptlab.judging.verdicts import apps_rules


def same_value(expected: Any, encoded: Any) -> bool:
    """Whether `encoded`, made by `wire.encode` or by an adversary, stands for the JSON value `expected`."""
    if isinstance(expected, (list, tuple)):
        items = encoded["tuple"] if isinstance(encoded, dict) and list(encoded) == ["tuple"] else encoded
        if not isinstance(items, list) or len(items) != len(expected):
            return False
        return all(same_value(one, item) for one, item in zip(expected, items, strict=True))
    if isinstance(expected, dict):
        pairs = encoded["dict"] if isinstance(encoded, dict) and list(encoded) == ["dict"] else None
        if not isinstance(pairs, list) or len(pairs) != len(expected):
            return False
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            return False
        found = dict(pairs)
        return found.keys() == expected.keys() and all(same_value(expected[key], found[key]) for key in expected)
    if type(expected) is int and not -(1 << 63) <= expected < 1 << 63:
        return encoded == {"int": hex(expected)}
    if type(expected) is float and math.isnan(expected):
        return type(encoded) is float and math.isnan(encoded)
    return type(encoded) is type(expected) and encoded == expected


def same_output(expected: str, printed: str) -> bool:
    """Whether two texts agree but for blanks at the ends of lines and blank lines at the end."""
    return _lines(expected) == _lines(printed)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def value_matches(rule: str, expected: Any, encoded: Any) -> bool:
    """Whether `encoded` stands for the JSON value `expected` under `rule`."""
    if rule == "strict":
        return same_value(expected, encoded)
    try:
        return apps_rules.accepts_value(expected, _json_value(encoded))
    except (ValueError, RecursionError):
        return False


def output_matches(rule: str, expected: str, printed: str) -> bool:
    """Whether a script's output is the expected one under `rule`."""
    return same_output(expected, printed) if rule == "strict" else apps_rules.accepts_output(expected, printed)


def _json_value(encoded: Any) -> Any:
    """Return the value that `encoded` stands for, if tests can expect it. ValueError for others, which can be costly."""
    if isinstance(encoded, list):
        return [_json_value(item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    ((kind, content),) = encoded.items()
    if kind == "tuple" and isinstance(content, list):
        return tuple(_json_value(item) for item in content)
    if kind == "int" and isinstance(content, str):
        return int(content, 16)
    if kind == "dict" and isinstance(content, list):
        pairs = [pair for pair in content if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)]
        if len(pairs) == len(content):
            return {key: _json_value(item) for key, item in pairs}
    raise ValueError("not JSON data")
