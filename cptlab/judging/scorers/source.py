"""What scorers need of a program's source: its statements, and comments that would choose its score."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings

# Words in comments that linters obey. They are counted and rewritten, such that no linter knows them.
_WORDS = r"noqa|nosec|nosem(?:grep)?|nolint|nosonar|skipcq|type:\s*ignore"
_TOOLS = r"pylint|ruff|flake8|isort|fmt|yapf|black|mypy|pyright|pyre|pytype|pragma|lint|codespell"
PRAGMA = re.compile(rf"\b(?:{_WORDS})\b|\b(?:{_TOOLS})\s*[:=]", re.IGNORECASE)
_SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count_statements(program: str) -> int | SyntaxError:
    """Return the number of statements as pylint counts them: exception handlers are some, docstrings are none.

    Return a SyntaxError for a program that Python does not parse.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes
            tree = ast.parse(program)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return SyntaxError(str(error))
    nodes = list(ast.walk(tree))
    docstrings = sum(isinstance(node, _SCOPES) and _has_docstring(node) for node in nodes)
    return sum(isinstance(node, (ast.stmt, ast.ExceptHandler)) for node in nodes) - docstrings


def without_pragmas(program: str) -> tuple[str, int]:
    """Return the program with the pragmas in its comments made unknown to linters, and how many there were.

    Every line keeps its length. A program that cannot be read to its end is treated up to there.
    """
    lines, found = list(io.StringIO(program, newline="")), 0  # the lines that the tokenizer reads
    try:
        for token in tokenize.generate_tokens(io.StringIO(program, newline="").readline):
            count = len(PRAGMA.findall(token.string)) if token.type == tokenize.COMMENT else 0
            if count:
                (row, start), (_, end) = token.start, token.end
                line = lines[row - 1]
                lines[row - 1] = line[:start] + PRAGMA.sub(_unknown, line[start:end]) + line[end:]
                found += count
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass
    return "".join(lines), found


def _unknown(found: re.Match[str]) -> str:
    """noqa -> noq_, pylint: -> pylint;"""
    text = found[0]
    return text[:-1] + (";" if text[-1] in ":=" else "_")


def _has_docstring(node: ast.AST) -> bool:
    body = getattr(node, "body", [])
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0].value, "value", None), str)
