"""MLflow through Lightning's logger: a SQLite file for all runs, figures, report and programs as artifacts.

A run that goes on goes on in the same MLflow run, and repeats no step that is there.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch.loggers import MLFlowLogger

from cptlab.settings.debug import leaves
from cptlab.settings.setting import Setting
from cptlab.storage.atomic import write_json
from cptlab.storage.locks import locked
from cptlab.tracking.outcome import RUN_IDS, Outcome, known_id, results_table

SQLITE, ADDRESS = "sqlite:///", "MLFLOW_TRACKING_URI"
TABLES = "mlflow.loggedArtifacts"  # the tag by which MLflow's page knows them
LARGEST = 200 * 2**20  # bytes of an artifact that is copied to MLflow's


class MlflowLogger(MLFlowLogger):
    """Lightning's MLFlowLogger, whose metrics may have an @, and which goes on in the run of `directory`."""

    def __init__(self, directory: str, **options: Any) -> None:
        super().__init__(run_id=known_id(directory, "mlflow"), **options)
        if self._run_id is not None and not self._is_there(self._run_id):
            self._run_id = None
        self._goes_on, self._known, self._end = self._run_id is not None, {}, 0
        write_json(Path(directory) / RUN_IDS["mlflow"], {"id": self.run_id})
        if self._goes_on:
            self.experiment.update_run(self.run_id, status="RUNNING")

    def log_hyperparams(self, params: Any) -> None:  # type: ignore[override]
        """Log the settings. MLflow refuses a second value, so those that a run had before it went on stay."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({_name(key): value for key, value in leaves(params) if _name(key) not in known})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        named = {_name(name): value for name, value in metrics.items()}
        self._end = max(self._end, step or 0)
        super().log_metrics({name: value for name, value in named.items() if (step or 0) > self._last_step(name)}, step)

    def _last_step(self, name: str) -> int:
        """Return the last step of a metric that an earlier process logged, -1 where there is none."""
        if not self._goes_on:
            return -1
        if name not in self._known:
            points = self.experiment.get_metric_history(self.run_id, name)
            self._known[name] = max((point.step for point in points), default=-1)
        return self._known[name]

    def log_outcome(self, outcome: Outcome) -> None:
        """Log results as metrics, and everything else as artifacts, each file once."""
        client, run = self.experiment, self.run_id
        # the last values, which the results become: a curve may have a result's name
        shown = client.get_run(run).data.metrics
        results = {_name(name): value for name, value in outcome.metrics.items()}
        end = max(self._end, self._last_step("epoch"), 0)
        super().log_metrics({name: value for name, value in results.items() if shown.get(name) != value}, end)
        tables = {"results.json": results_table(outcome.metrics), "programs.json": outcome.programs}
        tables = {name: table for name, table in tables.items() if table is not None}
        for name, table in tables.items():  # as MLflow's log_table writes them, which warns of pandas at every call
            client.log_dict(run, {"columns": list(table.columns), "data": [list(row) for row in table.rows]}, name)
        client.set_tag(run, TABLES, json.dumps([{"path": name, "type": "table"} for name in tables]))
        places = {path: "figures" for path in outcome.figures.values()}
        places |= {outcome.report: None} if outcome.report is not None else {}
        for one in outcome.made:
            if one.size <= LARGEST:
                places |= {path: str(Path(one.type, name).parent) for name, path in one.files.items()}
        for path, place in places.items():
            client.log_artifact(run, str(path), place)
        for role, artifacts in {"used": outcome.used, "made": outcome.made}.items():
            if artifacts:
                client.set_tag(run, role, ", ".join(one.name for one in artifacts))

    def _is_there(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

        try:
            return self._mlflow_client.get_run(run).info.lifecycle_stage == "active"
        except MlflowException:  # the file was deleted, or it is another
            return False


def mlflow_logger(
    save_dir: str,
    record: Mapping[str, Any],
    tracking_uri: Annotated[
        str, Setting("Where MLflow keeps its runs: a SQLite file, or the address of a server.")
    ] = "sqlite:///logs/mlflow.db",
    experiment: Annotated[str, Setting("MLflow experiment.")] = "cptlab",
    name: Annotated[str | None, Setting("MLflow name of the run; null: what the command line chose.")] = None,
) -> MlflowLogger:
    """Open the MLflow logger of a run directory. `record` says what the run is."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # that it makes the experiment
    options = {
        "experiment_name": experiment,
        "run_name": name or record.get("name"),
        "tracking_uri": tracking_uri,
        "tags": tags_of(record),
    }
    if not tracking_uri.startswith(SQLITE):
        return _open(save_dir, options)
    place = Path(tracking_uri.removeprefix(SQLITE)).absolute()
    artifacts = place.with_name(f"{place.stem}-artifacts")
    options["artifact_location"] = artifacts.as_uri()
    with locked(artifacts):  # or two jobs would both make the tables
        return _open(save_dir, options)


def _open(save_dir: str, options: dict[str, Any]) -> MlflowLogger:
    """Open the logger without what MLflow leaves in the environment: the address of this run would be that of the next."""
    given = os.environ.get(ADDRESS)
    try:
        return MlflowLogger(save_dir, **options)
    finally:
        os.environ.pop(ADDRESS, None)
        if given is not None:
            os.environ[ADDRESS] = given


def tags_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return group, job type, sweep, choices and tags of a run as MLflow's tags."""
    plain = {key: record[key] for key in ("group", "job_type", "sweep", "seed") if record.get(key) is not None}
    plain |= record.get("choices", {}) | {"tags": record.get("tags", [])}
    return {
        _name(key): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in plain.items()
        if value != []
    }


def _name(name: str) -> str:
    """Return a name that MLflow takes: pass@1 is pass_at_1."""
    return re.sub(r"[^\w/. :-]+", "_", name.replace("@", "_at_"))
