"""The curves of a training run: which are drawn, and how they are read from `stage1` and `stage2`.

Each stage has a steps.csv and an epochs.csv. One more curve is a line in `STEP_PANELS` or `EPOCH_PANELS`, which name
columns of these files.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cptlab.errors import UserError

STEPS, EPOCHS = "steps.csv", "epochs.csv"
STEP_PANELS = {
    "l_rank": "ranking loss (unweighted)",
    "l_lm": "LM loss (unweighted)",
    "l_kl": "KL loss (unweighted)",
    "l_nll": "NLL loss (second stage)",
}
EPOCH_PANELS = {  # measured on the validation split after each epoch
    "Δ log-likelihood, nats per token": {
        "val_delta_a_per_token": "better program",
        "val_delta_b_per_token": "worse program",
    },
    "share of validation pairs": {"val_accuracy": "better ranked higher", "val_fell_a": "better became less likely"},
    "KL to the backbone, nats per token": {"val_kl_masked": "differing tokens", "val_kl_unmasked": "equal tokens"},
    "gradient norm of each term": {"val_grad_l_rank": "ranking", "val_grad_l_lm": "LM", "val_grad_l_kl": "KL"},
}
Points = list[tuple[float, float]]  # (optimiser step, value)


@dataclass(frozen=True)
class Stage:
    """The rows of one stage. `start` is the number of optimiser steps before it."""

    name: str
    start: int
    steps: Sequence[dict[str, float]]
    epochs: Sequence[dict[str, float]]

    def of_steps(self, quantity: str) -> Points:
        return self._points(self.steps, quantity)

    def of_epochs(self, quantity: str) -> Points:
        return self._points(self.epochs, quantity)

    def _points(self, rows: Sequence[dict[str, float]], quantity: str) -> Points:
        return [(self.start + row["step"], row[quantity]) for row in rows if quantity in row]


def has_curves(directory: str | os.PathLike) -> bool:
    """Return whether `read_curves` would find a stage there."""
    return next(Path(directory).rglob(f"stage*/{STEPS}"), None) is not None


def read_curves(directory: str | os.PathLike) -> tuple[Stage, ...]:
    """Read the stages of the training run in `directory`, or in a directory below it, in order.

    Raises UserError if there are no curves, or a row is malformed.
    """
    directory = Path(directory)
    found = sorted(directory.rglob(f"stage*/{STEPS}"))
    if not found:
        raise UserError(
            f"{directory} holds no training curves (no stage1/{STEPS}). Give the directory of a training run, or leave "
            "it out to make the report without curves."
        )
    if len({path.parent.parent for path in found}) > 1:
        raise UserError(f"{directory} holds more than one training run. Give the directory of one of them.")
    stages: list[Stage] = []
    start = 0
    for path in found:
        steps = _read(path)
        epochs_file = path.with_name(EPOCHS)
        epochs = _read(epochs_file) if epochs_file.exists() else []  # an interrupted first epoch
        stages.append(Stage(path.parent.name, start, steps, epochs))
        start += int(steps[-1]["step"]) if steps else 0
    return tuple(stages)


def last_epochs(directory: Path) -> dict[str, float]:
    """Return the latest value of each quantity in each stage's epochs.csv, named `<stage>/<quantity>`."""
    metrics: dict[str, float] = {}
    for stage, name in (("stage1", "comparative"), ("stage2", "nll")):
        path = directory / stage / EPOCHS
        if path.is_file():
            for row in _read(path):
                metrics |= {f"{name}/{quantity}": value for quantity, value in row.items()}
    return metrics


def _read(path: Path) -> list[dict[str, float]]:
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                rows.append({name: float(value) for name, value in row.items() if value != ""})
            except (TypeError, ValueError):
                raise UserError(
                    f"{path}, line {number} is not a row of numbers. Delete that line, or leave the training run out."
                ) from None
    return rows
