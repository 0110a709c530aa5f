"""What a run came to, as plain data that every logger takes: figures, a table of programs, media, and what it was made of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_NAME = 128  # of an artifact in W&B
RUN_IDS = {"wandb": "wandb.json", "mlflow": "mlflow.json"}  # files with the id that a run has there


@dataclass(frozen=True)
class Artifact:
    """Files that a run used or made. The same name, files and content are the same artifact in every run.

    `files`: their names in the artifact, and where they are.
    """

    name: str
    type: str
    files: Mapping[str, Path]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def artifact(name: str, type: str, root: Path, paths: Sequence[Path]) -> Artifact:
    """Return the artifact of files below `root`, its name without characters that W&B refuses."""
    name = re.sub(r"[^\w.-]+", "_", name)
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Artifact(name, type, {path.relative_to(root).as_posix(): path for path in sorted(paths) if path.is_file()})


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Outcome:
    """The results of a run. `metrics` have the bounds of their 95% intervals beside them, as `x_low` and `x_high`.

    `tables` and `figures` (PNG files) have names. Lineage goes from what was `used` to what was `made`.
    """

    metrics: Mapping[str, float]
    programs: Table | None = None
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Path] = field(default_factory=dict)
    report: Path | None = None
    used: Sequence[Artifact] = ()
    made: Sequence[Artifact] = ()


def results_table(metrics: Mapping[str, float]) -> Table:
    """Return metrics named system/difficulty/metric as rows of those, the value and its interval.

    Metrics of training, such as comparative/val_accuracy, have no difficulty.
    """
    rows = []
    for name, value in metrics.items():
        if re.fullmatch(r".*_(low|high)", name) and name.rpartition("_")[0] in metrics:
            continue
        system, _, rest = name.partition("/")
        difficulty, _, metric = rest.rpartition("/")
        rows.append([system, difficulty, metric, value, metrics.get(f"{name}_low"), metrics.get(f"{name}_high")])
    return Table(["system", "difficulty", "metric", "value", "low", "high"], rows)


def known_id(directory: str | Path, logger: str) -> str | None:
    """Return the id that the run in this directory has in W&B or MLflow; None where it has none yet."""
    try:
        return str(json.loads((Path(directory) / RUN_IDS[logger]).read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
