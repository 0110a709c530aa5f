"""The progress bar of everything that takes long, and which process may print.

with progress_bar("judging", len(programs), "programs") as advance:
    judge_programs(programs, progress=advance)    # calls advance(1) after each program
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr with the count, the time taken and the time left; yield the function that advances it.

    On a stream that is no terminal, one line says at the end what was done.
    """
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        bar = bars.add_task(title, total=total)
        yield lambda done: bars.advance(bar, done)
    if not console.is_terminal:
        console.print(f"{title}: {total} {unit}")


def is_main_process() -> bool:
    """Whether this is the process that prints and writes: rank 0, or the only one."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0
