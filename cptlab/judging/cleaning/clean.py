"""Clean what a model wrote: take the program out of prose, fences, repeated prompts and test runs.

A text that is a program already stays as it is, byte for byte, but for `if __name__ == "__main__"`. Otherwise `clean` tries
these readings in order and takes the first that parses and defines the entry point: the text behind the prompt's code
(with the indentation of its first line or of all lines repaired), the same without the prompt that it repeats, the last
fenced block, the text up to where it stops being Python, the last stretch of Python between prose. They lose statements
after the function that only show or test it and cannot change what it returns (usage.py). Blocks and stretches get the
imports and helpers that they lack from the others. A text without a program stays as it is; its verdict says why.

EvalPlus's sanitize has the same aim (the longest span that parses, and what the entry point needs). This one also reads
completions that begin in the middle of a function, and does not change programs that need no cleaning. It runs nothing,
and python_source.BUDGET bounds the characters that it parses.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from cptlab.judging.cleaning.fragments import (
    FENCE,
    MAX_FENCES,
    OTHER_PYTHON,
    STATEMENT,
    arrangements,
    as_is,
    fenced_blocks,
    normalise,
    python_ends,
    python_stretches,
    without_prompt,
)
from cptlab.judging.cleaning.python_source import (
    Parser,
    bound_names,
    is_inert,
    leaves_function,
    with_missing,
    without,
    without_last_comments,
)
from cptlab.judging.cleaning.special_tokens import SpecialTokens
from cptlab.judging.cleaning.usage import unneeded_after, words_and_main_blocks
from cptlab.records import Task

_INDENTED = re.compile(r"(?:^[ \t]+\S.*\n?(?:[ \t]*\n)*)+", re.MULTILINE)
_IS_BODY = re.compile(r"\A(?:[ \t]*\n)*[ \t]+\S|^return\b", re.MULTILINE)
_INSIDE = re.compile(  # statements that stand within others, and begin no stretch
    r"(?:return|elif|except|raise|assert|yield|del|global|nonlocal)\b|(?:else|finally)[ \t]*:|(?:pass|break|continue)[ \t]*(?:#|$)",
    re.MULTILINE,
)
_READS_INPUT = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0")


def clean(
    raw: str, task: Task, is_solution: bool, special_tokens: Sequence[str] = (), *, keep_usage: bool = True
) -> str:
    """Return the program in `raw`, a model's text for `task`.

    `is_solution`: the text is meant as a whole program; else it goes on where the prompt ends. A text that holds no
    program is returned as it is (behind the prompt's code if it is a completion). `special_tokens`: texts that end or begin
    code wherever they stand outside strings, beside those that look like special tokens. `keep_usage`: a text that is a
    program already keeps the statements that only show or test its function, since they can fail, and a whole program keeps
    the imports and definitions behind its function that this does not need, and the comments behind those.
    """
    tokens = SpecialTokens(special_tokens, task.prompt.code)
    if task.kind == "stdin" or not (task.entry_point or task.names):
        return _Script(task, is_solution, tokens).program(raw)
    return _Function(task, is_solution, tokens, keep_usage).program(raw)


def with_context(program: str, task: Task) -> str:
    """Return the program with the imports and helpers of the prompt that it lacks; as it is where it lacks none."""
    before = _before_entry(task)
    if not before.strip() or not task.entry_point:
        return program
    return with_missing(program, [before], set(task.names) - {task.entry_point}, Parser())


def _before_entry(task: Task) -> str:
    """Return the prompt's code up to its entry point: imports and helpers."""
    code = task.prompt.code
    entry = re.escape(task.entry_point or task.names[0])
    begin = re.search(rf"^(?:(?:async +)?def +{entry}\b|class +Solution\b)", code, re.MULTILINE)
    return code[: begin.start()] if begin else code


class _Script:
    """Clean programs that read stdin: any Python will do, and nothing is cut off behind it."""

    def __init__(self, task: Task, is_solution: bool, tokens: SpecialTokens) -> None:
        self.task, self.is_solution, self.tokens, self.parser = task, is_solution, tokens, Parser()
        self.code = "" if is_solution else task.prompt.code

    def program(self, raw: str) -> str:
        text, repeated = without_prompt(normalise(raw, self.tokens), self.task)
        code = self.task.prompt.code.rstrip() if repeated else self.code
        unmarked = () if self.tokens.stand_in_python(raw) else (raw, self.code + raw)
        for whole in (*unmarked, code + text):
            if self._is_python(whole):
                return whole
        fences = list(FENCE.finditer(text))[:MAX_FENCES]
        blocks = [block for _, _, block in fenced_blocks(text, fences) if self._is_python(block)]
        if blocks:
            reading = [block for block in blocks if _READS_INPUT.search(block)]
            return reading[-1] if reading else max(reversed(blocks), key=len)
        stretches = [] if OTHER_PYTHON.search(text) else list(python_stretches(text, self.parser))
        longest = max(stretches, key=len, default="")
        if longest and not self._is_part(longest, text):
            return longest
        return as_is(text, fences, code if text.strip() else code + raw, None)

    def _is_part(self, stretch: str, text: str) -> bool:
        """Whether code stands next to a stretch of Python: a script that was cut off, or has a line that is no Python."""
        before, _, behind = text.partition(stretch.strip())
        next_to = (before.rstrip().rpartition("\n")[2].lstrip(), behind.lstrip())
        return any(STATEMENT.match(text) or _INSIDE.match(text) for text in next_to)

    def _is_python(self, text: str) -> bool:
        tree = self.parser.tree(text)
        return tree is not None and not all(map(is_inert, tree.body))


class _Function:
    """Clean programs whose entry point is called."""

    def __init__(self, task: Task, is_solution: bool, tokens: SpecialTokens, keep_usage: bool) -> None:
        self.task, self.is_solution, self.tokens, self.parser = task, is_solution, tokens, Parser()
        self.keep_usage = keep_usage
        self.entry: str = task.entry_point or task.names[0]
        self.roots = {self.entry, *task.names}

    def program(self, raw: str) -> str:
        prompt = self.task.prompt.code
        found = self._read(raw, "" if self.is_solution else prompt)
        if found is None and self.is_solution and _IS_BODY.search(raw):
            found = self._read(raw, prompt)
        if found is not None:
            return found
        text, repeated = without_prompt(normalise(raw, self.tokens), self.task)
        if repeated:
            return prompt.rstrip() + text
        begins = re.compile(rf"^[ \t]*(?:async +)?def +{re.escape(self.entry)}\b", re.MULTILINE)
        return as_is(raw, list(FENCE.finditer(raw))[:MAX_FENCES], "" if self.is_solution else prompt, begins)

    def _read(self, raw: str, code: str) -> str | None:
        found = None if self.tokens.stand_in_python(raw) else self._whole(raw, code, given=self.keep_usage)
        if found is not None:
            return found
        text, repeated = without_prompt(normalise(raw, self.tokens), self.task)
        if repeated:
            code = self.task.prompt.code.rstrip()
        found = self._whole(text, code) if text != raw else None
        found = found or self._fenced(text, code)
        if found is not None or OTHER_PYTHON.search(text):
            return found
        return self._beginning(text, code) or self._between_prose(text, code)

    def _whole(self, text: str, code: str, given: bool = False) -> str | None:
        """Read all of `text`, alone or behind `code`. `given`: it is the text that was given, not a part of it."""
        if not self.parser.left:
            return None
        for head, body in arrangements(text, code):
            found = self._finished(head, body, body is not text, given and not head and body is text)
            if found is not None:
                return found
        return None

    def _fenced(self, text: str, code: str) -> str | None:
        """Read the last fenced block that defines the entry point, with what it needs of the others."""
        fences = list(FENCE.finditer(text))[:MAX_FENCES]
        if not fences:
            return None
        if code:  # a completion may go on with the function and only then close a fence
            found = self._whole(text[: fences[0].start()], code)
            if found is not None:
                return found
        programs: list[str] = []
        done = 0  # fences before this one belong to blocks that are settled
        for opening, closing, block in fenced_blocks(text, fences):
            program = self._whole(block, code) if opening >= done else None
            if program is not None:
                programs.append(program)
                done = closing + 1
        return self._best(programs, [block for _, _, block in fenced_blocks(text, fences, 1)])

    def _beginning(self, text: str, code: str) -> str | None:
        """Read the longest beginning of `text`, in whole top-level statements, that goes on with `code`."""
        if not code:
            return None
        for head, body in arrangements(text, code):
            if not head:
                continue
            lines = body.split("\n")
            for end, _ in python_ends(lines, self.parser, head):
                found = self._finished(head, "".join(line + "\n" for line in lines[:end]), body is not text)
                if found is not None:
                    return found
        return None

    def _between_prose(self, text: str, code: str) -> str | None:
        """Read the last stretch of Python that defines the entry point, with what it needs of the others.

        Where there is none, read the last indented lines that go on with `code`.
        """
        stretches = list(python_stretches(text, self.parser))
        programs = [self._finished("", stretch) for stretch in stretches]
        found = self._best([program for program in programs if program is not None], stretches)
        if found is None and code:
            for match in list(_INDENTED.finditer(text))[::-1]:
                above = text[: match.start()].rstrip().rpartition("\n")[2]
                if found is None and not STATEMENT.match(above.lstrip()):  # else the lines belong to that statement
                    found = self._whole(match[0], code)
        return found

    def _best(self, programs: Sequence[str], donors: Sequence[str]) -> str | None:
        """Return the last of the programs that is more than a signature."""
        if not programs:
            return None
        program = next((p for p in reversed(programs) if not self._is_stub(p)), programs[-1])
        return with_missing(program, donors, self.roots - {self.entry}, self.parser)

    def _finished(self, head: str, body: str, repaired: bool = False, given: bool = False) -> str | None:
        """Return `head` and `body` without the usage behind the function, if they parse and `body` defines the entry point.

        A program that was `given` as one keeps its usage, which can fail: what runs is what was given. `body` may also go
        on with the function at the end of `head`: with more than words that happen to parse, and with a return if its
        indentation was `repaired`, because any text would parse then.
        """
        text = head + body
        tree = self.parser.tree(text)
        start = (head.count("\n") + 1, len(head.rpartition("\n")[2].encode("utf-8", "surrogatepass")))
        if tree is None or not any(self._adds(statement, start, repaired) for statement in tree.body):
            return None
        dropped = (
            words_and_main_blocks(tree)
            if given
            else unneeded_after(tree, self._defines, self.roots, bool(head) or not self.keep_usage)
        )
        text = without(text, tree, dropped)
        text = text if self.keep_usage else without_last_comments(text)
        if head or self.is_solution:
            return text
        return with_missing(text, [_before_entry(self.task)], self.roots - {self.entry}, self.parser)

    def _adds(self, statement: ast.stmt, start: tuple[int, int], repaired: bool) -> bool:
        """Whether the statement defines the entry point with code at `start` (line, column) or after it."""
        if not self._defines(statement):
            return False
        if (statement.lineno, statement.col_offset) >= start:
            return True
        new = [s for s in self._body(statement) if (s.lineno, s.col_offset) >= start]
        return any(map(leaves_function, new)) if repaired else not all(map(is_inert, new))

    def _defines(self, statement: ast.stmt) -> bool:
        return self.entry in bound_names(statement) or self._method(statement) is not None

    def _method(self, statement: ast.stmt) -> ast.stmt | None:
        if not isinstance(statement, ast.ClassDef) or statement.name != "Solution":
            return None
        return next((s for s in statement.body if self.entry in bound_names(s)), None)

    def _body(self, statement: ast.stmt) -> list[ast.stmt]:
        return getattr(self._method(statement) or statement, "body", [])

    def _is_stub(self, program: str) -> bool:
        """Whether its entry point is only a signature, or only imported."""
        tree = self.parser.tree(program)
        definers = [s for s in tree.body if self._defines(s)] if tree else []
        return all(
            isinstance(s, (ast.Import, ast.ImportFrom))
            or (bool(body := self._body(s)) and all(isinstance(b, (ast.Pass, ast.Raise)) or is_inert(b) for b in body))
            for s in definers
        )
