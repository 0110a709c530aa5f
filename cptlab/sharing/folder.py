"""The folder that is uploaded: a model repository that PEFT loads, with how it was trained and what it was measured to do.

    README.md                                                        the model card
    adapter_config.json  adapter_model.safetensors  cptlab.json      the adapter, in PEFT's format
    training/config.yaml  run.json  metrics.json                     how it was trained
    evaluations/BENCHMARK/metrics.json  report.html  tables/*.md     what it was measured to do

No file holds an absolute path of this machine.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from cptlab.adapters.peft_format import CONFIG, EXTRA, WEIGHTS
from cptlab.errors import UserError
from cptlab.reporting.packing import pack_run
from cptlab.reporting.report import REPORT, make_report
from cptlab.sharing.model_card import model_card
from cptlab.sharing.shared_run import METRICS, SharedRun
from cptlab.storage.atomic import replacing_directory, write_json, write_text
from cptlab.storage.run_directory import CONFIG_FILE, RUN_FILE

CARD, TRAINING, EVALUATIONS, TABLES = "README.md", "training", "evaluations", "tables"


def make_folder(run: SharedRun, repo: str, licence: str | None, target: Path) -> None:
    """Write the folder of `run` for the repository `repo` to `target`, in the place of an earlier one.

    `licence` is the backbone's; None: not known. Raises UserError where `target` holds anything else.
    """
    if target.is_dir() and any(target.iterdir()) and not ((target / CARD).is_file() and (target / EXTRA).is_file()):
        raise UserError(f"{target} holds something else than an earlier folder of this command. Name another one.")
    with replacing_directory(target) as folder:
        _write_adapter(run, folder)
        _write_training(run, folder / TRAINING)
        for benchmark, evaluation in run.evaluations.items():
            _write_evaluation(evaluation, folder / EVALUATIONS / benchmark)
        write_text(folder / CARD, model_card(run, repo, licence))


def files_of(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and size in bytes of each file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.stat().st_size


def refuse_secret(folder: Path, secret: str | None) -> None:
    """Raise UserError if a file holds `secret`, the user's token."""
    if secret:
        for name, _ in files_of(folder):
            if secret.encode() in (folder / name).read_bytes():
                raise UserError(f"{folder / name} holds your token of the hub, so nothing was uploaded. Take it out.")


def _write_adapter(run: SharedRun, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.adapter / WEIGHTS, folder / WEIGHTS)
    config = json.loads((run.adapter / CONFIG).read_text(encoding="utf-8"))
    write_json(folder / CONFIG, config | {"base_model_name_or_path": run.base, "revision": run.revision})
    extra = run.adapter / EXTRA
    about = json.loads(extra.read_text(encoding="utf-8")) if extra.is_file() else {}
    write_json(folder / EXTRA, about | {"backbone": run.base, "run": run.directory.name})


def _write_training(run: SharedRun, folder: Path) -> None:
    record = {name: value for name, value in run.record.items() if name != "config"}
    write_text(folder / CONFIG_FILE, yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True))
    write_json(folder / RUN_FILE, {"finished": True, **record})
    write_json(folder / METRICS, run.metrics)


def _write_evaluation(evaluation: Path, folder: Path) -> None:
    """Write the report of a packed copy, which has no paths, and not the benchmark's tasks."""
    with tempfile.TemporaryDirectory() as directory:
        packed = pack_run(evaluation, Path(directory) / "packed")
        make_report(packed)
        (folder / TABLES).mkdir(parents=True)
        for path in (packed / METRICS, packed / REPORT):
            shutil.copyfile(path, folder / path.name)
        for path in sorted((packed / TABLES).glob("*.md")):
            shutil.copyfile(path, folder / TABLES / path.name)
