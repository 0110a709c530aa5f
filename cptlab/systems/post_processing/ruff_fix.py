"""Repair programs with ruff: `ruff check --fix`, then `ruff format` (https://docs.astral.sh/ruff).

Many programs are files of one directory, so that two processes do for all of them. No configuration file of the user
is read.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cptlab.errors import UserError
from cptlab.settings.setting import Setting, check_settings

# ruff's default rules, and those whose fix removes a message that the pylint score counts (its number behind the rule)
SELECT = (
    *("E4", "E7", "E9", "F"),  # of these F541 W1309, E711 and E712 C0121, E713 C0117, F841 W0612
    *("C401", "C402", "C404", "C408", "C416", "C419"),  # R1718, R1717, R1717, R1734 and R1735, R1721, R1729
    *("PIE790", "PLC0208", "PLC1802", "PLR1711"),  # W0107, C0208, C1802, R1711
    *("PLR1714", "PLR1716", "PLR1722", "PLR1730"),  # R1714, R1716, R1722, R1730 and R1731
    *("PLR1733", "PLR1736", "PLR5501", "PLW0108"),  # R1733, R1736, R5501, W0108
    *("PLW0120", "PLW1510", "PLW3301"),  # W0120, W1510, W3301
    *("RET502", "RET503"),  # R1710
    *("RET505", "RET506", "RET507", "RET508"),  # R1705, R1720, R1724, R1723
    *("SIM103", "SIM118", "SIM201", "SIM202", "SIM210", "SIM211"),  # R1703, C0201, C0117, R1719
    *("UP004", "UP008", "UP032", "UP034"),  # R0205, R1725, C0209, C0325
)
PYTHON = "py311"  # the oldest that cptlab runs on


@dataclass(frozen=True)
class RuffFix:
    """A program that ruff cannot parse stays as it is, byte for byte."""

    select: Annotated[Sequence[str], Setting("Rules whose fixes are made, as in `ruff check --select`.")] = SELECT
    unsafe_fixes: Annotated[bool, Setting("Also make fixes that may change what a program does.")] = False
    layout: Annotated[bool, Setting("Also lay the program out anew, with `ruff format`.")] = True

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "select", tuple(self.select))

    def apply(self, programs: Sequence[str]) -> list[str]:
        with tempfile.TemporaryDirectory(prefix="cptlab-ruff-") as name:
            directory = Path(name)
            files = [directory / f"program_{i}.py" for i in range(len(programs))]
            written = []
            for file, program in zip(files, programs, strict=True):
                content = program.encode("utf-8", "surrogatepass")
                file.write_bytes(content)
                written.append(content)
            unsafe = "--unsafe-fixes" if self.unsafe_fixes else "--no-unsafe-fixes"
            rules = ",".join(self.select)
            _ruff(directory, "check", "--fix", "--exit-zero", unsafe, f"--select={rules}")
            if self.layout:
                _ruff(directory, "format")
            found = [file.read_bytes() for file in files]
        return [
            program if before == after else after.decode("utf-8", "surrogatepass")
            for program, before, after in zip(programs, written, found, strict=True)
        ]

    def versions(self) -> dict[str, str]:
        return {"ruff": version("ruff")}


def _ruff(directory: Path, *arguments: str) -> None:
    """Run ruff on every file of a directory. Raises UserError for what it does not understand."""
    options = ("--isolated", "--no-cache", "--no-respect-gitignore", "--quiet", f"--target-version={PYTHON}")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, *options, "."],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    # `format` ends with 2 as well where a file cannot be parsed, which is no failure here
    if "ruff failed" in done.stderr or done.returncode not in ((0, 2) if arguments[0] == "format" else (0,)):
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(
            f"ruff {arguments[0]} does not run: {said}. Correct the settings of RuffFix, or reinstall ruff."
        )
