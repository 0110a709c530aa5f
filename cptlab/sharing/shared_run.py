"""What is shared of a training run: its adapter, how it was trained, and the evaluations that it was judged in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cptlab.adapters.peft_format import CONFIG, WEIGHTS, read_base_model
from cptlab.backbone.loading import EMBEDDED
from cptlab.errors import UserError
from cptlab.reporting.packing import without_paths
from cptlab.settings.run_record import read_training
from cptlab.storage.run_directory import adapter_kind, finished_runs

METRICS = "metrics.json"
SHAREABLE = ("prefix", "lora")  # what PEFT loads
REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class SharedRun:
    """A training run as it is shared, without this machine's paths.

    `base` is the backbone as others name it: a hub id, or the name of one inside the package (`embedded`). `record` is the
    run's record with its `config`, `metrics` its metrics.json, `evaluations` the directories of evaluations by benchmark.
    """

    directory: Path
    kind: str
    base: str
    revision: str | None
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    evaluations: Mapping[str, Path]

    @property
    def embedded(self) -> bool:
        return self.base in EMBEDDED

    @property
    def config(self) -> Mapping[str, Any]:
        return self.record["config"]

    @property
    def adapter(self) -> Path:
        return self.directory / self.kind


def is_repo(name: str) -> bool:
    """Whether a text is a name on the hub, with its owner."""
    return REPO.fullmatch(name) is not None


def read_shared_run(directory: Path, base: str | None, evaluations: Mapping[str, Path]) -> SharedRun:
    """Read a training run to be shared. `base`: the hub id of its backbone, where that came from a directory.

    Raises UserError where its adapter is none that PEFT loads, and where nothing says what others load the backbone from.
    """
    kind = adapter_kind(directory, SHAREABLE)
    if kind is None or not all((directory / kind / name).is_file() for name in (CONFIG, WEIGHTS)):
        raise UserError(
            f"{directory} has no adapter that PEFT loads ({' or '.join(SHAREABLE)}). Share a fully fine-tuned model with "
            "transformers' own push_to_hub."
        )
    training = read_training(directory)
    path = str(training["config"]["backbone"]["path"])
    revision = read_base_model(directory / kind)[1] if base is None else None
    if base is None and path not in EMBEDDED and (not is_repo(path) or Path(path).exists()):
        raise UserError(
            f"The backbone came from {path}, which others do not have. Name the model on the hub that it is: "
            "base_model=OWNER/NAME."
        )
    base, record = base or path, without_paths(training)
    record["config"]["backbone"] |= {"path": base, "revision": revision}
    file = directory / METRICS
    metrics = without_paths(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    return SharedRun(directory, kind, base, revision, record, metrics, evaluations)


def evaluations_of(run: Path, logs: Path) -> dict[str, Path]:
    """Return the newest finished evaluation of a training run on each benchmark, from those below `logs`."""
    found: dict[str, Path] = {}
    for directory in finished_runs(logs / "evaluate"):
        facts = _facts(directory)
        runs = [part.get("run") for part in (facts.get("parts") or {}).values()]
        if any(one and Path(one).resolve() == run.resolve() for one in runs):
            found.setdefault(str(facts.get("benchmark")), directory)
    return dict(sorted(found.items()))


def named_evaluation(run: Path, directory: Path) -> dict[str, Path]:
    """Return an evaluation that the user names, by its benchmark. Raises UserError where it is none of this run."""
    facts = _facts(directory)
    if not facts.get("parts"):
        raise UserError(f"{directory} holds no finished evaluation. Give the directory that cptlab evaluate named.")
    names = {Path(part["run"]).name for part in facts["parts"].values() if part.get("run")}
    if run.name not in names:
        raise UserError(
            f"{directory} did not evaluate {run.name}, but {', '.join(sorted(names)) or 'no training run'}. Give an "
            "evaluation of this run."
        )
    return {str(facts["benchmark"]): directory}


def _facts(evaluation: Path) -> dict[str, Any]:
    try:
        facts = json.loads((evaluation / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
