"""Injectors of messages about conditions, literals and calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from cptlab.pairs.injection.edits import Edit
from cptlab.pairs.injection.source import Source


def use_in(source: Source) -> Iterator[list[Edit]]:
    """R1714: `x in "aei"` as `x == "a" or x == "e" or x == "i"`."""
    alone = {id(test) for test, _ in source.conditions()}
    alone |= {id(node.value) for node in source.walk(ast.Return, ast.Assign)}  # type: ignore[attr-defined]
    for node in source.walk(ast.Compare):
        assert isinstance(node, ast.Compare)
        found = _members(node.comparators[0])
        if (
            len(node.ops) == 1
            and isinstance(node.ops[0], (ast.In, ast.NotIn))
            and isinstance(node.left, ast.Name)
            and found
        ):
            equal, joint = ("==", " or ") if isinstance(node.ops[0], ast.In) else ("!=", " and ")
            text = joint.join(f"{node.left.id} {equal} {member}" for member in found)
            yield [source.replace(node, text if id(node) in alone else f"({text})")]


def singleton_comparison(source: Source) -> Iterator[list[Edit]]:
    """C0121: a condition compared with True."""
    for test, _ in source.conditions():
        if isinstance(test, (ast.Compare, ast.Call)):
            text = source.code(test)
            yield [source.replace(test, f"{text} == True" if isinstance(test, ast.Call) else f"({text}) == True")]


def superfluous_parens(source: Source) -> Iterator[list[Edit]]:
    """C0325: parentheses around a whole condition or a returned value."""
    whole = [test for test, kind in source.conditions() if kind == "statement"]
    whole += [node.value for node in source.walk(ast.Return) if node.value is not None]  # type: ignore[attr-defined]
    for node in whole:
        if not isinstance(node, (ast.Tuple, ast.GeneratorExp)) and node.end_lineno == node.lineno:
            start, end = source.start(node), source.end(node)
            yield [Edit(start, start, "("), Edit(end, end, ")")]


def simplifiable_condition(source: Source) -> Iterator[list[Edit]]:
    """R1719: `True if condition else False`."""
    found = [(test, kind != "statement") for test, kind in source.conditions()]
    found += [(node.value, False) for node in source.walk(ast.Return)]  # type: ignore[attr-defined]
    for node, in_parentheses in found:
        if isinstance(node, ast.Compare):
            text = f"True if {source.code(node)} else False"
            yield [source.replace(node, f"({text})" if in_parentheses else text)]


def implicit_booleaness(source: Source) -> Iterator[list[Edit]]:
    """C1802: `not len(x)` as a condition."""
    for test, _ in source.conditions():
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and isinstance(test.operand, ast.Name):
            yield [source.replace(test.operand, f"len({test.operand.id})")]


def sum_of_list(source: Source) -> Iterator[list[Edit]]:
    """R1728: a list that is made only to be added up, or for its largest or smallest member."""
    return _bracketed(source, ("sum", "max", "min"))


def search_of_list(source: Source) -> Iterator[list[Edit]]:
    """R1729: a list that is made only to be searched."""
    return _bracketed(source, ("any", "all"))


def _bracketed(source: Source, functions: tuple[str, ...]) -> Iterator[list[Edit]]:
    for node in source.walk(ast.Call):
        assert isinstance(node, ast.Call)
        named = isinstance(node.func, ast.Name) and node.func.id in functions
        if named and len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.GeneratorExp):
            start, end = source.start(node.args[0]), source.end(node.args[0])
            if source.text[start] == "(":
                yield [Edit(start + 1, start + 1, "["), Edit(end - 1, end - 1, "]")]


def empty_list_call(source: Source) -> Iterator[list[Edit]]:
    """R1734: `list()` for `[]`."""
    for node in source.walk(ast.List):
        if isinstance(node, ast.List) and not node.elts and isinstance(node.ctx, ast.Load):
            yield [source.replace(node, "list()")]


def empty_dict_call(source: Source) -> Iterator[list[Edit]]:
    """R1735: `dict()` for `{}`."""
    for node in source.walk(ast.Dict):
        if isinstance(node, ast.Dict) and not node.keys:
            yield [source.replace(node, "dict()")]


def use_f_string(source: Source) -> Iterator[list[Edit]]:
    """C0209: `"{}".format(x)` for `f"{x}"`."""
    for node in source.walk(ast.JoinedStr):
        assert isinstance(node, ast.JoinedStr)
        text, values = "", []
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
            elif isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None:
                text += "\0"
                values.append(ast.unparse(part.value))
        plain = not set(text) & set('{}\\"\n') and source.code(node)[:2] in ('f"', "f'")
        if (
            plain
            and values
            and text.count("\0") == len(values) == sum(not isinstance(v, ast.Constant) for v in node.values)
        ):
            yield [source.replace(node, f'"{text.replace(chr(0), "{}")}".format({", ".join(values)})')]


def _members(node: ast.expr) -> list[str]:
    """The members of a constant text, tuple, list or set of two to six constants, as they are written."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isalnum():
        found = [f'"{letter}"' for letter in node.value]
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)) and all(isinstance(one, ast.Constant) for one in node.elts):
        found = [ast.unparse(one).replace("'", '"') for one in node.elts]
    else:
        return []
    return found if 2 <= len(found) <= 6 else []
