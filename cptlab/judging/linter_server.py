"""A warm pylint that forks for every file. Run by quality.py in a fresh interpreter.

Reusing one linter is not exact (a file that assigns `math.foo` hides E1101 in later ones); a fork per file is. The
linter is made by pylint's own command-line code from the same arguments, and has checked nothing when it forks.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import sys
import tempfile
from typing import Any

from astroid import MANAGER
from astroid.builder import AstroidBuilder
from pylint.lint import PyLinter, Run
from pylint.reporters import CollectingReporter

from cptlab.judging.forkserver import run_forked, serve, write_all

# Parsing a module of the standard library costs more than checking a program, so the server parses those of this list
# when a program first imports one, and later children inherit them. The child would parse them to the same tree.
_SHARED = frozenset(
    "abc bisect collections copy dataclasses datetime decimal enum fractions functools heapq itertools json math"
    " operator os random re statistics string sys time typing".split()
)
_IMPORTED = re.compile(r"^[ \t]*(?:from|import)[ \t]+(.+)", re.MULTILINE)
_COMMAND_DEPTH = 4  # frames above PyLinter.check in the `pylint` command: script, run_pylint, Run.__init__, check


class _WaitingLinter(PyLinter):
    """Lets `Run` do the whole set-up of the command and stop before the first file."""

    def check(self, files_or_modules: Any) -> None:
        pass


class _Setup(Run):
    LinterClass = _WaitingLinter


def main(arguments: dict[str, Any]) -> None:
    """Serve requests {source}; answers {statements, messages} or {failed: cause}."""
    reporter = CollectingReporter()
    linter = _Setup([*arguments["flags"], "program.py"], reporter=reporter, exit=False).linter
    linter.crash_file_path = os.devnull
    linter.process_tokens = lambda tokens: None  # pragmas: quality.py defuses them; utf-7 comments could still hide one
    AstroidBuilder(MANAGER)  # makes the tree of builtins
    parsed: set[str] = set()

    with tempfile.TemporaryDirectory(dir=arguments["scratch"], prefix="lint") as folder:
        path = os.path.join(folder, "cptlab_program.py")

        def answer(request: dict[str, str]) -> dict[str, Any]:
            imported = set(re.findall(r"\w+", " ".join(_IMPORTED.findall(request["source"]))))
            for name in sorted((imported & _SHARED) - parsed):
                MANAGER.ast_from_module_name(name)
                parsed.add(name)
            with open(path, "wb") as file:
                file.write(request["source"].encode("utf-8", "surrogatepass"))
            ending = run_forked(
                lambda fd: _lint(linter, path, fd, arguments),
                cpu_seconds=arguments["cpu_seconds"],
                wall_seconds=10 * arguments["cpu_seconds"],
                max_bytes=1 << 24,
            )
            if ending.cause == "exit" and ending.code == 0:
                return json.loads(ending.data)
            return {"failed": ending.cause if ending.cause in ("cpu", "wall") else "crashed"}

        serve(answer, {"ready": True})


def _lint(linter: PyLinter, path: str, fd: int, arguments: dict[str, Any]) -> None:
    gc.disable()  # the child is short-lived
    limit = arguments["memory_mb"] << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    silence = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(silence, standard)
    # Where pylint gives up on deep nesting depends on the frames above it; make them count as the command's do.
    depth = _stack_depth()
    sys.setrecursionlimit(sys.getrecursionlimit() + depth + 1 - _COMMAND_DEPTH)
    PyLinter.check(linter, [path])
    messages = [(m.msg_id, m.symbol, m.line) for m in linter.reporter.messages]
    write_all(fd, json.dumps({"statements": linter.stats.statement, "messages": messages}).encode())


def _stack_depth() -> int:
    frame, depth = sys._getframe(1), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth
