"""Python source as text with a syntax tree: parse within a budget, find names, cut statements out.

Nothing is run. Lines count from 1, as in `ast`.
"""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterable, Sequence

BUDGET = 1_000_000  # characters that one text's cleaning may parse, in all its attempts
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
BUILTINS = frozenset(dir(builtins))


class Parser:
    """`ast.parse` that never raises. When its budget is used up (`left` is 0), it gives None for everything."""

    def __init__(self) -> None:
        self.left = BUDGET

    def parse(self, text: str) -> ast.Module | SyntaxError | None:
        """Return the tree, a SyntaxError that says where, or None for a text that is too deep or too long."""
        if len(text) > self.left:
            self.left = 0
            return None
        self.left -= len(text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes
                tree = ast.parse(text)
        except SyntaxError as error:
            return error
        except (ValueError, RecursionError, MemoryError, OverflowError):
            return None
        return None if any(map(leaves_function, tree.body)) else tree

    def tree(self, text: str) -> ast.Module | None:
        tree = self.parse(text)
        return tree if isinstance(tree, ast.Module) else None


def leaves_function(statement: ast.stmt) -> bool:
    """Whether it returns or yields, in its own scope; at the top of a module only the compiler would refuse that."""
    return any(isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) for node in _own_nodes(statement))


def _own_nodes(statement: ast.stmt) -> Iterable[ast.AST]:
    """Yield the nodes of a statement that run in the module's own scope; of functions and classes only the node itself."""
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (*SCOPES, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            stack.extend(ast.iter_child_nodes(node))


def bound_names(statement: ast.stmt) -> set[str]:
    """Return the module-level names that a top-level statement binds; '*' for a star import."""
    names: set[str] = set()
    for node in _own_nodes(statement):
        if isinstance(node, SCOPES):
            names.add(node.name)
        elif isinstance(node, IMPORTS):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            names.add(node.name)
    return names


def read_names(statements: Iterable[ast.stmt]) -> set[str]:
    """Return the names that these top-level statements read and do not bind in a scope of their own."""
    names: set[str] = set()
    for statement in statements:
        read, bound = set(), set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
            elif isinstance(node, (*SCOPES, *IMPORTS)):
                bound |= bound_names(node)
        names |= read - bound if isinstance(statement, SCOPES) else read
    return names


def first_line(statement: ast.stmt) -> int:
    """Return the first line of a statement, with its decorators."""
    return min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", ()))])


def last_line(statement: ast.stmt) -> int:
    """Return the last line of a statement."""
    return statement.end_lineno or statement.lineno  # the parser sets both


def is_inert(statement: ast.stmt) -> bool:
    """Whether it is a bare name, constant, comparison or the like, or an annotation alone: prose that parses."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    return isinstance(statement, ast.Expr) and not any(
        isinstance(node, (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)) for node in ast.walk(statement)
    )


def without_last_comments(text: str) -> str:
    """Return a program without the comments that begin in column 0 behind its last statement; without any, as it is."""
    lines = text.split("\n")
    end = len(lines)
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    if not end or not any(line.startswith("#") for line in lines[end:]):
        return text
    return "\n".join(lines[:end]) + "\n"


def without(text: str, tree: ast.Module, dropped: Sequence[ast.stmt]) -> str:
    """Return `text` without the lines of these top-level statements and the comments that lead to them.

    If anything behind the last remaining statement is dropped, everything behind it goes. A statement that shares a line
    with one that stays, stays.
    """
    if not dropped:
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    ids = {id(statement) for statement in dropped}
    kept = {n for s in tree.body if id(s) not in ids for n in range(first_line(s), last_line(s) + 1)}
    gone = {n for s in dropped for n in range(first_line(s), last_line(s) + 1)} - kept
    if not gone:
        return text
    for number in sorted(gone, reverse=True):
        above = number - 1
        while above >= 1 and above not in kept and lines[above - 1].startswith("#"):
            gone.add(above)
            above -= 1
    last = max(kept, default=0)
    cut = max(gone) > last
    result = [line for number, line in enumerate(lines, 1) if number not in gone and not (cut and number > last)]
    return "\n".join(result).rstrip("\n") + "\n" if cut else "\n".join(result)


def with_missing(program: str, donors: Iterable[str], roots: set[str], parser: Parser) -> str:
    """Return the program behind the donors' imports and definitions of names that it reads but does not bind.

    `roots` are names that it must bind whether or not it reads them. Donors that do not parse give nothing.
    """
    tree = parser.tree(program)
    if tree is None:
        return program
    here = set().union(*map(bound_names, tree.body))
    missing = (read_names(tree.body) | roots) - here - BUILTINS
    chunks: list[str] = []
    for donor in donors:
        given = parser.tree(donor) if missing else None
        if given is None:
            continue
        picked = _providers(given, missing)
        lines = donor.replace("\r\n", "\n").split("\n")
        chunks += ["\n".join(lines[first_line(s) - 1 : last_line(s)]) for s in given.body if id(s) in picked]
        missing -= set().union(*(bound_names(s) for s in given.body if id(s) in picked)) if picked else set()
    if not chunks:
        return program
    future = [last_line(s) for s in tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    lines = program.split("\n")
    head = lines[: max(future, default=0)]
    return "\n".join([*head, *chunks, "", "", *lines[len(head) :]])


def _providers(tree: ast.Module, missing: set[str]) -> set[int]:
    """Return the ids of the top-level statements that give the missing names, and of those that they need themselves."""
    kinds = (*SCOPES, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    found: set[int] = set()
    wanted, grew = set(missing), True
    while grew:
        grew = False
        for statement in tree.body:
            if not isinstance(statement, kinds) or id(statement) in found:
                continue
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                continue
            names = bound_names(statement)
            if names & wanted or (names == {"*"} and wanted):
                found.add(id(statement))
                wanted |= read_names([statement]) - BUILTINS
                grew = True
    return found
