"""A prompt that a person writes, as a task without tests: words, or the beginning of a program.

Words are asked as a task of one's own is (jsonl.py): a base model goes on behind them as a docstring, a chat model is asked
for a script. What is Python already is gone on with as it stands: a signature, with or without its docstring or with a
docstring before it, imports, a comment.
"""

from __future__ import annotations

import ast
import warnings

from cptlab.errors import UserError
from cptlab.records import Prompt, Task
from cptlab.tasks import docstrings
from cptlab.tasks.evalplus import MAX_NEW_TOKENS
from cptlab.tasks.jsonl import SCRIPT_STOPS
from cptlab.tasks.own_tests import with_body
from cptlab.tasks.spans import spans_of

NAME = "prompt"  # the id of such a task


def free_task(text: str) -> Task:
    """Return the task that `text` asks for. Raises UserError for an empty text."""
    text = text.replace("\r\n", "\n").rstrip()
    if not text.strip():
        raise UserError("The prompt is empty. Write what the program is to do, or the beginning of the program.")
    tree = _python(text)
    if tree is None:
        nl = text.strip()
        whole = f'"""\n{nl}\n"""\n'
        prompt = Prompt(whole, "", spans_of(whole, [("nl", 4, 4 + len(nl))]), SCRIPT_STOPS, "", MAX_NEW_TOKENS)
        return _task(prompt, None, Prompt(nl, "", spans_of(nl, [("nl", 0, len(nl))]), max_new_tokens=MAX_NEW_TOKENS))
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    code = _behind_description(text, tree)
    stops = docstrings.STOPS if functions else SCRIPT_STOPS
    return _task(Prompt(text, code, (), stops, "", MAX_NEW_TOKENS), functions[-1].name if functions else None)


def _task(prompt: Prompt, entry_point: str | None, question: Prompt | None = None) -> Task:
    kind = "call" if entry_point else "stdin"
    return Task(NAME, NAME, "", "", kind, prompt, entry_point=entry_point, question=question)


def _python(text: str) -> ast.Module | None:
    """Return the tree of a text that begins a program; None for words, even those that happen to parse."""
    for source in (text, with_body(text)):
        try:
            with warnings.catch_warnings(action="ignore"):  # of "\d" and the like
                tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        return None if any(map(_is_word, tree.body)) else tree
    return None


def _is_word(node: ast.stmt) -> bool:
    """Whether a statement only names something, as the word `hello` does."""
    return isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Constant, ast.Call))


def _behind_description(text: str, tree: ast.Module) -> str:
    """Return what of the text belongs to the program: all but a docstring that stands before it."""
    if ast.get_docstring(tree) is None:
        return text
    end = tree.body[0].end_lineno or 0
    return "\n".join(text.split("\n")[end:]).lstrip("\n")
