"""Find the calls of a benchmark's tests that can be prefetched, because they are known before the tests run.

A test such as `assert candidate([1, 2]) == 3` calls the program once, with values that stand in its text. The calls of
the first tests of that form are requested all at once, which saves two changes between processes for each.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence

from cptlab.judging.execution.wire import encode

# where a part may be left out, or run more than once
_CONDITIONAL = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.comprehension, ast.NamedExpr, ast.Await, ast.Yield)


def known_calls(tests: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, JSON of the encoded arguments) for each of the first tests that make one known call of one of `names`."""
    calls = []
    for test in tests:
        call = _only_call(test, names)
        if call is None:
            break
        calls.append(call)
    return calls


def _only_call(test: str, names: Sequence[str]) -> tuple[str, str] | None:
    try:
        (statement,) = ast.parse(test).body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(statement, ast.Assert) or any(isinstance(node, _CONDITIONAL) for node in ast.walk(statement)):
        return None
    if any(isinstance(node, ast.Compare) and len(node.ops) > 1 for node in ast.walk(statement)):
        return None
    uses = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id in names]
    calls = [node for node in ast.walk(statement.test) if isinstance(node, ast.Call) and node.func in uses]
    if len(uses) != 1 or len(calls) != 1 or calls[0].keywords:
        return None
    try:
        arguments = [encode(ast.literal_eval(argument), _refuse) for argument in calls[0].args]
    except ValueError:  # no literal, or none that goes by value
        return None
    return uses[0].id, json.dumps(arguments)


def _refuse(value: object) -> None:
    raise ValueError(f"{type(value)} does not go by value")
