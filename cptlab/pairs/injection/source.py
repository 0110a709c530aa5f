"""A program's text with its syntax tree: where nodes and statements stand, and which names are taken."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from cptlab.pairs.injection.edits import Edit

Block = Sequence[ast.stmt]


class Source:
    """A program that parses; raises SyntaxError or ValueError for one that does not, or that counts its lines otherwise."""

    def __init__(self, text: str) -> None:
        if "\r" in text.replace("\r\n", "\n"):  # Python ends a line there
            raise ValueError("a carriage return by itself")
        self.text = text
        self.tree = ast.parse(text)
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self.names = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        self.names |= {node.arg for node in ast.walk(self.tree) if isinstance(node, ast.arg)}
        self.names |= {node.name for node in ast.walk(self.tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}

    # places ------------------------------------------------------------------------------------------------------

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self._place(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._place(node.end_lineno, node.end_col_offset)

    def code(self, node: ast.expr | ast.stmt) -> str:
        return self.text[self.start(node) : self.end(node)]

    def replace(self, node: ast.expr | ast.stmt, text: str) -> Edit:
        return Edit(self.start(node), self.end(node), text)

    def line_start(self, node: ast.stmt) -> int:
        return self._starts[node.lineno - 1]

    def indent(self, node: ast.stmt) -> str | None:
        """The white space before a statement; None where something else stands before it on its line, or a tab."""
        before = self.text[self.line_start(node) : self.start(node)]
        return before if not before.strip(" ") else None

    def indented(self, block: Block) -> list[Edit] | None:
        """Return the edits that move statements four columns to the right; None where a text reaches over lines."""
        edits = []
        for statement in block:
            texts = (one for one in ast.walk(statement) if isinstance(one, (ast.Constant, ast.JoinedStr)))
            if self.indent(statement) is None or any(one.end_lineno != one.lineno for one in texts):
                return None
            assert statement.end_lineno is not None
            for line in range(statement.lineno - 1, statement.end_lineno):
                if self._lines[line].strip():
                    edits.append(Edit(self._starts[line], self._starts[line], "    "))
        return edits

    def _place(self, line: int, column: int) -> int:
        text = self._lines[line - 1]
        return self._starts[line - 1] + (
            column if text.isascii() else len(text.encode()[:column].decode(errors="ignore"))
        )

    # what is there -----------------------------------------------------------------------------------------------

    def walk(self, *kinds: type, within: ast.AST | None = None) -> Iterator[ast.AST]:
        return (node for node in ast.walk(within or self.tree) if isinstance(node, kinds))

    def functions(self) -> Iterator[ast.FunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef))

    def blocks(self) -> Iterator[Block]:
        """Every list of statements that follow each other."""
        for node in ast.walk(self.tree):
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    yield block

    def statements(self, function: ast.FunctionDef) -> Block:
        """The statements of a function behind its docstring."""
        first = function.body[0]
        documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        return function.body[1:] if documented else function.body

    def conditions(self) -> Iterator[tuple[ast.expr, str]]:
        """Every condition, with what it belongs to: 'statement' (if, while), 'comprehension' or 'expression' (x if c else y)."""
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.If, ast.While)):
                yield node.test, "statement"
            elif isinstance(node, ast.IfExp):
                yield node.test, "expression"
            elif isinstance(node, ast.comprehension):
                yield from ((test, "comprehension") for test in node.ifs)

    def fresh(self, *names: str) -> str | None:
        """The first of `names` that the program does not use."""
        return next((name for name in names if name not in self.names), None)

    def renamed(self, within: Sequence[ast.AST], old: str, new: str) -> list[Edit] | None:
        """Return the edits that put `new` where the variable `old` is read; None where it is bound there, or hard to find."""
        edits = []
        for part in within:
            for node in ast.walk(part):
                if isinstance(node, ast.arg) and node.arg == old:
                    return None
                if isinstance(node, ast.Name) and node.id == old:
                    if not isinstance(node.ctx, ast.Load) or self.code(node) != old:  # in f-strings before Python 3.12
                        return None
                    edits.append(self.replace(node, new))
        return edits
