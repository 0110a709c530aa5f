"""The tests of a user's own task: assertions, calls with expected values, or inputs of a script with expected outputs."""

from __future__ import annotations

import ast
import builtins
import difflib
import io
import json
import symtable
import sys
import tokenize
from collections.abc import Sequence
from typing import Any

from cptlab.records import Test

FORMS = '"assert add(1, 2) == 3", {"args": [1, 2], "expected": 3} or {"stdin": "1 2\\n", "expected": "3\\n"}'
ASSERTION = 'Write an assertion, such as "assert add(1, 2) == 3"'
CANDIDATE = "candidate"  # stands for the entry point in assertions, as in HumanEval


def read_tests(field: str, tests: Any, entry_point: str | None) -> tuple[str, list[Test]]:
    """Return the kind of task (see `records.Task`) that a row's tests make it, "" for none, and the tests.

    Raises ValueError, which names the field.
    """
    if not isinstance(tests, list):
        raise ValueError(f"field {field}: it must be a list of tests. Write tests of one form: {FORMS}")
    kinds, found = set(), []
    for number, test in enumerate(tests):
        place = f"{field}[{number}]"
        kind, read = _read(place, test)
        kinds.add(kind)
        found.append(read)
        if len(kinds) > 1:
            raise ValueError(f"field {place}: it has another form than the tests before it. Write all in one form")
        if kind == "stdin" and entry_point is not None:
            raise ValueError(
                f"field {place}: it is a script's, but the task has the entry point {entry_point}. Leave entry_point out, or "
                "give args and expected"
            )
        if kind != "stdin" and entry_point is None:
            raise ValueError(
                f"field entry_point: it is missing, and {place} calls a function. Name the function"
                f"{_called(read.code) if read.code else ''}"
            )
    return kinds.pop() if kinds else "", found


def shown_tests(tests: Sequence[Test], entry_point: str | None) -> str:
    """Return tests as the prompt shows them: assertions, or inputs and outputs."""
    if not tests:
        return ""
    if tests[0].code is not None:
        return "\n".join(_by_name(str(test.code), entry_point) for test in tests)
    if tests[0].stdin is None:
        return "\n".join(
            f"assert {entry_point}({', '.join(map(repr, test.args))}) == {test.expected!r}" for test in tests
        )
    return "\n".join(f"Input:\n{str(test.stdin).rstrip()}\nOutput:\n{test.expected.rstrip()}" for test in tests)


def needed_of_program(
    public: Sequence[Test], hidden: Sequence[Test], setup: str, entry_point: str, code: str, program: str | None
) -> tuple[list[str], tuple[str, ...]]:
    """Return what assertions need of a program: imports that they rely on, and the names that it defines.

    `code` is what each program begins with, `program` the canonical one. ValueError for assertions that use nothing of the
    program, or what nothing defines.
    """
    parsed("setup", setup, "Correct it")
    given = defined_names(setup) | set(dir(builtins))
    own = {entry_point, CANDIDATE}
    known = program if program is not None else code if _is_python(code) else with_body(code)
    imports, defined = _imports(ast.parse(known)), defined_names(known)
    any_name = "import *" in setup + known
    uses: dict[str, set[str]] = {"setup": _free_names(setup) - given}
    for field, tests in (("tests", public), ("hidden_tests", hidden)):
        for number, test in enumerate(tests):
            free = _free_names(str(test.code))
            uses[f"{field}[{number}]"] = (free - given) | (free & own)
            if not uses[f"{field}[{number}]"]:
                raise ValueError(f"field {field}[{number}]: it uses nothing of the program. Let it call {entry_point}")
    if not any(names & own for names in uses.values()):
        raise ValueError(f"field entry_point: no test calls {entry_point}. Correct its name, or the tests")
    for place, names in uses.items():
        for name in sorted(names - own):
            is_module = name in sys.stdlib_module_names
            if any_name or name in defined or (program is None and not is_module):
                continue
            remedy = (
                f"Put `import {name}` into setup" if is_module else "Define it in setup or in the canonical solution"
            )
            raise ValueError(f"field {place}: it uses {name}, which nothing defines. {remedy}")
    needed = set().union(*uses.values()) - {CANDIDATE} | {entry_point}
    return sorted({imports[name] for name in needed if name in imports}), tuple(sorted(needed - set(imports)))


