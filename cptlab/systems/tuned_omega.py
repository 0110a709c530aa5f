"""Tuned values of ω: one file below `<cache>/omega` for each system, benchmark and way of decoding.

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

from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.storage.atomic import write_json
from cptlab.storage.damaged import set_aside
from cptlab.storage.locks import locked
from cptlab.systems.loading import LoadedSystem
from cptlab.tasks.benchmark import Benchmark

COMMAND = "cptlab omega"
FOLDER = "omega"  # below the cache


@dataclass(frozen=True)
class OmegaSetting:
    """All that the best ω may depend on. `decoding`: guidance (but ω), strategy and sampling, as text."""

    backbone: str  # fingerprint
    adapter: str | None  # digest; None: the backbone alone
    benchmark: str
    tasks: str  # fingerprint of the benchmark's content
    template: str | None
    decoding: str
    parts: str = ""  # the system's prompt, selection and post-processing, as text; empty without any

    def file(self, cache: Path) -> Path:
        rest = json.dumps([self.tasks, self.template, self.decoding, self.parts])
        return cache / FOLDER / f"{self._stem()}{hashlib.sha256(rest.encode()).hexdigest()[:16]}.json"

    def like(self, cache: Path) -> list[Path]:
        """Return the files of this model and benchmark in any other way of decoding."""
        return sorted((cache / FOLDER).glob(f"{self._stem()}*.json"))

    def _stem(self) -> str:
        benchmark = re.sub(r"\W", "_", self.benchmark)
        return f"{self.backbone}-{self.adapter[:16] if self.adapter else 'alone'}-{benchmark}-"


def omega_setting(system: LoadedSystem, backbone: Backbone, benchmark: Benchmark) -> OmegaSetting:
    """Return the setting of a system on its frozen `backbone`.

    The ω of its guidance plays no part. Of the sampling, what ends a program (stop texts, length) plays none.
    """
    decoding = system.decoding
    chosen = {name: getattr(decoding.sampling, name) for name in ("temperature", "top_p", "top_k")}
    guidance = decoding.guidance
    assert guidance is not None, system.name
    parts = [repr(getattr(guidance, field.name)) for field in dataclasses.fields(guidance) if field.name != "omega"]
    rest = [*parts, f"mask token {backbone.mask_id}", repr(decoding.strategy), repr(chosen)]
    others = [part for part in (system.prompt, system.selection, *system.post_processing) if part is not None]
    return OmegaSetting(
        backbone.fingerprint,
        system.adapter_digest,
        benchmark.name,
        benchmark.fingerprint(),
        backbone.prompt_form,
        "; ".join(rest),
        "; ".join(map(repr, others)),
    )


def with_stored_omega(
    system: LoadedSystem, backbone: Backbone, benchmark: Benchmark, tasks: Sequence[Task], cache: Path
) -> LoadedSystem:
    """Return the system with the ω that was tuned for it; as it is where its decoding names one. See `stored_omega`."""
    if not system.decoding.omega_is_tuned:
        return system
    omega = stored_omega(cache, omega_setting(system, backbone, benchmark), tasks)
    return dataclasses.replace(system, decoding=system.decoding.with_omega(omega))


def store(cache: Path, setting: OmegaSetting, tasks: Sequence[Task], omega: float, **facts: Any) -> Path:
    """Keep the ω that was tuned on `tasks` in this setting, in place of an older one; return the file.

    `facts`: plain data on how it was found; they stand in the file beside it.
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


def stored(cache: Path, setting: OmegaSetting, command: str = COMMAND) -> dict[str, Any]:
    """Return what `store` kept for this setting. Raises UserError with the command to run where there is nothing."""
    file = setting.file(cache)
    record = _read(file)
    if record is not None:
        return record
    what = "with this adapter" if setting.adapter else "without an adapter"
    others = [(path, found) for path in setting.like(cache) if (found := _read(path)) is not None]
    hint = ""
    if others:
        there = others[0][1]["setting"]
        mine = dataclasses.asdict(setting)
        differ = [name for name in ("tasks", "template", "decoding", "parts") if there.get(name) != mine[name]]
        hint = f" (One was tuned for another {' and '.join(differ)}: {others[0][0]}.)"
    raise UserError(
        f"No ω was tuned for this backbone {what} on {setting.benchmark} in this way of decoding.{hint} Run {command} "
        "with the same run, backbone, benchmark and decoding (its other settings are in conf/omega.yaml), or give "
        "decoding.omega a number."
    )


def _read(file: Path) -> dict[str, Any] | None:
    """Return what is stored in a file; None if it is not there. A damaged file is set aside."""
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        kinds = {"omega": (int, float), "setting": dict, "validation_tasks": dict}
        if all(isinstance(record[name], kind) for name, kind in kinds.items()):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    set_aside(file, "it is not as it was written")
    return None


def stored_omega(cache: Path, setting: OmegaSetting, tasks: Iterable[Task], command: str = COMMAND) -> float:
    """Return the tuned ω for an evaluation on `tasks`.

    Raises UserError where none was tuned in this setting, and where a task to be reported is one that it was tuned on.
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
    """Return those of `tasks` that are in `validation` (id -> content), by id or under another id with the same prompt."""
    known = set(validation.values())
    return [task for task in tasks if task.id in validation or _content(task) in known]


def contents(tasks: Iterable[Task]) -> dict[str, str]:
    """Return the digest of each task's prompt by its id, as `tuned_on` takes it."""
    return {task.id: _content(task) for task in tasks}


def _content(task: Task) -> str:
    return hashlib.sha256(task.prompt.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
