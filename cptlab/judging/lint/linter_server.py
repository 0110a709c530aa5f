"""The server process of the linter pool: a warm pylint in a fresh interpreter, which forks for every file."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import Any

from cptlab.judging.lint.stopped_linter import stopped_linter


def main(arguments: dict[str, Any]) -> None:
    """Serve requests {source}; answer {statements, messages, pragmas} or {failed: cause}."""
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
