"""Tuned values of ω: one file below `<cache>/omega` for each model, benchmark and way of decoding.

A value is given back for the setting that it was tuned in, and never for tasks that it was tuned on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.storage.atomic import write_json
from cptlab.storage.locks import locked

COMMAND = "python -m cptlab.analysis.omega"


@dataclass(frozen=True)
class Setting:
    """All that the best ω may depend on. `decoding`: guidance (but ω), strategy and sampling, as text."""

    backbone: str  # fingerprint
    prefix: str | None  # digest; None: the backbone alone
    benchmark: str
    tasks: str  # fingerprint of the benchmark's content
    template: str | None
    decoding: str

    def file(self, cache: Path) -> Path:
        rest = json.dumps([self.tasks, self.template, self.decoding])
        return cache / "omega" / f"{self._stem()}{hashlib.sha256(rest.encode()).hexdigest()[:16]}.json"

    def like(self, cache: Path) -> list[Path]:
        """The files of this model and benchmark in any other way of decoding."""
        return sorted((cache / "omega").glob(f"{self._stem()}*.json"))

    def _stem(self) -> str:
        benchmark = re.sub(r"\W", "_", self.benchmark)
        return f"{self.backbone}-{self.prefix[:16] if self.prefix else 'base'}-{benchmark}-"


def find_setting(
    backbone: Any, prefix: Any, benchmark: Any, guidance: Any, sampling: Any, strategy: Any = None
) -> Setting:
    """The setting of an evaluation: its Backbone, Prefix or None, Benchmark, Guidance, Sampling and strategy or None.

    The ω of `guidance` plays no part. Of the sampling, what ends a program (stop texts, length) plays none.
    """
    chosen = {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k")}
    parts = [repr(getattr(guidance, field.name)) for field in dataclasses.fields(guidance) if field.name != "omega"]
    rest = [*parts, f"mask token {backbone.mask_id}", repr(strategy), repr(chosen)]
    return Setting(
        backbone.fingerprint, None if prefix is None else prefix_digest(prefix), benchmark.name,
        benchmark.fingerprint(), backbone.prompt_template, "; ".join(rest),
    )  # fmt: skip


def with_omega(guidance: Any, omega: float) -> Any:
    """The same guidance with another ω; None for ω = 1, which is the plain model whatever would be mixed."""
    return None if omega == 1 else dataclasses.replace(guidance, omega=omega)


def prefix_digest(prefix: Any) -> str:
    """A digest of what the prefix does: its collapsed keys and values."""
    return hashlib.sha256(prefix.collapsed().detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def store(cache: Path, setting: Setting, tasks: Sequence[Task], omega: float, **facts: Any) -> Path:
    """Keep the ω that was tuned on `tasks` in this setting, in place of an older one; the file.

    facts: plain data on how it was found; they stand in the file beside it.
    """
    file = setting.file(cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "omega": omega, **facts, "number_of_tasks": len(tasks),
        "validation_tasks": contents(tasks), "setting": dataclasses.asdict(setting),
    }  # fmt: skip
    with locked(file.parent):
        write_json(file, record)
    return file


def stored(cache: Path, setting: Setting, command: str = COMMAND) -> dict[str, Any]:
    """What `store` kept for this setting. UserError with the command to run where there is nothing."""
    file = setting.file(cache)
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    what = "with this prefix" if setting.prefix else "without a prefix"
    others = setting.like(cache)
    hint = ""
    if others:
        there = json.loads(others[0].read_text(encoding="utf-8"))["setting"]
        mine = dataclasses.asdict(setting)
        differ = [name for name in ("tasks", "template", "decoding") if there[name] != mine[name]]
        hint = f" (One was tuned for another {' and '.join(differ)}: {others[0]}.)"
    raise UserError(
        f"No ω was tuned for this backbone {what} on {setting.benchmark} in this way of decoding.{hint} Run {command} "
        "with the same run, backbone, benchmark and decoding (its other settings are in conf/omega.yaml), or give "
        "decoding.omega a number."
    )


def stored_omega(cache: Path, setting: Setting, tasks: Iterable[Task], command: str = COMMAND) -> float:
    """The tuned ω for an evaluation on `tasks`.

    UserError where none was tuned in this setting, and where a task to be reported is one that it was tuned on.
    """
    record = stored(cache, setting, command)
    tasks = list(tasks)
    shared = tuned_on(record["validation_tasks"], tasks)
    if shared:
        names = ", ".join(task.id for task in shared[:3]) + (", …" if len(shared) > 3 else "")
        raise UserError(
            f"ω = {record['omega']:g} was tuned on {len(shared)} of these {len(tasks)} tasks ({names}), so its figures "
            "on them would be too good. Evaluate on a split that shares no task with it, such as split=test."
        )
    return float(record["omega"])


def tuned_on(validation: Mapping[str, str], tasks: Iterable[Task]) -> list[Task]:
    """Those of `tasks` that are in `validation` (id -> content), by their id or under another id with the same prompt."""
    known = set(validation.values())
    return [task for task in tasks if task.id in validation or _content(task) in known]


def contents(tasks: Iterable[Task]) -> dict[str, str]:
    """id -> digest of the prompt, as `tuned_on` takes it."""
    return {task.id: _content(task) for task in tasks}


def _content(task: Task) -> str:
    return hashlib.sha256(task.prompt.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
