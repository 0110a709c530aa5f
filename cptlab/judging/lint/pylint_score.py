"""The pylint score of programs (CPT eq. 15), equal to what the `pylint` command gives for each of them alone.

    Q = max(0, 10 - 10 * (5 E + R + C + W) / S), and 0 after a fatal message; S = statements as pylint counts them.

CPT excludes whitespace, newline, naming, docstring and import checks; `DISABLED_CHECKS` is that list. A file that
does not parse (E0001) has no statements, and a file without statements scores 0; the command prints no score there.

Pragmas (`# pylint: disable=...`, `skip-file`) would let a program choose its own score. They are counted and not obeyed:
the score is the command's for the program with `pylint:` in its comments rewritten to `pylint;`.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from cptlab.judging.lint.score_cache import QualityCache
from cptlab.judging.workers.server_pool import ServerPool, available_cpus
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

_MOST_KNOWN = 256  # cached answers that may wait while the linters are busy


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


def score_stream(
    items: Iterable[tuple[Any, str]],
    *,
    workers: int | None = None,
    extra_disabled: Sequence[str] = (),
    cache_dir: str | os.PathLike | None = None,
) -> Iterator[tuple[Any, Quality]]:
    """For each (key, program) of `items` one (key, quality), in order of completion.

    Items are pulled as they are needed, so any number of them takes bounded memory. Equal programs are checked each time
    unless there is a cache. Arguments as in `score_programs`.
    """
    items = iter(items)
    known: deque[tuple[Any, Quality]] = deque()  # answers of the cache that wait to be handed out
    with ExitStack() as stack:
        cache, pool, ended = None, None, False
        if cache_dir is not None:
            cache = stack.enter_context(QualityCache(cache_dir, _cache_context(extra_disabled)))

        def requests() -> Iterator[tuple[tuple[Any, str], dict[str, str]]]:
            nonlocal ended
            for key, program in items:
                quality = cache.get(program) if cache else None
                if quality is None:
                    yield (key, program), {"source": program}
                    continue
                known.append((key, quality))
                if len(known) >= _MOST_KNOWN:
                    return
            ended = True

        while not ended:
            unknown = requests()
            first = list(itertools.islice(unknown, 1))
            if first:
                pool = pool or stack.enter_context(linter_pool(workers or available_cpus(), extra_disabled))
                for (key, program), answer in pool.answers(itertools.chain(first, unknown)):
                    quality = quality_of(answer)
                    if cache and quality.messages[:1] not in ((TIMEOUT,), (CRASH,)):
                        cache.put(program, quality)
                    yield key, quality
                    while known:
                        yield known.popleft()
            while known:
                yield known.popleft()


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
    `cache_dir`: keep scores there by content (and by the list of checks, and the versions of Python, pylint and every
    other installed package, as a program may import any); processes may share it, and what is in it is not checked
    again. `progress` gets the number of programs settled since its last call.
    """
    qualities: list[Quality | None] = [None] * len(programs)
    places: dict[str, list[int]] = {}
    for index, program in enumerate(programs):
        places.setdefault(program, []).append(index)
    settled = score_stream(
        ((indices, program) for program, indices in places.items()),
        workers=min(workers or available_cpus(), len(places)),
        extra_disabled=extra_disabled,
        cache_dir=cache_dir,
    )
    for indices, quality in settled:
        for index in indices:
            qualities[index] = quality
        if progress is not None:
            progress(len(indices))
    return qualities


def linter_pool(workers: int, extra_disabled: Sequence[str] = ()) -> ServerPool:
    """Warm linters (linter_server.py)."""
    arguments = {"flags": pylint_flags(extra_disabled), "cpu_seconds": CPU_SECONDS, "memory_mb": MEMORY_MB}
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return ServerPool("cptlab.judging.lint.linter_server", arguments, workers, environment)


def quality_of(answer: dict[str, Any] | None) -> Quality:
    """What an answer of `linter_pool` says."""
    if answer is None or "failed" in answer:
        timeout = answer is not None and answer["failed"] in ("cpu", "sleep", "wall")
        return Quality(0.0, 0, True, (TIMEOUT if timeout else CRASH,))
    messages = tuple(Message(*message) for message in answer["messages"])
    counts = {kind: sum(message.id[0] == kind for message in messages) for kind in "EWRCF"}
    score = quality_formula(answer["statements"], counts["E"], counts["W"], counts["R"], counts["C"], counts["F"])
    return Quality(score, answer["statements"], counts["F"] > 0, messages, answer["pragmas"])


def _cache_context(extra_disabled: Sequence[str]) -> str:
    packages = {f"{found.name}=={found.version}" for found in importlib.metadata.distributions()}
    packages -= {name for name in packages if name.startswith("cptlab==")}  # a clone may say it in two places, or none
    return " ".join(
        [CHECKS_VERSION, platform.python_version(), *sorted(packages), *pylint_flags(sorted(extra_disabled))]
    )
