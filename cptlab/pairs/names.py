"""Incidental names: two programs that differ in the names of their variables, made to differ in less.

CPT's masks cover every token in which the programs differ, so they also teach which names to choose. Here a program's
variables get the names that another one gives to its own in the same places. All others stay, and so does what it does.
"""

from __future__ import annotations

import ast
import builtins
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher

ANY = "\0name"  # stands for every variable, so that programs can be compared without their names


def aligned_names(better: str, worse: str) -> str:
    """Return `worse` with the names of `better` for variables that stand in the same places; as it is if it does not parse.

    Renaming is one-to-one over the whole program. Names of builtins, parameters of functions that tests may call, attributes,
    keywords and names within f-strings are left alone, so the same pylint messages are left.
    """
    try:
        trees = [ast.parse(program) for program in (better, worse)]
        tokens = [_tokens(program) for program in (better, worse)]
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return worse
    variables = [_variables(tree) for tree in trees]
    shapes = [[ANY if text in own else text for text, _ in found] for found, own in zip(tokens, variables, strict=True)]
    together: Counter[tuple[str, str]] = Counter()
    for i, j, size in SequenceMatcher(None, *shapes, autojunk=False).get_matching_blocks():
        for (theirs, _), (mine, _) in zip(tokens[0][i : i + size], tokens[1][j : j + size], strict=True):
            if mine in variables[1]:
                together[mine, theirs] += 1
    names: dict[str, str] = {}
    for mine, theirs in sorted(together, key=lambda pair: (-together[pair], pair)):
        if mine not in names and theirs not in names.values():
            names[mine] = theirs
    every = {text for text, _ in tokens[1] if text.isidentifier()}
    while taken := [mine for mine, theirs in names.items() if theirs in every and theirs not in names]:
        del names[taken[0]]  # another variable, which keeps its name, has this one
    parts, last = [], 0
    for text, start in tokens[1]:
        if text in names:
            parts += [worse[last:start], names[text]]
            last = start + len(text)
    return "".join([*parts, worse[last:]])


def _tokens(program: str) -> list[tuple[str, int]]:
    """Return the tokens of a program that are more than white space, each with its place."""
    starts = [0]
    for line in io.StringIO(program):  # the lines that the tokenizer reads; splitlines() breaks at form feeds, too
        starts.append(starts[-1] + len(line))
    found = tokenize.generate_tokens(io.StringIO(program).readline)
    return [(token.string, starts[token.start[0] - 1] + token.start[1]) for token in found if token.string.strip()]


def _variables(tree: ast.Module) -> set[str]:
    """The names that a program binds and that can be others."""
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return bound - set(_fixed(tree)) - set(dir(builtins))


def _fixed(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for one in ast.walk(node):
                if isinstance(one, ast.Name):
                    yield one.id
                elif isinstance(one, ast.arg):
                    yield one.arg
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            yield from node.names
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.JoinedStr):
            yield from (one.id for one in ast.walk(node) if isinstance(one, ast.Name))
        elif isinstance(node, ast.Attribute):
            yield node.attr
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from (one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg))
