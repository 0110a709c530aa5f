"""Run a linter as a process under limits: of CPU time, wall time, memory, and what it may print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_SECONDS = 120  # of a linter's process and each of its children, for a batch of programs
WALL_SECONDS = 10 * CPU_SECONDS
MEMORY_MB = 4096
OUTPUT_MB = 256
# The limits are set in the process that then becomes the linter: after a fork of ours, with its threads, nothing may run.
_LIMITED = """
import os, resource, sys
for name, value in zip(("CPU", "AS", "FSIZE", "CORE"), sys.argv[1:5]):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (int(value), int(value)))
try:
    os.execvp(sys.argv[5], sys.argv[5:])
except OSError as error:
    sys.exit(f"{sys.argv[5]}: {error.strerror}")
"""


@dataclass(frozen=True)
class Finished:
    """How a process ended: its exit code (negative: a signal), what it printed, and whether its time was over."""

    code: int
    output: str
    errors: str
    timed_out: bool


def run_limited(command: Sequence[str], folder: Path) -> Finished:
    """Run a command in a folder and return what it printed. It and its children are gone afterwards."""
    limits = (CPU_SECONDS, MEMORY_MB << 20, OUTPUT_MB << 20, 0)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LIMITED, *map(str, limits), *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code, late = process.wait(WALL_SECONDS), False
        except subprocess.TimeoutExpired:
            code, late = 0, True
        finally:
            _kill(process)
        late = late or code in (-signal.SIGXCPU, -signal.SIGKILL)  # at the end of its CPU time
        return Finished(code, _text(output), _text(errors), late)


def _kill(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _text(file) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
