"""TensorBoard through Lightning's logger: scalars of training, results, figures, and the settings under HPARAMS.

A run that goes on writes to the same directory, and repeats no step that is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger as LightningsLogger

from cptlab.settings.debug import leaves
from cptlab.tracking.outcome import Outcome

FOLDER = "tensorboard"


class TensorboardLogger(LightningsLogger):
    """Lightning's TensorBoardLogger in `<directory>/tensorboard/<name of the run>`."""

    def __init__(self, directory: str, name: str) -> None:
        super().__init__(directory, name=FOLDER, version=name, default_hp_metric=False)
        self._known = _last_points(Path(self.log_dir))
        self._end = max((step for step, _ in self._known.values()), default=0)

    def log_hyperparams(self, params: Any) -> None:  # type: ignore[override]
        """Keep the settings, under their names on the command line, until there are results to show them with."""
        self.hparams = dict(leaves(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self._end = max(self._end, step or 0)
        new = {name: value for name, value in metrics.items() if (step or 0) > self._known.get(name, (-1, 0.0))[0]}
        super().log_metrics(new, step)

    def log_outcome(self, outcome: Outcome) -> None:
        """Log results with the settings that they belong to, and the figures as images."""
        from matplotlib.image import imread

        metrics = outcome.metrics
        self._known = {
            name: (step, value) for name, (step, value) in self._known.items()
            if name in metrics and isclose(value, metrics[name], rel_tol=1e-6)
        }  # fmt: skip
        # at the last step: where a curve has a result's name, the result is its last point
        super().log_hyperparams(self.hparams, dict(metrics), step=self._end)
        record = {name: value for name, value in self.hparams.items() if name.startswith("record.")}
        self.experiment.add_text("run", "\n".join(f"- {name}: {value}" for name, value in record.items()))
        for name, path in outcome.figures.items():
            self.experiment.add_image(f"figures/{name}", imread(path), dataformats="HWC")
        self.experiment.flush()


def tensorboard_logger(save_dir: str, record: Mapping[str, Any]) -> TensorboardLogger:
    """Open the TensorBoard logger of a run directory. `record` says what the run is."""
    return TensorboardLogger(save_dir, str(record.get("name") or Path(save_dir).name))


def _last_points(directory: Path) -> dict[str, tuple[int, float]]:
    """Return step and value of the last point of each scalar that an earlier process wrote."""
    if not directory.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    last = {tag: max(events.Scalars(tag), key=lambda event: event.step) for tag in events.Tags()["scalars"]}
    return {tag: (event.step, event.value) for tag, event in last.items()}
