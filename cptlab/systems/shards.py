"""One shard of a system's programs, made by a process of its own: on this machine, or one of several with a common disk.

A shard is every so-many-th chunk of tasks. Chunks are files of their own below the cache (storage/chunk_store.py), so
shards need nothing of each other, and a command without shards finds what they made.
"""

from __future__ import annotations

import json
import platform
import time
from typing import Any

from cptlab.systems.samples import SystemPrograms

MADE_ON = "made_on"  # .jsonl files beside the verdicts: which machine made which chunks, at which sandbox level


def fill_shard(programs: SystemPrograms, shard: int, shards: int) -> list[str]:
    """Make every chunk whose number leaves `shard` when divided by `shards`; return the keys of those."""
    keys = programs.chunks.keys[shard::shards]
    missing = [key for key in programs.missing() if key in keys]
    started = time.monotonic()
    programs.fill(keys)
    if missing:
        row = {"seconds": round(time.monotonic() - started, 2), **where_judged(programs.judging.judge.level)}
        note_makers(programs, f"shard-{shard}-of-{shards}", {"chunks": missing, **row})
    return keys


def where_judged(level: str) -> dict[str, Any]:
    """Say on which machine programs were judged, and how they were held in."""
    return {"judged_on": platform.node(), "sandbox": level}


def note_makers(programs: SystemPrograms, name: str, row: dict[str, Any]) -> None:
    """Add a line to the file `made_on-<name>.jsonl` beside the verdicts, which this process alone writes to."""
    with open(programs.stages[-1].store.directory / f"{MADE_ON}-{name}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
