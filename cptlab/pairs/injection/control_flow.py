"""Injectors of messages about branches and returns."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from cptlab.pairs.injection.edits import Edit
from cptlab.pairs.injection.source import Source

RESULTS = ("result", "value", "output", "answer")
RETURNS, BRANCHES = 7, 13  # one more than pylint allows


def _else_after(source: Source, leaving: type) -> Iterator[list[Edit]]:
    """Put what follows an `if` that leaves the block under an `else`."""
    for block in source.blocks():
        for place, statement in enumerate(block[:-1]):
            if isinstance(statement, ast.If) and not statement.orelse and isinstance(statement.body[-1], leaving):
                rest = block[place + 1 :]
                indent, moved = source.indent(statement), source.indented(rest)
                if indent is not None and moved is not None:
                    start = source.start(rest[0])  # and not its line's, so that the white space before it stays a token
                    yield [Edit(start, start, f"else:\n{indent}    "), *moved[1:]]


def no_else_return(source: Source) -> Iterator[list[Edit]]:
    """R1705: `else` after `return`; where no `return` is followed by more, of a conditional expression or a test for None."""
    yield from _else_after(source, ast.Return)
    for function in source.functions():
        last = function.body[-1]
        if isinstance(last, ast.Return) and isinstance(last.value, ast.IfExp):
            value = last.value
            test, then, other = (source.code(part) for part in (value.test, value.body, value.orelse))
            yield from _lines(source, last, [f"if {test}:", f"    return {then}", "else:", f"    return {other}"])
        elif (found := _returned(source, last)) is not None:
            name, before = found
            lines = [*before, f"if {name} is None:", "    return None", "else:", f"    return {name}"]
            yield from _lines(source, last, lines)


def no_else_raise(source: Source) -> Iterator[list[Edit]]:
    """R1720: `else` after `raise`."""
    return _else_after(source, ast.Raise)


def no_else_break(source: Source) -> Iterator[list[Edit]]:
    """R1723: `else` after `break`."""
    return _else_after(source, ast.Break)


def no_else_continue(source: Source) -> Iterator[list[Edit]]:
    """R1724: `else` after `continue`."""
    return _else_after(source, ast.Continue)


def inconsistent_return(source: Source) -> Iterator[list[Edit]]:
    """R1710: the last `return` under a condition that holds unless it would return None."""
    for function in source.functions():
        last = function.body[-1]
        if (found := _returned(source, last)) is not None:
            name, before = found
            yield from _lines(source, last, [*before, f"if {name} is not None:", f"    return {name}"])


def too_many_returns(source: Source) -> Iterator[list[Edit]]:
    """R0911: special cases before the last `return`, each of which returns the same."""
    for function in source.functions():
        last = function.body[-1]
        if (found := _returned(source, last)) is not None:
            name, before = found
            there = sum(1 for _ in source.walk(ast.Return, within=function))
            cases = (f"if {name} == {case}:\n    return {name}" for case in range(max(RETURNS - there, 1)))
            lines = [line for case in cases for line in case.split("\n")]
            yield from _lines(source, last, [*before, *lines, f"return {name}"])


def too_many_branches(source: Source) -> Iterator[list[Edit]]:
    """R0912: branches before the last `return` that do nothing."""
    for function in source.functions():
        last = function.body[-1]
        if (found := _returned(source, last)) is not None:
            name, before = found
            there = sum(1 for _ in source.walk(ast.If, ast.For, ast.While, within=function))
            lines = []
            for case in range(max(BRANCHES - there, 1)):
                lines += [f"{'elif' if case else 'if'} {name} == {case}:", "    pass"]
            yield from _lines(source, last, [*before, *lines, f"return {name}"])


def multiple_statements(source: Source) -> Iterator[list[Edit]]:
    """C0321: the only statement of an `if` on its line."""
    for node in source.walk(ast.If, ast.For):
        assert isinstance(node, (ast.If, ast.For))
        body, head = node.body[0], node.test if isinstance(node, ast.If) else node.iter
        simple = not hasattr(body, "body")
        if len(node.body) == 1 and simple and not node.orelse and source.indent(body) is not None:
            colon = source.text.rfind(":", source.end(head), source.start(body))
            if colon >= 0 and not source.text[colon + 1 : source.start(body)].strip():
                yield [Edit(colon + 1, source.start(body), " ")]


def _returned(source: Source, last: ast.stmt) -> tuple[str, list[str]] | None:
    """Return the name of what a statement returns, and the line that gives it one, if any; None where it returns nothing."""
    if not isinstance(last, ast.Return) or last.value is None:
        return None
    if isinstance(last.value, ast.Name):
        return last.value.id, []
    name = source.fresh(*RESULTS)
    return None if name is None else (name, [f"{name} = {source.code(last.value)}"])


def _lines(source: Source, statement: ast.stmt, lines: list[str]) -> Iterator[list[Edit]]:
    """Put lines in the place of a statement. What both begin or end with is no part of the edit."""
    indent = source.indent(statement)
    if indent is None or any("\n" in line for line in lines):
        return
    old, new = source.code(statement), f"\n{indent}".join(lines)
    if new.endswith(f"\n{indent}{old}"):
        yield [Edit(source.start(statement), source.start(statement), new.removesuffix(old))]
    else:
        yield [source.replace(statement, new)]
