"""Both stages of CPT, one after the other, such that the same call resumes after a kill at any moment.

`directory/stage1` and `stage2` hold `last.ckpt`, the curves, and `finished.json` once the stage is over. A resumed run
ends with the same adapter and curves, bit for bit, as an undisturbed one (on the same machine, with the same number of
threads): the order of the data depends on seed and epoch alone, and nothing else is random.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cptlab.adapters.base import Adapter
from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.settings.setting import Setting, check_settings
from cptlab.storage.atomic import write_json
from cptlab.storage.damaged import set_aside
from cptlab.tracking.mirrors import Mirror
from cptlab.training.loop.callbacks import (
    CHECKPOINT,
    AtomicCheckpointIO,
    CallersSignals,
    CurveWriter,
    StageCheckpoint,
    is_readable,
)
from cptlab.training.loop.datamodule import PairDataModule
from cptlab.training.loop.module import STAGES, AdapterTraining
from cptlab.training.objectives.base import Objective
from cptlab.training.objectives.cpt import CPT
from cptlab.training.steps.step_method import StepMethod, choose_step

FINISHED = "finished.json"
PRECISIONS = ("32-true", "bf16-mixed")
PROBE_PAIRS = 8  # on which the gradient norm of each loss term is measured


@dataclass(frozen=True)
class Stages:
    """How long both stages take, and how their optimiser moves. The paper does not say how many epochs the optional second
    stage takes, nor its learning rate (CPT IV-C). Raises UserError for a value that cannot be."""

    first_epochs: Annotated[int, Setting("Epochs of the objective (CPT V-E: 3).", at_least=0)] = 3
    second_epochs: Annotated[int, Setting("Epochs of NLL on the better programs after it; 0: none.", at_least=0)] = 1
    learning_rate: Annotated[float, Setting("Learning rate of AdamW, constant (CPT V-E: 1e-3).", above=0)] = 1e-3
    second_learning_rate: Annotated[
        float | None, Setting("Learning rate of the second stage; null: that of the first.", above=0)
    ] = None
    weight_decay: Annotated[float, Setting("Weight decay of AdamW.", at_least=0)] = 0.01
    gradient_clip: Annotated[float, Setting("Norm that gradients are clipped to.", above=0)] = 1.0
    checkpoint_every: Annotated[int, Setting("Steps from one checkpoint to the next.", at_least=1)] = 50

    def __post_init__(self) -> None:
        check_settings(self)
        if self.first_epochs + self.second_epochs == 0:
            raise UserError(
                "There is nothing to train with stages.first_epochs=0 and stages.second_epochs=0. Set one of them above 0."
            )

    def epochs(self, stage: str) -> int:
        return self.first_epochs if stage == STAGES[0] else self.second_epochs

    def rate(self, stage: str) -> float:
        return self.learning_rate if stage == STAGES[0] else self.second_learning_rate or self.learning_rate


def train_stages(
    backbone: Backbone,
    adapter: Adapter,
    data: PairDataModule,
    objective: Objective | None = None,
    stages: Stages | None = None,
    *,
    directory: str | os.PathLike,
    opposite: Adapter | None = None,
    method: StepMethod | None = None,
    trainer: Callable[..., lightning.Trainer] = lightning.Trainer,
    callbacks: Sequence[lightning.Callback] = (),
    loggers: Sequence[Any] = (),
) -> Adapter:
    """Train `adapter` in place: first on `objective` (CPT's by default), then on NLL, optimiser afresh.

    An objective with two policies trains `opposite` too, in the first stage. `method` is how steps are computed; by
    default `choose_step` finds out. `trainer` makes a `lightning.Trainer` (a partial one with accelerator, devices,
    strategy, precision). A checkpoint is written every `stages.checkpoint_every` steps and after each epoch. `callbacks`
    and `loggers` serve both stages; metrics are named `comparative/…` and `nll/…`.

    Returns `adapter`, in eval mode on the backbone's device. Raises UserError where a setting contradicts the run that
    `directory` already holds, where a pair is longer than the backbone's context, and where the machine lacks what
    `trainer` asks for.
    """
    check_context(backbone, adapter, data)
    objective, stages = objective or CPT(), stages or Stages()
    adapters = [adapter] if opposite is None else [adapter, opposite]
    if len(adapters) != objective.policies:
        raise UserError(
            f"{type(objective).__name__} trains {objective.policies} policies, and there are {len(adapters)} adapters. "
            "Give train_stages as many: `opposite` is the second."
        )
    method = method or choose_step(backbone, adapters=adapters)
    data.lay_out(method)
    mirrors = [one if isinstance(one, Mirror) else Mirror.of(one, str(directory)) for one in loggers]
    steps = 0
    description: dict[str, Any] = {"data": data.description, "backbone": backbone.fingerprint}
    for number, stage in enumerate(STAGES, 1):
        epochs = stages.epochs(stage)
        if epochs == 0:
            continue
        module = AdapterTraining(
            backbone,
            adapter,
            stage,
            objective,
            opposite=opposite if stage == STAGES[0] else None,
            method=method,
            learning_rate=stages.rate(stage),
            weight_decay=stages.weight_decay,
            gradient_clip=stages.gradient_clip,
            description=description | {"epochs": epochs},
            probe=data.probe(PROBE_PAIRS),
            title=f"stage {number} of 2 ({stage})",
        )
        kept = Path(directory) / f"stage{number}"
        steps = _run_stage(module, data, trainer, kept, epochs, stages.checkpoint_every, callbacks, mirrors, steps)
        description |= {f"stage{number}_epochs": epochs}
    adapter.to(backbone.device).eval()
    return adapter


def check_context(backbone: Backbone, adapter: Adapter, data: PairDataModule) -> None:
    """Raise UserError where the longest pair and what the adapter takes of the context are too much for the backbone."""
    if data.longest + adapter.positions > backbone.context_length:
        raise UserError(
            f"The longest pair takes {data.longest} tokens and the {adapter.kind} {adapter.positions} positions, more than "
            f"the {backbone.context_length} of {backbone.name}. "
            "Leave long pairs out, or use a backbone with a longer context."
        )


def make_trainer(trainer: Callable[..., lightning.Trainer], **options: Any) -> lightning.Trainer:
    """The trainer. Raises UserError where the machine lacks what it asks for, such as a GPU."""
    try:
        with _quiet():
            made = trainer(**options)
    except MisconfigurationException as error:
        raise UserError(
            f"The trainer does not fit this machine: {error} Use trainer=cpu, or run where the devices are."
        ) from None
    except (TypeError, ValueError) as error:
        raise UserError(f"The trainer cannot be made from its settings: {error}. Correct conf group trainer.") from None
    if made.accumulate_grad_batches != 1:
        raise UserError(
            f"trainer.accumulate_grad_batches={made.accumulate_grad_batches} is not needed here. Set "
            "data.loader.batch_size to the pairs of a step: compute.token_budget says how many are in memory at once."
        )
    if made.precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={made.precision} would round the adapter or its gradient. Set it to one of "
            f"{', '.join(PRECISIONS)}; backbone.dtype is the backbone's own precision."
        )
    return made


def _run_stage(
    module: AdapterTraining,
    data: PairDataModule,
    trainer: Callable[..., lightning.Trainer],
    directory: Path,
    epochs: int,
    checkpoint_every: int,
    callbacks: Sequence[lightning.Callback],
    loggers: Sequence[Mirror],
    steps: int,
) -> int:
    """Run a stage to its end, `steps` optimiser steps after the first; return the number of steps then."""
    checkpoint = directory / CHECKPOINT
    for left_over in directory.glob("*.partial"):
        left_over.unlink(missing_ok=True)
    if checkpoint.exists() and not is_readable(checkpoint):
        set_aside(checkpoint, "it is no checkpoint")
        (directory / FINISHED).unlink(missing_ok=True)
    if (directory / FINISHED).exists() and checkpoint.exists():
        state = AtomicCheckpointIO().load_checkpoint(checkpoint)
        module.on_load_checkpoint(state)
        module.load_state_dict(state["state_dict"])
        return steps + state["global_step"]
    own = [CurveWriter(directory), StageCheckpoint(directory, checkpoint_every), CallersSignals()]
    with _quiet():
        fitter = make_trainer(
            trainer,
            max_epochs=epochs,
            callbacks=[*callbacks, *own],
            logger=list(loggers),
            default_root_dir=directory,
            plugins=[AtomicCheckpointIO()],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        fitter.fit_loop.epoch_loop._batches_that_stepped = steps  # loggers count on, as if both stages were one run
        fitter.fit(module, datamodule=data, ckpt_path=checkpoint if checkpoint.exists() else None)
    if fitter.is_global_zero:
        summary = {"stage": module.stage, "steps": fitter.global_step, "epochs": fitter.current_epoch}
        write_json(directory / FINISHED, summary)
    return steps + fitter.global_step


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and its warnings about things that are so on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in (
            r".*does not have many workers",
            r".*is smaller than the logging interval",
            r".*module\(s\) in eval mode",
            r".*Checkpoint directory .* exists",
            r".*GPU available but not used",
            r".*LeafSpec",
            r"Total length of .* is zero",
            r".*sync_dist=True",  # every process has the values of all
        ):
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
