"""Find the statements behind a function that only show or test it.

One is dropped only if nothing that it calls can change what the function reads. What a function reads and code can change
are lists, dicts and other objects at the top of the module, caches, default values, function attributes, and names that a
`global` statement binds. Names alone decide, so some harmless statements stay. Nothing is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Sequence

from cptlab.judging.cleaning.python_source import BUILTINS, IMPORTS, SCOPES, bound_names, is_inert, read_names

# what a program's own test run is called
_RUNNER = r"unittest\.main|(doctest\.)?(testmod|run_docstring_examples)|pytest\.main"
_TEST_RUN = re.compile(rf"({_RUNNER}|main|check|tests?|run_tests?|test_\w+)$")
# names and attributes by which code changes things that it does not name
_REACHES = frozenset(
    "globals locals vars exec eval setattr delattr __import__ __dict__ __class__ __defaults__ __code__ __globals__ "
    "__closure__ f_globals f_builtins builtins __builtins__ modules reload gc setrecursionlimit set_int_max_str_digits settrace setprofile "
    "seed setstate getcontext setcontext setlocale patch".split()
)
_BY_TEXT = frozenset(("eval", "exec", "globals", "locals", "vars"))  # names that a text gives can be any
_MODULES_WITH_STATE = frozenset(("random", "decimal", "locale", "os"))
_PLAIN_DECORATORS = frozenset(("staticmethod", "classmethod", "property", "dataclass", "total_ordering", "override"))
_IMMUTABLE = frozenset(("int", "float", "complex", "bool", "str", "bytes", "tuple", "frozenset", "range", "TypeVar"))
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def words_and_main_blocks(tree: ast.Module) -> list[ast.stmt]:
    """Return what changes nothing in a program: words of prose that happen to parse, and what runs only as a script."""
    return [s for s in tree.body if is_main_block(s) or (is_inert(s) and _is_meaningless(s, _everything(tree)))]


def unneeded_after(
    tree: ast.Module, defines: Callable[[ast.stmt], bool], roots: set[str], definitions_too: bool
) -> list[ast.stmt]:
    """Return the statements behind the one that `defines` the entry point which only show or test it.

    Those are asserts, print and test calls, bare expressions, `if __name__ == "__main__"`, loops and branches over such
    statements, and values computed with the entry point or read from stdin that nothing else needs. Bare words that no
    statement gives a meaning are among them in front of it, too. `roots` are the names that must stay. `definitions_too`:
    include imports, functions, classes and values that the entry point does not need, unless it finds names by text
    (`eval`).
    """
    first = next(index for index, statement in enumerate(tree.body) if defines(statement))
    everything = _everything(tree)
    dropped = [s for s in tree.body[:first] if is_inert(s) and _is_meaningless(s, everything)]
    after = [s for s in tree.body[first + 1 :] if not is_main_block(s)]
    dropped += [s for s in tree.body[first + 1 :] if is_main_block(s)]
    if not after:
        return dropped
    entries = set().union(*map(bound_names, filter(defines, tree.body)))
    program = _Program([s for s in tree.body if not is_main_block(s)])
    touching = program.touching(program.state(entries | roots))
    needed = read_names(tree.body[: first + 1]) | roots
    definitions_too = definitions_too and not needed & _BY_TEXT
    kept: set[int] = set()
    grew = True
    while grew:  # what stays needs names, and statements that give these stay
        grew, tainted = False, set(entries)  # tainted: what exists only where the entry point was called
        for statement in after:
            bound = bound_names(statement)
            if id(statement) in kept:
                continue
            harmless = not program.runs(statement) & touching
            unused = definitions_too and isinstance(statement, (*SCOPES, *IMPORTS, ast.Assign)) and harmless
            usage = harmless and _is_usage(statement, tainted)
            stays = bool(bound & {*needed, "*"}) or (isinstance(statement, IMPORTS) and not definitions_too)
            if stays or not (unused or usage or _is_meaningless(statement, everything)):
                kept.add(id(statement))
                if not isinstance(statement, IMPORTS):
                    needed |= read_names([statement])
                grew = True
            else:
                tainted |= bound
    return dropped + [s for s in after if id(s) not in kept]


def is_main_block(statement: ast.stmt) -> bool:
    """Whether it is `if __name__ == "__main__":` without an else, which does not run when the program is judged."""
    test = statement.test if isinstance(statement, ast.If) and not statement.orelse else None
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = (test.left, test.comparators[0])
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides) and any(
        isinstance(side, ast.Constant) and side.value == "__main__" for side in sides
    )


def _everything(tree: ast.Module) -> set[str]:
    """Return every name that has a meaning at the top of the module."""
    return set().union(*map(bound_names, tree.body), *map(_global_names, tree.body)) | BUILTINS


def _is_meaningless(statement: ast.stmt, everything: set[str]) -> bool:
    if "*" in everything or not isinstance(statement, (ast.Expr, ast.AnnAssign)):
        return False
    nodes = list(ast.walk(statement))
    own = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return bool(read_names([statement]) - everything - own)


def _is_usage(statement: ast.stmt, tainted: set[str]) -> bool:
    if isinstance(statement, ast.Assert) or is_inert(statement):
        return True
    if isinstance(statement, (ast.For, ast.If, ast.Try)):
        parts = [*statement.body, *statement.orelse, *getattr(statement, "finalbody", ())]
        parts += [inner for handler in getattr(statement, "handlers", ()) for inner in handler.body]
        within = set(tainted)
        for part in parts:
            if not isinstance(part, (ast.Pass, ast.Continue, ast.Break)) and not _is_usage(part, within):
                return False
            within |= bound_names(part)
        return True
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        called = _dotted(statement.value.func)
        if called == "print" or _TEST_RUN.fullmatch(called):
            return True
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    if any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets):
        return False  # it changes an object that may be needed: f.cache = {}
    if isinstance(statement, (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign)):
        return bool(read_names([statement]) & (tainted | {"input"}))
    return False


def _dotted(node: ast.expr) -> str:
    """Return a name with its attributes as text; '' for any other expression."""
    inner = node
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    return ast.unparse(node) if isinstance(inner, ast.Name) else ""


class _Program:
    """What the top-level statements of a program name, directly and through what they call."""

    def __init__(self, statements: Sequence[ast.stmt]) -> None:
        self.statements = statements
        self.makers: dict[str, list[ast.stmt]] = {}  # the statements that give a name its value
        for statement in statements:
            for name in bound_names(statement) | _global_names(statement):
                self.makers.setdefault(name, []).append(statement)
        self.direct = {id(statement): _direct_names(statement) for statement in statements}
        nodes = [node for s in statements for node in ast.walk(s) if isinstance(node, ast.Attribute)]
        self.with_attributes = {_root(node) for node in nodes}
        self.changed = {_root(node) for node in nodes if not isinstance(node.ctx, ast.Load)}

    def runs(self, statement: ast.stmt) -> set[str]:
        """Return the names that running the statement uses. A plain definition runs nothing."""
        if isinstance(statement, _FUNCTIONS) and not statement.decorator_list:
            return set()
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            if re.fullmatch(_RUNNER, _dotted(statement.value.func)):  # it may call anything
                return set(self.makers)
        return self.direct[id(statement)]

    def state(self, names: set[str]) -> set[str]:
        """Return what the functions of these names read, directly and through others, and other code can change."""
        read = _reached(names, self._used_by)
        return {name for name in read if not self._is_fixed(name)} | _REACHES

    def touching(self, state: set[str]) -> set[str]:
        """Return the names through which `state` is used: its own, and those whose makers use it, and so on."""
        users: dict[str, list[str]] = {}
        for name in self.makers:
            for used in self._used_by(name):
                users.setdefault(used, []).append(name)
        return _reached(state, lambda name: users.get(name, ()))

    def _used_by(self, name: str) -> set[str]:
        """Return the names that the statements that make `name` use."""
        return set().union(*(self.direct[id(maker)] for maker in self.makers.get(name, ())))

    def _is_fixed(self, name: str) -> bool:
        return name not in self.changed and all(self._fixes(maker, name) for maker in self.makers.get(name, ()))

    def _fixes(self, statement: ast.stmt, name: str) -> bool:
        """Whether the statement binds the name to what nothing can change afterwards."""
        if name not in bound_names(statement):
            return name not in _global_names(statement)
        if isinstance(statement, _FUNCTIONS):
            return name not in self.with_attributes and _is_plain_function(statement)
        if isinstance(statement, ast.ClassDef):
            return _has_plain_decorators(statement) and all(map(_is_plain_member, statement.body))
        if isinstance(statement, IMPORTS):
            modules = [getattr(statement, "module", None) or "", *(alias.name for alias in statement.names)]
            return not any(module.split(".")[0] in _MODULES_WITH_STATE for module in modules)
        if isinstance(statement, (ast.If, ast.Try)):
            parts = [*statement.body, *statement.orelse, *getattr(statement, "finalbody", ())]
            parts += [inner for handler in getattr(statement, "handlers", ()) for inner in handler.body]
            return all(self._fixes(part, name) for part in parts)
        return isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and _is_immutable(statement.value)


def _reached(start: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    """Return `start` and all names that lead on from there, step by step."""
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(following(name))
    return found


def _direct_names(statement: ast.stmt) -> set[str]:
    nodes = list(ast.walk(statement))
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    words |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return read_names([statement]) | _global_names(statement) | (words & _REACHES)


def _global_names(statement: ast.stmt) -> set[str]:
    return {name for node in ast.walk(statement) if isinstance(node, ast.Global) for name in node.names}


def _root(node: ast.expr) -> str:
    """Return the name whose attribute it is: `f` of `f.cache`, `cls` of `type(cls).count`."""
    inner = node.value if isinstance(node, ast.Attribute) else node
    if isinstance(inner, ast.Call):
        inner = inner.args[0] if inner.args else inner.func
    return inner.id if isinstance(inner, ast.Name) else ""


def _is_plain_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
    return _has_plain_decorators(node) and all(map(_is_immutable, defaults))


def _has_plain_decorators(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return all(_dotted(one).rpartition(".")[2] in _PLAIN_DECORATORS for one in node.decorator_list)


def _is_plain_member(statement: ast.stmt) -> bool:
    """Whether it adds nothing to a class that can change, and no class method changes it."""
    if isinstance(statement, _FUNCTIONS):
        stores = [n for n in ast.walk(statement) if isinstance(n, ast.Attribute) and not isinstance(n.ctx, ast.Load)]
        return _is_plain_function(statement) and not any(
            _root(node) == "cls" or isinstance(node.value, ast.Call)
            for node in stores  # type(self).count
        )
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        return _is_immutable(statement.value)
    return is_inert(statement) or isinstance(statement, ast.Pass)


def _is_immutable(value: ast.expr | None) -> bool:
    """Whether an expression gives a value that cannot change, or only names one."""
    if isinstance(value, ast.Tuple):
        return all(map(_is_immutable, value.elts))
    if isinstance(value, (ast.BinOp, ast.UnaryOp, ast.Subscript)):
        return all(map(_is_immutable, (n for n in ast.iter_child_nodes(value) if isinstance(n, ast.expr))))
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in _IMMUTABLE
    if isinstance(value, ast.Lambda):
        return all(map(_is_immutable, value.args.defaults))
    return value is None or isinstance(value, (ast.Constant, ast.Name, ast.Attribute))
