"""What happens around the steps of a stage: checkpoints that survive a kill, curves on disk, signals, progress."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cptlab.progress import Advance, progress_bar
from cptlab.storage.atomic import replacing
from cptlab.storage.csv_rows import append_row, keep_rows
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
                path.parent.mkdir(parents=True, exist_ok=True)
                keep_rows(path, lambda row: int(row["step"]) <= trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        self._append("steps", trainer, _stage(pl_module).step_values)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stage = _stage(pl_module)
        validation = {f"val_{name}": value for name, value in stage.validation.items()}
        self._append("epochs", trainer, stage.epoch_means | validation)

    def _append(self, name: str, trainer: Trainer, values: dict[str, float]) -> None:
        if trainer.is_global_zero:
            append_row(self.paths[name], {"step": trainer.global_step, "epoch": trainer.current_epoch + 1} | values)


class CallersSignals(Callback):
    """SIGTERM goes to the handler that was there before: Lightning's own would end `fit` as if training had finished.

    Where a signal ends one of several processes that `fit` has started, it ends the others.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread() and self.handler is not None:
            signal.signal(signal.SIGTERM, self.handler)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        launcher = trainer.strategy.launcher
        if launcher is not None and not isinstance(exception, Exception):
            launcher.kill(signal.SIGKILL)


def _stage(module: LightningModule) -> AdapterTraining:
    assert isinstance(module, AdapterTraining)
    return module


class StageProgress(ProgressBar):
    """One bar for a whole stage: which one, the epoch, steps done and to do, time left, the loss."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._shown = ExitStack()
        self._advance: Advance | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled and trainer.is_global_zero:
            total, done = int(trainer.estimated_stepping_batches), trainer.global_step
            bar = progress_bar(_stage(pl_module).title, total, "steps", done=done)
            self._advance = self._shown.enter_context(bar)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        if self._advance is not None:
            self._advance(1, f"epoch {trainer.current_epoch + 1}, loss {_stage(pl_module).step_values['loss']:.3g}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown.close()
        self._advance = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._shown.__exit__(type(exception), exception, None)
        self._advance = None
