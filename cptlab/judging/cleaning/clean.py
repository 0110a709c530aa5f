"""From what a model said to the program that is judged: prose, fences, repeated prompts and test runs are taken away.

A text that is a program already is handed on byte for byte, but for what only shows or tests the function after it
(asserts, prints, `if __name__ == "__main__"`, bare expressions). Otherwise these readings are tried in order, and the
first that parses and defines the entry point is taken: the text alone or behind the prompt's code (with the
indentation of its first line or of all lines repaired), the same without the prompt that it repeats, the last fenced
block, the text up to where it stops being Python, the last stretch of Python between prose. Blocks and stretches get
the imports and helpers that they lack from the others. A text without any is handed on as it is; its verdict says why.

EvalPlus's sanitize has the same aim (the longest span that parses, and what the entry point needs); this one also reads
completions that begin in the middle of a function, and leaves programs alone that need no cleaning. Nothing is run,
and the work is bounded by the characters that are parsed (source.BUDGET).
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence

from cptlab.judging.cleaning.python_source import (
    Parser,
    bound_names,
    is_inert,
    leaves_function,
    unneeded_after,
    with_missing,
    without,
)
from cptlab.records import Task

_FENCE = re.compile(r"(?:`{3,}|~{3,})(?:[ \t]*([\w+.#-]*)[ \t]*$)?", re.MULTILINE)
# special tokens and the tags around code of CodeLlama's and MBPP's prompts: each ends or begins code as a fence does
_MARKER = re.compile(r"<\|[\w ]{1,40}\|>|</?s>|\[/?(?:PYTHON|INST|ANSWER)\]|\[(?:BEGIN|DONE)\]")
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL)
_PYTHON = ("", "python", "python3", "py", "py3")
_STATEMENT = re.compile(
    r"(?:from|import|def|class|async|if|for|while|try|with)\b|[@#\"']|[A-Za-z_][\w.]*\("
    r"|[A-Za-z_][\w.,\[\] ]*(?::[^=]+)?[-+*/|&]?=(?!=)"
)
_INDENTED = re.compile(r"(?:^[ \t]+\S.*\n?(?:[ \t]*\n)*)+", re.MULTILINE)
_IS_BODY = re.compile(r"\A(?:[ \t]*\n)*[ \t]+\S|^return\b", re.MULTILINE)
_READS_INPUT = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0")
_MAX_FENCES, _MAX_CLOSINGS, _MAX_CUTS = 60, 6, 40


def clean(raw: str, task: Task, is_solution: bool) -> str:
    """The program in `raw`, a model's text for `task`.

    `is_solution`: the text is meant as a whole program; else it goes on where the prompt ends. A text that holds no
    program is handed on (behind the prompt's code if it is a completion), so the result is empty only if that is.
    """
    if task.kind == "stdin" or not (task.entry_point or task.names):
        return _Script(task, is_solution).program(raw)
    return _Function(task, is_solution).program(raw)


class _Script:
    """Cleaning for programs that read stdin: any Python will do, and nothing is cut off behind it."""

    def __init__(self, task: Task, is_solution: bool) -> None:
        self.task, self.is_solution, self.parser = task, is_solution, Parser()
        self.code = "" if is_solution else task.prompt.code

    def program(self, raw: str) -> str:
        text, repeated = _without_prompt(_plain(raw), self.task)
        code = self.task.prompt.code.rstrip() if repeated else self.code
        for whole in (raw, self.code + raw, code + text):
            if self._is_python(whole):
                return whole
        fences = list(_FENCE.finditer(text))[:_MAX_FENCES]
        blocks = [block for _, _, block in _blocks(text, fences) if self._is_python(block)]
        if blocks:
            reading = [block for block in blocks if _READS_INPUT.search(block)]
            return reading[-1] if reading else max(reversed(blocks), key=len)
        stretches = list(_stretches(text, self.parser))
        if stretches:
            return max(stretches, key=len)
        return _as_is(text, fences, code if text.strip() else code + raw, None)

    def _is_python(self, text: str) -> bool:
        tree = self.parser.tree(text)
        return tree is not None and not all(map(is_inert, tree.body))


class _Function:
    """Cleaning for programs whose entry point is called."""

    def __init__(self, task: Task, is_solution: bool) -> None:
        self.task, self.is_solution, self.parser = task, is_solution, Parser()
        self.entry: str = task.entry_point or task.names[0]
        self.roots = {self.entry, *task.names}

    def program(self, raw: str) -> str:
        prompt = self.task.prompt.code
        found = self._read(raw, "" if self.is_solution else prompt)
        if found is None and self.is_solution and _IS_BODY.search(raw):
            found = self._read(raw, prompt)
        if found is not None:
            return found
        text, repeated = _without_prompt(_plain(raw), self.task)
        if repeated:
            return prompt.rstrip() + text
        begins = re.compile(rf"^[ \t]*(?:async +)?def +{re.escape(self.entry)}\b", re.MULTILINE)
        return _as_is(raw, list(_FENCE.finditer(raw))[:_MAX_FENCES], "" if self.is_solution else prompt, begins)

    def _read(self, raw: str, code: str) -> str | None:
        found = self._whole(raw, code)
        if found is not None:
            return found
        text, repeated = _without_prompt(_plain(raw), self.task)
        if repeated:
            code = self.task.prompt.code.rstrip()
        found = self._whole(text, code) if text != raw else None
        return found or self._fenced(text, code) or self._beginning(text, code) or self._between_prose(text, code)

    def _whole(self, text: str, code: str) -> str | None:
        """All of `text`, alone or behind `code`."""
        if not self.parser.left:
            return None
        for head, body in _arrangements(text, code):
            found = self._finished(head, body, repaired=body is not text)
            if found is not None:
                return found
        return None

    def _fenced(self, text: str, code: str) -> str | None:
        """The last fenced block that defines the entry point, with what it needs of the others."""
        fences = list(_FENCE.finditer(text))[:_MAX_FENCES]
        if not fences:
            return None
        if code:  # a completion may go on with the function and only then close a fence
            found = self._whole(text[: fences[0].start()], code)
            if found is not None:
                return found
        programs: list[str] = []
        done = 0  # fences before this one belong to blocks that are settled
        for opening, closing, block in _blocks(text, fences):
            program = self._whole(block, code) if opening >= done else None
            if program is not None:
                programs.append(program)
                done = closing + 1
        return self._best(programs, [block for _, _, block in _blocks(text, fences, 1)])

    def _beginning(self, text: str, code: str) -> str | None:
        """The longest beginning of `text`, in whole top-level statements, that goes on with `code`."""
        if not code:
            return None
        for head, body in _arrangements(text, code):
            if not head:
                continue
            lines = body.split("\n")
            for end, _ in _ends(lines, self.parser, head):
                found = self._finished(head, "".join(line + "\n" for line in lines[:end]), body is not text)
                if found is not None:
                    return found
        return None

    def _between_prose(self, text: str, code: str) -> str | None:
        """The last stretch of Python that defines the entry point, with what it needs of the others.

        Where there is none, the last indented lines that go on with `code`.
        """
        stretches = list(_stretches(text, self.parser))
        programs = [self._finished("", stretch) for stretch in stretches]
        found = self._best([program for program in programs if program is not None], stretches)
        if found is None and code:
            for match in list(_INDENTED.finditer(text))[::-1]:
                above = text[: match.start()].rstrip().rpartition("\n")[2]
                if found is None and not _STATEMENT.match(above.lstrip()):  # else the lines belong to that statement
                    found = self._whole(match[0], code)
        return found

    def _best(self, programs: Sequence[str], donors: Sequence[str]) -> str | None:
        """The last of the programs that is more than a signature."""
        if not programs:
            return None
        program = next((p for p in reversed(programs) if not self._is_stub(p)), programs[-1])
        return with_missing(program, donors, self.roots - {self.entry}, self.parser)

    def _finished(self, head: str, body: str, repaired: bool = False) -> str | None:
        """`head` and `body` without what follows the function, if that parses and `body` defines the entry point.

        It may define it by going on with the function at the end of `head`: with more than words that happen to parse,
        and if its indentation was `repaired`, with a return, as any text would parse then.
        """
        text = head + body
        tree = self.parser.tree(text)
        start = (head.count("\n") + 1, len(head.rpartition("\n")[2].encode("utf-8", "surrogatepass")))
        if tree is None or not any(self._adds(statement, start, repaired) for statement in tree.body):
            return None
        text = without(text, tree, unneeded_after(tree, self._defines, self.roots, definitions_too=bool(head)))
        if head or self.is_solution:
            return text
        return with_missing(text, [self._before_entry()], self.roots - {self.entry}, self.parser)

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

    def _before_entry(self) -> str:
        """The prompt's imports and helpers, for a completion that repeats the signature but not those."""
        code = self.task.prompt.code
        begin = re.search(rf"^(?:(?:async +)?def +{re.escape(self.entry)}\b|class +Solution\b)", code, re.MULTILINE)
        return code[: begin.start()] if begin else code


def _plain(text: str) -> str:
    """Without thoughts, byte order mark and carriage returns; special tokens become fences."""
    text = _THOUGHT.sub("", text).replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    return _MARKER.sub("\n```\n", text)


def _without_prompt(text: str, task: Task) -> tuple[str, bool]:
    """What follows the prompt, where the text begins by repeating it; and whether it does."""
    start = text.lstrip()
    for prompt in (task.prompt.text.strip(), task.prompt.code.strip()):
        if prompt and start.startswith(prompt):
            return start[len(prompt) :], True
    return text, False


def _arrangements(text: str, code: str) -> Iterator[tuple[str, str]]:
    """(head, body): the text alone or behind the prompt's code, as it is and with its indentation repaired."""
    dedented = textwrap.dedent(text) if text[:1].isspace() else text
    yield "", text
    if code:
        yield code, text
    if dedented != text:
        yield "", dedented
    if code and text.strip():
        head, indent = code if code.endswith("\n") else code + "\n", _body_indent(code)
        yield head, indent + text.lstrip()
        yield head, textwrap.indent(textwrap.dedent(text).strip("\n"), indent) + "\n"


def _body_indent(code: str) -> str:
    """The indentation of the body that `code` has begun or is about to begin."""
    last = next((line for line in reversed(code.split("\n")) if line.strip()), "")
    indent = last[: len(last) - len(last.lstrip())]
    return indent + "    " if last.rstrip().endswith(":") else indent or "    "


def _blocks(text: str, fences: Sequence[re.Match], closings: int = _MAX_CLOSINGS) -> Iterator[tuple[int, int, str]]:
    """(opening, closing, content) for every fence and each of the next ones as its end, or the end of the text.

    The nearest fence need not be the right one: a docstring may hold fences of its own.
    """
    for opening, fence in enumerate(fences):
        if (fence[1] or "").lower() not in _PYTHON:
            continue
        for closing in range(opening + 1, min(opening + closings, len(fences)) + 1):
            block = text[fence.end() : fences[closing].start() if closing < len(fences) else len(text)]
            block = block.lstrip("\n")
            if block.strip():
                yield opening, closing, block


def _is_stop(line: str) -> bool:
    """Whether a top-level statement, or anything that is not Python, may begin with this line."""
    return bool(line.strip()) and (not line[0].isspace() or line.lstrip().startswith(("```", "~~~")))


def _ends(lines: Sequence[str], parser: Parser, head: str = "") -> Iterator[tuple[int, ast.Module]]:
    """How many of the lines are Python behind `head`, up to a stop; none or one, with the tree."""
    stops = [number for number, line in enumerate(lines) if number and _is_stop(line)]
    end = len(lines)
    for _ in range(_MAX_CUTS):
        answer = parser.parse(head + "\n".join(lines[:end]))
        if not isinstance(answer, SyntaxError):
            if answer is not None:
                yield end, answer
            return
        wrong = (answer.lineno or 1) - 1 - head.count("\n")
        end = max((stop for stop in stops if stop < end and stop <= wrong), default=0)
        if not end:
            return


def _stretches(text: str, parser: Parser) -> Iterator[str]:
    """The parts of `text` that are Python and more than mere words, in order; indented ones without their indent."""
    lines = text.split("\n")
    start = 0
    while start < len(lines) and parser.left:
        line = lines[start]
        length = 0
        if _STATEMENT.match(line.lstrip()):
            indent = line[: len(line) - len(line.lstrip())]
            end = start + 1
            while end < len(lines) and (lines[end].startswith(indent) or not lines[end].strip()):
                end += 1
            part = [each[len(indent) :] for each in lines[start:end]]
            for count, tree in _ends(part, parser):
                inert = next((statement.lineno for statement in tree.body if is_inert(statement)), count + 1)
                length = min(count, inert - 1) if tree.body else 0
            if length:
                yield "\n".join(part[:length]) + "\n"
        start += max(length, 1)


def _as_is(text: str, fences: Sequence[re.Match], code: str, begins: re.Pattern | None) -> str:
    """The most program-like part of a text that does not parse: its longest block, else all of it."""
    blocks = [block for _, _, block in _blocks(text, fences, 1)]
    if begins is not None:
        blocks = [block for block in blocks if begins.search(block)] or blocks
    best = max(blocks, key=len, default=text)
    return best if begins is not None and begins.search(best) else code + best
