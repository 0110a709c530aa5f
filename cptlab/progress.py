"""The progress of everything that takes long: a bar on a terminal, lines in a log. And which process may print.

with progress_bar("judging", len(programs), "programs") as advance:
    judge_programs(programs, progress=advance)    # calls advance(1) after each program
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_SECONDS = 30.0  # from one line of a log to the next


class Advance(Protocol):
    """Says that `done` more units are done, with a few words about the latest."""

    def __call__(self, done: int, words: str = "", /) -> None: ...


@contextmanager
def progress_bar(title: str, total: int, unit: str, *, done: int = 0) -> Iterator[Advance]:
    """Show on stderr how much is done, the time taken and the time left; yield the function that advances it.

    `done` of the `total` units are there before the work begins. On a stream that is no terminal, a line says the same
    every half minute, and another one at the end.
    """
    if not Console(stderr=True).is_interactive:
        lines = ProgressLines(title, total, unit, done)
        with repeated(lambda: _print(lines.line())):
            yield lines.advance
        _print(f"{title}: {total} {unit}")
        return
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bars:
        bar = bars.add_task(title, total=total, completed=done, words="")
        yield lambda count, words="": bars.update(bar, advance=count, words=words)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Print a line every half minute of work whose parts cannot be counted, such as loading a model."""
    lines = ProgressLines(title, None, "", 0)
    with repeated(lambda: _print(lines.line())):
        yield


class ProgressLines:
    """Work that is `done` out of `total` units (None: nobody knows), as one line of text. `clock` is in seconds."""

    def __init__(
        self, title: str, total: int | None, unit: str, done: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title, self.total, self.unit, self.clock = title, total, unit, clock
        self.before, self.done, self.words, self.started = done, done, "", clock()

    def advance(self, done: int, words: str = "", /) -> None:
        self.done, self.words = self.done + done, words

    def line(self) -> str:
        """Return where the work is, and how long it has left at the pace so far."""
        taken = self.clock() - self.started
        if self.total is None:
            return f"{self.title}: at work for {_duration(taken)}"
        made, missing = self.done - self.before, self.total - self.done
        left = f"{_duration(taken / made * missing)} left" if made > 0 else "time left not known yet"
        words = f" ({self.words})" if self.words else ""
        return f"{self.title}: {self.done} of {self.total} {self.unit}{words}, {_duration(taken)} taken, {left}"


@contextmanager
def repeated(
    act: Callable[[], None], wait: Callable[[threading.Event, float], bool] = threading.Event.wait
) -> Iterator[None]:
    """Call `act` every half minute until the block ends, whatever the block is doing.

    `wait` waits for an event for at most so many seconds, and returns whether it came.
    """
    ended = threading.Event()

    def act_again() -> None:
        while not wait(ended, LINE_SECONDS):
            act()

    thread = threading.Thread(target=act_again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_main_process() -> bool:
    """Whether this is the process that prints and writes: rank 0, or the only one."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def _duration(seconds: float) -> str:
    """Write 75 as 0:01:15."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
