"""Whether what came back is what was expected: the rules `strict` and `official`.

Call-based, strict: exact, with types told apart (1, 1.0 and True differ; NaN equals NaN). A tuple counts as the list of
its items, because tests are JSON and cannot tell them apart; subclasses (Counter, namedtuple, IntEnum) and numpy's numbers
count as their plain base; dict keys are strings; anything that is not plain data equals nothing. Script, strict: stdout as
text, without blanks at the ends of lines and without blank lines at the end. `official` is APPS's own (official.py).
"""

from __future__ import annotations

import math
from typing import Any

from cptlab.judging.verdicts.apps_rules import same_output_official, same_value_official


def same_value(expected: Any, encoded: Any) -> bool:
    """Whether `encoded`, made by `plain.encode` or by an adversary, stands for the JSON value `expected`."""
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


def same_json_value(rule: str, expected: Any, encoded: Any) -> bool:
    """Whether `encoded` stands for the JSON value `expected` under a rule."""
    if rule == "strict":
        return same_value(expected, encoded)
    try:
        return same_value_official(expected, _json_value(encoded))
    except (ValueError, RecursionError):
        return False


def same_text(rule: str, expected: str, printed: str) -> bool:
    """Whether a script's output is the expected one under a rule."""
    return same_output(expected, printed) if rule == "strict" else same_output_official(expected, printed)


def _json_value(encoded: Any) -> Any:
    """The value that `encoded` stands for, if tests can expect it. ValueError for others, which can be costly to make."""
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
    raise ValueError("no value that JSON has")
