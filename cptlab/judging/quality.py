"""The pylint score of programs (CPT eq. 15), equal to what the `pylint` command gives for each of them alone.

    Q = max(0, 10 - 10 * (5 E + R + C + W) / S), and 0 after a fatal message; S = statements as pylint counts them.

CPT excludes whitespace, newline, naming, docstring and import checks; `DISABLED_CHECKS` is that list. A file that
does not parse (E0001) has no statements, and a file without statements scores 0; the command prints no score there.

Pragmas (`# pylint: disable=...`, `skip-file`) would let a program choose its own score. They are defused before scoring
and counted: the score is the command's for the program with `pylint:` in its comments rewritten to `pylint;`.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import re
import tokenize
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from cptlab.judging.pool import ServerPool, available_cpus
from cptlab.judging.quality_cache import QualityCache
from cptlab.records import Message, Quality

CHECKS_VERSION = "1"  # raise it when DISABLED_CHECKS changes
PYLINT_VERSION = "4.1.4"  # the list was checked against this version; 3.3.9 gives the same scores on 400 real files

DISABLED_CHECKS = (
    # naming
    *("C0103", "C0104", "C0105", "C0131", "C0132"),
    # docstrings (none appears in CPT Table XII)
    *("C0114", "C0115", "C0116"),
    # whitespace and newlines
    *("C0301", "C0302", "C0303", "C0304", "C0305", "C0327", "C0328", "W0301", "W0311"),
    # imports
    *("E0401", "E0402", "C0410", "C0411", "C0412", "C0413", "C0414", "C0415", "R0402", "R0401"),
    *("W0401", "W0404", "W0406", "W0407", "W0410", "W0416", "W0611"),
    # duplicate code between files and too few public methods (peers' list)
    *("R0801", "R0903"),
)
# Absent from CPT Table XII as well: redefined-outer-name and undefined-variable. A named option: `extra_disabled`.
ABSENT_FROM_TABLE_XII = ("W0621", "E0602")

CPU_SECONDS = 60.0  # per file, then the file counts as fatal, with the message TIMEOUT
MEMORY_MB = 4096
TIMEOUT = Message("F9001", "cptlab-lint-timeout", 0)
CRASH = Message("F9002", "cptlab-lint-crash", 0)

_PRAGMA = re.compile(r"\bpylint:")


def pylint_flags(extra_disabled: Sequence[str] = ()) -> list[str]:
    """The arguments with which the `pylint` command scores as cptlab does."""
    disabled = ",".join((*DISABLED_CHECKS, *extra_disabled))
    return ["--rcfile=/dev/null", "--persistent=n", "-j1", f"--disable={disabled}"]


def quality_formula(
    statements: int, errors: int = 0, warnings: int = 0, refactors: int = 0, conventions: int = 0, fatals: int = 0
) -> float:
    """CPT eq. 15 on message counts, in pylint's own order of floating-point operations, in [0, 10]."""
    if fatals or statements == 0:
        return 0.0
    return max(0.0, 10.0 - (float(5 * errors + warnings + refactors + conventions) / statements) * 10)


def defuse_pragmas(program: str) -> tuple[str, int]:
    """The program with `pylint:` made `pylint;` in comments (lines and columns keep), and the number of such comments."""
    if "pylint:" not in program:
        return program, 0
    lines, count = program.split("\n"), 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(program).readline):
            if token.type == tokenize.COMMENT and _PRAGMA.search(token.string):
                (row, start), end = token.start, token.end[1]
                line = lines[row - 1]
                lines[row - 1] = line[:start] + _PRAGMA.sub("pylint;", token.string) + line[end:]
                count += 1
    except (tokenize.TokenError, SyntaxError):
        pass  # pylint will say E0001
    return "\n".join(lines), count


def score_programs(
    programs: Sequence[str],
    *,
    workers: int | None = None,
    extra_disabled: Sequence[str] = (),
    cache_dir: str | os.PathLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Quality]:
    """The quality of each program, in order. Equal programs are checked once.

    `workers`: linter processes, by default one per CPU. `extra_disabled`: further pylint messages to leave out.
    `cache_dir`: keep scores there by content (and by versions of pylint, astroid and Python, and by the list of
    checks); processes may share it. What a program imports is not part of the key: clear the cache after changing
    installed packages. `progress` gets the number of programs settled since its last call.
    """
    qualities: list[Quality | None] = [None] * len(programs)
    places: dict[str, list[int]] = {}
    for index, program in enumerate(programs):
        places.setdefault(program, []).append(index)

    def settle(program: str, quality: Quality) -> None:
        for index in places[program]:
            qualities[index] = quality
        if progress is not None:
            progress(len(places[program]))

    with ExitStack() as stack:
        cache = None
        if cache_dir is not None:
            cache = stack.enter_context(QualityCache(cache_dir, _cache_context(extra_disabled)))
        todo = []
        for program in places:
            known = cache.get(program) if cache else None
            if known is None:
                todo.append(program)
            else:
                settle(program, known)
        if todo:
            pool = stack.enter_context(linter_pool(min(workers or available_cpus(), len(todo)), extra_disabled))
            for (program, pragmas), answer in pool.answers(_requests(todo)):
                quality = _quality(answer, pragmas)
                if cache and quality.messages[:1] not in ((TIMEOUT,), (CRASH,)):
                    cache.put(program, quality)
                settle(program, quality)
    return qualities


def linter_pool(workers: int, extra_disabled: Sequence[str] = ()) -> ServerPool:
    """Warm linters (linter_server.py)."""
    arguments = {"flags": pylint_flags(extra_disabled), "cpu_seconds": CPU_SECONDS, "memory_mb": MEMORY_MB}
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return ServerPool("cptlab.judging.linter_server", arguments, workers, environment)


def _requests(programs: Sequence[str]) -> Any:
    for program in programs:
        source, pragmas = defuse_pragmas(program)
        yield (program, pragmas), {"source": source}


def _quality(answer: dict[str, Any] | None, pragmas: int) -> Quality:
    if answer is None or "failed" in answer:
        timeout = answer is not None and answer["failed"] in ("cpu", "wall")
        return Quality(0.0, 0, True, (TIMEOUT if timeout else CRASH,), pragmas)
    messages = tuple(Message(*message) for message in answer["messages"])
    counts = {kind: sum(message.id[0] == kind for message in messages) for kind in "EWRCF"}
    score = quality_formula(answer["statements"], counts["E"], counts["W"], counts["R"], counts["C"], counts["F"])
    return Quality(score, answer["statements"], counts["F"] > 0, messages, pragmas)


def _cache_context(extra_disabled: Sequence[str]) -> str:
    versions = [importlib.metadata.version(name) for name in ("pylint", "astroid")]
    return " ".join([CHECKS_VERSION, *versions, platform.python_version(), *pylint_flags(sorted(extra_disabled))])
