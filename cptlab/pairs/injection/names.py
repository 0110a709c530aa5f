"""Injectors of messages about variables and statements that do nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from cptlab.pairs.injection.edits import Edit
from cptlab.pairs.injection.source import Source

UNUSED = ("temp = 0", "n = 0", "flag = False", "count = 0", "size = 0", "found = False")
BUILTINS = ("list", "sum", "str", "dict", "max", "min", "id", "type", "input")


def unused_variable(source: Source) -> Iterator[list[Edit]]:
    """W0612: a variable of a function that nothing reads."""
    for function in source.functions():
        for line in UNUSED:
            if line.split()[0] not in source.names:
                yield from _inserted(source, source.statements(function)[:1], line)


def redefined_builtin(source: Source) -> Iterator[list[Edit]]:
    """W0622: a variable of a function or script named as a builtin, from one of its assignments on."""
    functions = [source.statements(function) for function in source.functions()]
    for body in functions or [source.tree.body]:
        for place, statement in enumerate(body):
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
                continue
            target = statement.targets[0]
            if not isinstance(target, ast.Name) or any(source.walk(ast.Lambda, ast.FunctionDef, within=statement)):
                continue
            new = _builtin_for(source, statement.value)
            if new is None:
                continue
            later = [node for one in body[place + 1 :] for node in source.walk(ast.Name, within=one)]
            named = [node for node in [target, *later] if isinstance(node, ast.Name) and node.id == target.id]
            if len(named) > 1 and all(source.code(node) == target.id for node in named):
                yield [source.replace(node, new) for node in named]


def pointless_statement(source: Source) -> Iterator[list[Edit]]:
    """W0104: the returned variable as a statement of its own, before the `return`."""
    for function in source.functions():
        last = function.body[-1]
        if isinstance(last, ast.Return) and isinstance(last.value, ast.Name):
            yield from _inserted(source, [last], last.value.id)


def _inserted(source: Source, before: Sequence[ast.stmt], line: str) -> Iterator[list[Edit]]:
    for statement in before:
        indent = source.indent(statement)
        if indent:
            yield [Edit(source.start(statement), source.start(statement), f"{line}\n{indent}")]


def _builtin_for(source: Source, value: ast.expr) -> str | None:
    """A builtin that people would name such a value, and that the program does not use."""
    call = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
    method = value.func.attr if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) else ""
    if isinstance(value, (ast.List, ast.ListComp)) or call in ("sorted", "list") or method == "split":
        wanted = ("list",)
    elif isinstance(value, (ast.Dict, ast.DictComp)) or call == "dict":
        wanted = ("dict",)
    elif isinstance(value, ast.JoinedStr) or call == "str" or method in ("join", "upper", "lower", "replace", "format"):
        wanted = ("str",)
    elif call in ("sum", "len", "max", "min", "int", "abs") or isinstance(value, (ast.BinOp, ast.Constant)):
        wanted = ("sum", "max", "min")
    else:
        wanted = BUILTINS
    return next((name for name in wanted if name not in source.names), None)
