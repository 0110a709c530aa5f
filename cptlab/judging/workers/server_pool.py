"""A few server processes and the loop that keeps them busy.

Each server is a fresh interpreter that talks over pipes, so a main process full of torch threads is never forked.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import cptlab
from cptlab.judging.workers.messages import read_message, write_message

_PACKAGE_PARENT = str(Path(cptlab.__file__).resolve().parents[1])
# The package's parent leaves sys.path again: judged programs must not see what lies beside the package in a clone.
_START = """
import importlib, json, os, sys
module, parent, arguments = sys.argv[1:]
sys.path.insert(0, parent)
server = importlib.import_module(module)
from cptlab.judging.workers.fork_server import remove_pool_folder
sys.path.remove(parent)
del sys.argv[1:]
arguments = json.loads(arguments)
server.main(arguments)
remove_pool_folder(arguments["scratch"])
"""


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


class ServerPool:
    """`workers` servers of one kind, started when entered and gone when left.

    `module` has a function `main(arguments)`, which calls `fork_server.serve`. `arguments` is JSON data; the pool adds
    'scratch', a folder that is removed with the pool, and 'worker', the number of the server. `environment` replaces the
    environment of the servers.
    """

    def __init__(self, module: str, arguments: dict[str, Any], workers: int, environment: dict[str, str]) -> None:
        self.module, self.arguments, self.environment = module, arguments, environment
        self.workers = max(1, workers)

    def __enter__(self) -> ServerPool:
        self._scratch = tempfile.TemporaryDirectory(prefix="cptlab-judge-", ignore_cleanup_errors=True)
        self.scratch = Path(self._scratch.name)
        self._servers = [self._start(index) for index in range(self.workers)]
        try:
            self.hello = [self._greet(server) for server in self._servers][0]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            _requests(server).close()
        for server in self._servers:
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            _answers(server).close()
        self._scratch.cleanup()

    def answers(self, requests: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Yield one (key, answer) for each (key, request), in the order in which the answers are ready.

        The answer is None for a request on which a server died twice.
        """
        todo = iter(requests)
        busy: dict[int, tuple[Any, Any, int]] = {}  # server -> key, request, attempt
        with selectors.DefaultSelector() as selector:

            def send(index: int, job: tuple[Any, Any, int] | None) -> None:
                if job is None:
                    return
                try:
                    write_message(_requests(self._servers[index]).fileno(), job[1])
                except BrokenPipeError:
                    pass  # its end is read below, and the request is given to the next one
                busy[index] = job
                selector.register(_answers(self._servers[index]), selectors.EVENT_READ, index)

            def following() -> tuple[Any, Any, int] | None:
                item = next(todo, None)
                return None if item is None else (*item, 1)

            try:
                for index in range(self.workers):
                    send(index, following())
                while busy:
                    for event, _ in selector.select():
                        index, server = event.data, self._servers[event.data]
                        selector.unregister(_answers(server))
                        key, request, attempt = busy.pop(index)
                        reply = read_message(_answers(server).fileno())
                        if reply is None:
                            self._replace(index)
                            if attempt == 1:
                                send(index, (key, request, 2))
                                continue
                        send(index, following())
                        yield key, reply
            finally:
                for index in busy:  # the caller stopped early: what is running is of no use, and would answer later
                    self._replace(index)

    def _start(self, index: int) -> subprocess.Popen:
        arguments = json.dumps({**self.arguments, "scratch": self._scratch.name, "worker": index})
        command = [sys.executable, "-P", "-c", _START, self.module, _PACKAGE_PARENT, arguments]
        return subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
            cwd=self._scratch.name,
            start_new_session=True,  # Ctrl-C reaches the main process alone, which then ends the servers
        )

    def _greet(self, server: subprocess.Popen) -> Any:
        hello = read_message(_answers(server).fileno())
        if hello is None:
            raise RuntimeError(f"The judging server {self.module} did not start (exit status {server.wait()}).")
        return hello

    def _replace(self, index: int) -> None:
        old = self._servers[index]
        old.kill()
        old.wait()
        _requests(old).close()
        _answers(old).close()
        self._servers[index] = self._start(index)
        self._greet(self._servers[index])


def _requests(server: subprocess.Popen) -> IO[bytes]:
    assert server.stdin is not None  # a pipe
    return server.stdin


def _answers(server: subprocess.Popen) -> IO[bytes]:
    assert server.stdout is not None  # a pipe
    return server.stdout
