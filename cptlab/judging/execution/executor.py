"""Execute programs in the sandbox: a pool of servers that fork a confined child for each (candidate_server.py)."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from cptlab.judging.execution.request import ExecutionRequest, ExecutionResult
from cptlab.judging.sandbox.levels import LEVELS, check_level
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.workers.server_pool import ServerPool, available_cpus


class Executor:
    """Servers that execute programs; a context manager. `level` and `protections` say how the programs are confined,
    `reasons` why no stronger level does it.

    `workers`: programs that run at a time, by default one per CPU. `limits`: of each, by default `Limits()`. `at_least`:
    the weakest level that will do (levels.py); UserError where this system has none. `strongest`: use no stronger level
    (for tests).
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        at_least: str = "landlock",
        strongest: str = LEVELS[-1],
    ) -> None:
        self.limits, self.at_least = limits or Limits(), at_least
        self._limits = functools.cache(lambda seconds, memory: asdict(self.limits.for_task(seconds, memory)))
        self._test_files: dict[bytes, str] = {}
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"}
        environment["MALLOC_ARENA_MAX"] = "1"  # each arena of a thread would take 64 MB of the address space
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        if "LD_LIBRARY_PATH" in os.environ:  # some interpreters do not start without
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        arguments = {"strongest": strongest, "limits": asdict(self.limits)}
        server = "cptlab.judging.execution.candidate_server"
        self._pool = ServerPool(server, arguments, workers or available_cpus(), environment)

    def __enter__(self) -> Executor:
        self._pool.__enter__()
        self.level: str = self._pool.hello["level"]
        self.reasons: dict[str, str] = self._pool.hello["reasons"]
        self.protections: dict[str, bool] = self._pool.hello["protections"]
        try:
            check_level(self.level, self.at_least, self.reasons)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def run(self, requests: Iterable[tuple[Any, ExecutionRequest]]) -> Iterator[tuple[Any, list[ExecutionResult]]]:
        """Yield (key, results) for each (key, request), in the order in which the programs end.

        There is one result for a function or a program with tests, and one per input for a script, up to the first
        that had to be killed. There is none if the program took its server down twice. Requests are taken from the
        iterable as servers become free.
        """
        for key, answer in self._pool.answers((key, self._message(request)) for key, request in requests):
            results = [] if answer is None else answer["results"]
            yield key, [ExecutionResult(**{**result, "lines": tuple(result["lines"])}) for result in results]

    def _message(self, request: ExecutionRequest) -> dict[str, Any]:
        return {
            "source": request.source,
            "entry_point": request.entry_point,
            "inputs": request.inputs,
            "prelude": request.prelude,
            "tests": self._test_file(request.tests),
            "test_count": request.test_count,
            "names": request.names,
            "imports": request.imports,
            "own_examiner": request.own_examiner,
            "mock_patches": request.mock_patches,
            "limits": self._limits(request.cpu_seconds, request.memory_mb),
        }

    def _test_file(self, tests: bytes | None) -> str | None:
        """Write tests to a file: they must not pass through the server, whose memory the program inherits."""
        if tests is None:
            return None
        if tests not in self._test_files:
            path = self._pool.scratch / f"tests-{len(self._test_files)}"
            path.write_bytes(tests)
            self._test_files[tests] = str(path)
        return self._test_files[tests]


@functools.cache  # it starts a server
def probe_sandbox(at_least: str = LEVELS[0]) -> dict[str, Any]:
    """Probe the sandbox and report {"level": one of LEVELS, "protections": {protection: whether it holds}, "reasons":
    {stronger level: why this system does not have it}}.

    UserError where the level is weaker than `at_least`.
    """
    with Executor(workers=1, at_least=at_least) as executor:
        return {"level": executor.level, "protections": executor.protections, "reasons": executor.reasons}
