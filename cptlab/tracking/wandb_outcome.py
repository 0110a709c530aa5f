"""The outcome of a run in W&B: results, tables, media, and artifacts whose lineage also holds where W&B is offline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cptlab.tracking.outcome import Artifact, Outcome, Table, results_table

LARGEST = (
    200 * 2**20
)  # bytes of an artifact that is sent; of a larger one, such as a whole model, W&B gets the addresses
LOWEST, HIGHEST = ("loss", "epoch_loss"), ("accuracy", "margin")  # the last part of a metric's name


def define_metric(run: Any, name: str) -> None:
    """Have the summary of a curve show its best value beside the last."""
    last = name.rpartition("/")[2]
    best = "min" if last in LOWEST else "max" if last in HIGHEST else None
    if best is not None:
        run.define_metric(name, step_metric="trainer/global_step", step_sync=True, summary=f"{best},last")


def log_outcome(run: Any, outcome: Outcome) -> None:
    """Log an outcome to an open W&B run."""
    import wandb

    content: dict[str, Any] = {**outcome.metrics, "results": _table(results_table(outcome.metrics))}
    if outcome.programs is not None:
        content["programs"] = _table(outcome.programs)
    for name, table in outcome.tables.items():
        content[f"tables/{name}"] = _table(table)
    for name, path in outcome.figures.items():
        content[f"figures/{name}"] = wandb.Image(str(path))
    if outcome.report is not None:
        content["report"] = wandb.Html(outcome.report.read_text(encoding="utf-8"), inject=False)
    run.log(content)
    for one in outcome.used:
        _use(run, _artifact(one, {}))
    for one in outcome.made:
        run.log_artifact(_artifact(one, {"made_of": [used.name for used in outcome.used]}))


def _use(run: Any, made: Any) -> None:
    """Declare an artifact as an input. Offline, W&B's own call refuses, and what it would send is written for `wandb sync`."""
    if run.offline:
        run._log_artifact(made, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(made)


def _artifact(one: Artifact, metadata: Mapping[str, Any]) -> Any:
    """Return W&B's artifact of the files where they are: none is copied."""
    import wandb

    made = wandb.Artifact(one.name, one.type, metadata=dict(metadata))
    whole = one.size <= LARGEST
    for name, path in one.files.items():
        if whole:
            made.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        else:
            made.add_reference(path.resolve().as_uri(), name=name, checksum=False)
    return made


def _table(table: Table) -> Any:
    import wandb

    return wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
