"""A warm pylint that forks for every file. Run by quality.py in a fresh interpreter.

Reusing one linter is not exact (a file that assigns `math.foo` hides E1101 in later ones); a fork per file is. The linter
is made by pylint's own command-line code from the same arguments and is taken through the steps of `PyLinter.check` up to
the point where the command would read the file. There it stops; linter_forks.py has the processes that go on from there.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import tokenize
from collections.abc import Iterable
from typing import Any

from astroid import MANAGER
from astroid.builder import AstroidBuilder
from pylint.lint import PyLinter, Run
from pylint.lint.utils import augmented_sys_path
from pylint.reporters import CollectingReporter
from pylint.reporters.progress_reporters import ProgressReporter
from pylint.utils.pragma_parser import OPTION_PO


class StoppedLinter(PyLinter):
    """The linter of the `pylint` command, stopped before it reads its one file; pragmas are counted, not obeyed."""

    pragmas = 0

    def check(self, files_or_modules: list[str]) -> None:
        """Everything that `PyLinter.check` does before it reads a file. Called by `Run`, as in the command."""
        (self.path,) = files_or_modules
        self.initialize()
        self._sys_path = augmented_sys_path([os.path.dirname(self.path)])
        self._sys_path.__enter__()
        self._files = list(self._iterate_file_descrs(files_or_modules))
        self._checkers_open = self._astroid_module_checker()
        self._check_tree = self._checkers_open.__enter__()
        AstroidBuilder(MANAGER)  # makes the tree of builtins

    def go_on(self) -> None:
        """The rest of `PyLinter.check`."""
        progress = ProgressReporter(False)
        trees = self._get_asts(iter(self._files), None, progress)
        self._lint_files(trees, self._check_tree, progress)
        self._checkers_open.__exit__(None, None, None)
        if None in trees.values():  # it did not parse: count pragmas as far as it can be read
            with open(self.path, "rb") as file:
                try:
                    self.process_tokens(tokenize.tokenize(file.readline))
                except Exception:  # whatever the tokenizer or a codec says
                    pass

    def process_tokens(self, tokens: Iterable[tokenize.TokenInfo]) -> None:
        """Where the command obeys pragmas: count those that it would find."""
        for token in tokens:
            self.pragmas += token.type == tokenize.COMMENT and OPTION_PO.search(token.string) is not None


class _Setup(Run):
    LinterClass = StoppedLinter


def stopped_linter(flags: list[str], path: str) -> StoppedLinter:
    """What the command `pylint *flags path` is just before it reads the file `path`, which exists and may be empty."""
    linter = _Setup([*flags, path], reporter=CollectingReporter(), exit=False).linter
    linter.crash_file_path = os.devnull
    return linter


def main(arguments: dict[str, Any]) -> None:
    """Serve requests {source}; answers {statements, messages, pragmas} or {failed: cause}."""
    folder = os.path.realpath(tempfile.mkdtemp(dir=arguments["scratch"], prefix="lint"))
    try:
        path = os.path.join(folder, "cptlab-program.py")  # a name that no program can import
        open(path, "wb").close()
        linter = stopped_linter(arguments["flags"], path)

        # pylint looks at sys.modules when it inspects a compiled module of the standard library, so what the command
        # would not have loaded is taken out of it again.
        loaded = set(sys.modules)
        from cptlab.judging.lint.linter_forks import serve_files

        for name in set(sys.modules) - loaded:
            del sys.modules[name]
        serve_files(linter, arguments["cpu_seconds"], arguments["memory_mb"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
