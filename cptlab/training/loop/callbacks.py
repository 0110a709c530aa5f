"""What happens around the steps of a stage: checkpoints that survive a kill, curves on disk, the progress bar."""

from __future__ import annotations

import csv
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from cptlab.storage.atomic import replacing, write_text
from cptlab.training.loop.module import AdapterTraining

CHECKPOINT = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints of plain data that appear complete or not at all; the one before stays until then."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        with replacing(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | os.PathLike, map_location: Any = "cpu", weights_only: Any = True) -> dict:
        return torch.load(path, map_location=map_location, weights_only=True)


def is_readable(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read; its tensors are not."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return False
    return True


class StageCheckpoint(Checkpoint):
    """Keeps `directory/last.ckpt`: after every `every_n_steps` steps, and at the end of every epoch.

    The last batch of an epoch has no checkpoint of its own, so that a resumed run repeats the validation after it.
    """

    def __init__(self, directory: str | os.PathLike, every_n_steps: int) -> None:
        self.path, self.every_n_steps = Path(directory) / CHECKPOINT, every_n_steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        if trainer.global_step % self.every_n_steps == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class CurveWriter(Callback):
    """Writes `directory/steps.csv` (every step's losses) and `epochs.csv` (their means, and the validation).

    Rows after the checkpoint that a run resumes from are cut off first, so the files of an interrupted run end up as
    those of an undisturbed one, digit for digit.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.paths = {name: Path(directory) / f"{name}.csv" for name in ("steps", "epochs")}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            for path in self.paths.values():
                _cut_off(path, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        self._append("steps", trainer, _stage(pl_module).step_values)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stage = _stage(pl_module)
        validation = {f"val_{name}": value for name, value in stage.validation.items()}
        self._append("epochs", trainer, stage.epoch_means | validation)

    def _append(self, name: str, trainer: Trainer, values: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        row = {"step": trainer.global_step, "epoch": trainer.current_epoch + 1} | values
        path = self.paths[name]
        new = not path.exists()
        with open(path, "a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)


def _stage(module: LightningModule) -> AdapterTraining:
    assert isinstance(module, AdapterTraining)
    return module


def _cut_off(path: Path, step: int) -> None:
    """Keep the rows of a curve up to `step`; a last row that a kill broke off lies beyond it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) <= step]
    if kept:
        write_text(path, "".join(lines[:1] + kept))
    else:
        path.unlink()


class StageProgress(ProgressBar):
    """One bar for a whole stage: which one, the epoch, steps done and to do, time left, the loss."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: tqdm | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled and trainer.is_global_zero:
            total, done = int(trainer.estimated_stepping_batches), trainer.global_step
            self._bar = tqdm(total=total, initial=done, desc=_stage(pl_module).title, unit="step", dynamic_ncols=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        if self._bar is not None:
            loss = _stage(pl_module).step_values["loss"]
            self._bar.set_postfix_str(f"epoch {trainer.current_epoch + 1}, loss {loss:.3g}", refresh=False)
            self._bar.update(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
