"""Score programs with pylint (CPT eq. 15); the scores equal those of the `pylint` command for each program alone.

    Q = max(0, 10 - 10 * (5 E + R + C + W) / S), and 0 after a fatal message; S = statements as pylint counts them.

CPT excludes whitespace, newline, naming, docstring and import checks; checks.py has the list. A file that does not parse
(E0001) has no statements, and a file without statements scores 0; the command prints no score there.

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

from cptlab.judging.lint.pylint_checks import CHECKS_VERSION, pylint_flags
from cptlab.judging.lint.score_cache import ScoreCache
from cptlab.judging.workers.server_pool import ServerPool, available_cpus
from cptlab.records import Message, Quality

CPU_SECONDS = 60.0  # per file, then the file counts as fatal, with the message TIMEOUT
MEMORY_MB = 4096
TIMEOUT = Message("F9001", "cptlab-lint-timeout", 0)
CRASH = Message("F9002", "cptlab-lint-crash", 0)

_MAX_WAITING = 256  # cached scores that may wait while the linters are busy


def quality_formula(
    statements: int, errors: int = 0, warnings: int = 0, refactors: int = 0, conventions: int = 0, fatals: int = 0
) -> float:
    """Return the score of CPT eq. 15, in [0, 10], from message counts, in pylint's own order of floating-point operations."""
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
    """Yield one (key, quality) for each (key, program) of `items`, in order of completion.

    Items are pulled as they are needed, so any number of them takes bounded memory. Equal programs are checked each time
    unless there is a cache. Arguments as in `score_programs`.
    """
    items = iter(items)
    cached: deque[tuple[Any, Quality]] = deque()  # scores from the cache, not yet yielded
    with ExitStack() as stack:
        cache, pool, ended = None, None, False
        if cache_dir is not None:
            cache = stack.enter_context(ScoreCache(cache_dir, _cache_context(extra_disabled)))

        def requests() -> Iterator[tuple[tuple[Any, str], dict[str, str]]]:
            nonlocal ended
            for key, program in items:
                quality = cache.get(program) if cache else None
                if quality is None:
                    yield (key, program), {"source": program}
                    continue
                cached.append((key, quality))
                if len(cached) >= _MAX_WAITING:
                    return
            ended = True

        while not ended:
            uncached = requests()
            first = list(itertools.islice(uncached, 1))
            if first:
                pool = pool or stack.enter_context(linter_pool(workers or available_cpus(), extra_disabled))
                for (key, program), answer in pool.answers(itertools.chain(first, uncached)):
                    quality = quality_of(answer)
                    if cache and quality.messages[:1] not in ((TIMEOUT,), (CRASH,)):
                        cache.put(program, quality)
                    yield key, quality
                    while cached:
                        yield cached.popleft()
            while cached:
                yield cached.popleft()


def score_programs(
    programs: Sequence[str],
    *,
    workers: int | None = None,
    extra_disabled: Sequence[str] = (),
    cache_dir: str | os.PathLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Quality]:
    """Return the quality of each program, in order. Equal programs are checked once.

    `workers`: linter processes, by default one per CPU. `extra_disabled`: further pylint messages to leave out.
    `cache_dir`: a folder that keeps scores by content, by the list of checks, and by the versions of Python, pylint and
    every other installed package, as a program may import any. Processes may share it, and a score in it is not computed
    again. `progress` gets the number of programs scored since its last call.
    """
    return scored_in_order(
        lambda items, workers: score_stream(items, workers=workers, extra_disabled=extra_disabled, cache_dir=cache_dir),
        programs,
        workers,
        progress,
    )


def scored_in_order(
    stream: Callable[[Iterable[tuple[Any, str]], int], Iterator[tuple[Any, Quality]]],
    programs: Sequence[str],
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Quality]:
    """Return the quality of each program, in order, from a stream such as `score_stream`; equal programs go in once."""
    qualities: dict[int, Quality] = {}
    places: dict[str, list[int]] = {}
    for index, program in enumerate(programs):
        places.setdefault(program, []).append(index)
    scored = stream(
        ((indices, program) for program, indices in places.items()), min(workers or available_cpus(), len(places))
    )
    for indices, quality in scored:
        for index in indices:
            qualities[index] = quality
        if progress is not None:
            progress(len(indices))
    return [qualities[index] for index in range(len(programs))]


def linter_pool(workers: int, extra_disabled: Sequence[str] = ()) -> ServerPool:
    """Return a pool of warm linters (linter_server.py)."""
    arguments = {"flags": pylint_flags(extra_disabled), "cpu_seconds": CPU_SECONDS, "memory_mb": MEMORY_MB}
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return ServerPool("cptlab.judging.lint.linter_server", arguments, workers, environment)


def quality_of(answer: dict[str, Any] | None) -> Quality:
    """Return the quality that an answer of `linter_pool` stands for."""
    if answer is None or "failed" in answer:
        timeout = answer is not None and answer["failed"] in ("cpu", "sleep", "wall")
        return Quality(0.0, 0, True, (TIMEOUT if timeout else CRASH,))
    messages = tuple(Message(*message) for message in answer["messages"])
    counts = {kind: sum(message.id[0] == kind for message in messages) for kind in "EWRCF"}
    score = quality_formula(answer["statements"], counts["E"], counts["W"], counts["R"], counts["C"], counts["F"])
    return Quality(score, answer["statements"], counts["F"] > 0, messages, answer["pragmas"])


def installed_packages() -> list[str]:
    """Return `name==version` of every installed package but cptlab, as a program may import any."""
    packages = {f"{found.name}=={found.version}" for found in importlib.metadata.distributions()}
    # a clone may list cptlab twice, or not at all
    return sorted(name for name in packages if not name.startswith("cptlab=="))


def _cache_context(extra_disabled: Sequence[str]) -> str:
    flags = pylint_flags(sorted(extra_disabled))
    return " ".join([CHECKS_VERSION, platform.python_version(), *installed_packages(), *flags])