def parsed(field: str, source: str, remedy: str) -> ast.Module:
    """Return the tree of Python source. Raises ValueError, which names the field, for what is none."""
    try:
        tree = ast.parse(source)
        compile(tree, field, "exec", dont_inherit=True)
        return tree
    except (SyntaxError, ValueError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and source.strip().count("\n") else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"field {field}: it is not Python ({reason}{line}). {remedy}") from None


def defined_names(source: str) -> set[str]:
    """Return the names that Python source binds at its top."""
    symbols = symtable.symtable(source, "module", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def _read(place: str, test: Any) -> tuple[str, Test]:
    if isinstance(test, str):
        code = test.replace("\r\n", "\n").strip()
        tree = parsed(place, code, ASSERTION)
        if not any(isinstance(node, (ast.Assert, ast.Raise)) for node in ast.walk(tree)):
            is_value = len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr)
            raise ValueError(f"field {place}: it asserts nothing. {f'Write: assert {code}' if is_value else ASSERTION}")
        return "check", Test(code=code)
    if not isinstance(test, dict):
        raise ValueError(f"field {place}: it is {type(test).__name__}, which is no test. Write {FORMS}")
    for name in test:
        if name not in ("args", "stdin", "expected"):
            near = {
                "input": "args or stdin",
                "inputs": "args or stdin",
                "output": "expected",
                "outputs": "expected",
            }.get(name) or next(iter(difflib.get_close_matches(name, ("args", "stdin", "expected"), 1)), None)
            hint = f"Did you mean {near}?" if near else f"Write {FORMS}"
            raise ValueError(f"field {place}.{name}: there is no such field. {hint}")
    if "expected" not in test or ("args" in test) == ("stdin" in test):
        raise ValueError(f"field {place}: it needs expected, and either args or stdin. Write {FORMS}")
    if "args" in test:
        if not isinstance(test["args"], list):
            raise ValueError(
                f"field {place}.args: it must be the list of all arguments. Write [{json.dumps(test['args'])}]"
            )
        return "call", Test(args=tuple(test["args"]), expected=test["expected"])
    for name in ("stdin", "expected"):
        if not isinstance(test[name], str):
            value = test[name]
            lines = isinstance(value, list) and all(isinstance(line, str) for line in value)
            text = "\n".join(value) if lines else str(value)
            raise ValueError(f"field {place}.{name}: it must be a text. Write {json.dumps(text, ensure_ascii=False)}")
    return "stdin", Test(stdin=test["stdin"], expected=test["expected"])


def _by_name(code: str, entry_point: str | None) -> str:
    """Return a test that says the entry point's own name, which the model cannot guess from `candidate`."""
    lines = code.splitlines(keepends=True)
    if entry_point is None or CANDIDATE not in _free_names(code):
        return code
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(code).readline))):
        if token.type == tokenize.NAME and token.string == CANDIDATE:
            line, column = token.start
            text = lines[line - 1]
            lines[line - 1] = text[:column] + entry_point + text[column + len(CANDIDATE) :]
    return "".join(lines)


def _called(code: str) -> str:
    names = sorted(_free_names(code) - set(dir(builtins)))
    return f', such as "entry_point": "{names[0]}"' if names else ""


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the import statement at the top of a module that binds each name."""
    return {
        (alias.asname or alias.name).split(".")[0]: ast.unparse(statement)
        for statement in tree.body
        if isinstance(statement, (ast.Import, ast.ImportFrom))
        for alias in statement.names
    }


def _free_names(source: str) -> set[str]:
    """Return the global names that Python source uses and does not bind; built-in ones are among them."""
    top = symtable.symtable(source, "tests", "exec")

    def used(table: symtable.SymbolTable) -> set[str]:
        names = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is top or s.is_global())}
        return names.union(*map(used, table.get_children()))

    return used(top) - defined_names(source)


def with_body(code: str) -> str:
    """Return a signature, which ends where the body begins, with a body that does nothing."""
    return f"{code.rstrip()}\n    pass\n"


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
