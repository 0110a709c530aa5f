"""The linter of the `pylint` command, stopped just before it reads its one file.

Reusing one linter is not exact (a file that assigns `math.foo` hides E1101 in later ones), but a fork per file is. The
linter is made by pylint's own command-line code from the same arguments and goes through the steps of `PyLinter.check` up
to the point where the command would read the file. A forked child goes on from there (linter_forks.py).
"""

from __future__ import annotations

import os
import tokenize
from collections.abc import Iterable, Sequence

from astroid import MANAGER
from astroid.builder import AstroidBuilder
from pylint.lint import PyLinter, Run
from pylint.lint.utils import augmented_sys_path
from pylint.reporters import CollectingReporter
from pylint.reporters.progress_reporters import ProgressReporter
from pylint.utils.pragma_parser import OPTION_PO


class StoppedLinter(PyLinter):
    """A linter whose `check` stops before it reads its one file, and which counts pragmas and does not obey them."""

    pragmas = 0

    def check(self, files_or_modules: Sequence[str]) -> None:
        """Do what `PyLinter.check` does before it reads a file. `Run` calls this, as in the command."""
        (self.path,) = files_or_modules
        self.initialize()
        self._sys_path = augmented_sys_path([os.path.dirname(self.path)])
        self._sys_path.__enter__()
        self._files = list(self._iterate_file_descrs(files_or_modules))
        self._checkers_open = self._astroid_module_checker()
        self._check_tree = self._checkers_open.__enter__()
        AstroidBuilder(MANAGER)  # makes the tree of builtins

    def finish(self) -> None:
        """Do the rest of `PyLinter.check`."""
        progress = ProgressReporter(False)
        trees = self._get_asts(iter(self._files), None, progress)
        self._lint_files(trees, self._check_tree, progress)
        self._checkers_open.__exit__(None, None, None)
        if None in trees.values():  # it did not parse: count pragmas as far as it can be read
            with open(self.path, "rb") as file:
                try:
                    self.process_tokens(tokenize.tokenize(file.readline))
                except Exception:  # the tokenizer or any codec, in a child of its own
                    pass

    def process_tokens(self, tokens: Iterable[tokenize.TokenInfo]) -> None:
        """Count the pragmas that the command would find; it obeys them here."""
        for token in tokens:
            self.pragmas += token.type == tokenize.COMMENT and OPTION_PO.search(token.string) is not None


class _Setup(Run):
    LinterClass = StoppedLinter


def stopped_linter(flags: list[str], path: str) -> StoppedLinter:
    """Return the linter of the command `pylint *flags path`, just before it reads `path`, which exists and may be empty."""
    linter = _Setup([*flags, path], reporter=CollectingReporter(), exit=False).linter
    assert isinstance(linter, StoppedLinter)
    linter.crash_file_path = os.devnull
    return linter
