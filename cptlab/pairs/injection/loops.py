"""The injector of C0200: loops over indices."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from cptlab.pairs.injection.edits import Edit, apply_edits
from cptlab.pairs.injection.source import Source

RESULTS = ("result", "items", "output", "found")


def use_enumerate(source: Source) -> Iterator[list[Edit]]:
    """C0200: `for i in range(len(xs))` with `xs[i]` for `for x in xs`, of loops and of list comprehensions."""
    index = source.fresh("i", "j", "k", "index")
    if index is None:
        return
    for block in source.blocks():
        for place, statement in enumerate(block):
            if isinstance(statement, ast.For):
                yield from _of_loop(source, statement, block[place + 1 :], index)
            elif isinstance(statement, (ast.Assign, ast.Return)) and isinstance(statement.value, ast.ListComp):
                yield from _of_comprehension(source, statement, statement.value, index)


def _of_loop(source: Source, loop: ast.For, later: Sequence[ast.stmt], index: str) -> Iterator[list[Edit]]:
    names = _names(loop.target, loop.iter)
    if names is None or loop.orelse:
        return
    x, xs = names
    if _changes(loop.body, xs) or any(_mentions(one, x) for one in later):
        return
    uses = source.renamed(loop.body, x, f"{xs}[{index}]")
    if uses:
        yield [source.replace(loop.target, index), source.replace(loop.iter, f"range(len({xs}))"), *uses]


def _of_comprehension(
    source: Source, statement: ast.Assign | ast.Return, made: ast.ListComp, index: str
) -> Iterator[list[Edit]]:
    """Write an assigned or returned list comprehension as a loop that appends."""
    indent, (generator, *others) = source.indent(statement), made.generators
    names = _names(generator.target, generator.iter)
    if indent is None or others or names is None or generator.is_async or statement.end_lineno != statement.lineno:
        return
    x, xs = names
    target = None
    if isinstance(statement, ast.Assign):
        if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
            return
        target = statement.targets[0].id
    name = target if target not in (None, xs, x) else source.fresh(*RESULTS)
    texts = [_with(source, part, x, f"{xs}[{index}]") for part in [*generator.ifs, made.elt]]
    if name is None or None in texts or _mentions_any([made.elt, *generator.ifs], name):
        return
    *tests, element = texts
    lines = [f"{name} = []", f"for {index} in range(len({xs})):"]
    if tests:
        lines.append(f"    if {' and '.join(map(str, tests))}:")
    lines.append(f"{'        ' if tests else '    '}{name}.append({element})")
    if target is None:
        lines.append(f"return {name}")
    elif target != name:
        lines.append(f"{target} = {name}")
    yield [source.replace(statement, f"\n{indent}".join(lines))]


def _with(source: Source, part: ast.expr, old: str, new: str) -> str | None:
    edits = source.renamed([part], old, new)
    if edits is None:
        return None
    start = source.start(part)
    return apply_edits(source.code(part), [Edit(edit.start - start, edit.end - start, edit.text) for edit in edits])


def _names(target: ast.expr, iterated: ast.expr) -> tuple[str, str] | None:
    if isinstance(target, ast.Name) and isinstance(iterated, ast.Name) and target.id != iterated.id:
        return target.id, iterated.id
    return None


def _changes(body: Sequence[ast.stmt], name: str) -> bool:
    """Whether statements may change the list of this name: they bind it, or call one of its methods."""
    for node in (node for one in body for node in ast.walk(one)):
        if isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load):
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
            return True
    return False


def _mentions(part: ast.AST, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(part))


def _mentions_any(parts: Sequence[ast.expr], name: str) -> bool:
    return any(_mentions(part, name) for part in parts)
