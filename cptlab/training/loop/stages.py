"""Both stages of CPT, one after the other, such that the same call resumes after a kill at any moment.

`directory/stage1` and `stage2` hold `last.ckpt`, the curves, and `finished.json` once the stage is over. A resumed run
ends with the same prefix and curves, bit for bit, as an undisturbed one (on the same machine, with the same number of
threads): the order of the data depends on seed and epoch alone, and nothing else is random.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cptlab.adapters.prefix import Prefix
from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.storage.atomic import write_json
from cptlab.training.loop.callbacks import CHECKPOINT, AtomicCheckpointIO, Curve, StageCheckpoint
from cptlab.training.loop.datamodule import PairDataModule
from cptlab.training.loop.module import STAGES, PrefixTuning
from cptlab.training.objectives.base import Objective
from cptlab.training.objectives.cpt import CPT
from cptlab.training.steps.choice import StepMethod, choose_step

FINISHED = "finished.json"
PRECISIONS = ("32-true", "bf16-mixed")
PROBE_PAIRS = 8  # on which the gradient norm of each loss term is measured


def train_stages(
    backbone: Backbone,
    prefix: Prefix,
    data: PairDataModule,
    objective: Objective | None = None,
    *,
    directory: str | os.PathLike,
    opposite: Prefix | None = None,
    method: StepMethod | None = None,
    trainer: Callable[..., lightning.Trainer] = lightning.Trainer,
    first_epochs: int = 3,
    second_epochs: int = 1,
    learning_rate: float = 1e-3,
    second_learning_rate: float | None = None,
    weight_decay: float = 0.01,
    gradient_clip: float = 1.0,
    checkpoint_every: int = 50,
    callbacks: Sequence[lightning.Callback] = (),
    loggers: Sequence[Any] = (),
) -> Prefix:
    """Train `prefix` in place: `first_epochs` of `objective` (CPT's by default), then `second_epochs` of NLL, optimiser
    afresh. An objective with two prefixes trains `opposite` too, in the first stage.

    `method` is how steps are computed; by default `choose_step` finds out.

    `trainer` makes a `lightning.Trainer` (a partial one with accelerator, devices, strategy, precision). The paper
    does not say how many epochs the optional second stage takes, nor its learning rate (CPT IV-C);
    `second_learning_rate` None means that of the first. A checkpoint is written every `checkpoint_every` steps and
    after each epoch. `callbacks` and `loggers` serve both stages; metrics are named
    `comparative/…` and `nll/…`.

    Returns `prefix`, in eval mode on the backbone's device. Raises UserError where a setting contradicts the run that
    `directory` already holds, where a pair is longer than the backbone's context, and where the machine lacks what
    `trainer` asks for.
    """
    if min(first_epochs, second_epochs) < 0 or first_epochs + second_epochs == 0:
        raise UserError(
            f"There is nothing to train with first_epochs={first_epochs} and second_epochs={second_epochs}. "
            "Set at least one of them above 0, and none below."
        )
    if data.longest + prefix.length > backbone.context_length:
        raise UserError(
            f"The longest pair takes {data.longest} tokens and the prefix {prefix.length} positions, more than the "
            f"{backbone.context_length} of {backbone.name}. "
            "Leave long pairs out, or use a backbone with a longer context."
        )
    objective = objective or CPT()
    if (opposite is None) != (objective.prefixes == 1):
        raise UserError(
            f"{type(objective).__name__} trains {objective.prefixes} prefix(es). "
            "Give train_stages as many: `opposite` is the second."
        )
    method = method or choose_step(backbone)
    description = {"data": data.description, "backbone": backbone.fingerprint}
    for number, (stage, epochs) in enumerate(zip(STAGES, (first_epochs, second_epochs), strict=True), 1):
        if epochs == 0:
            continue
        module = PrefixTuning(
            backbone,
            prefix,
            stage,
            objective,
            opposite=opposite if stage == STAGES[0] else None,
            method=method,
            learning_rate=learning_rate if stage == STAGES[0] else second_learning_rate or learning_rate,
            weight_decay=weight_decay,
            gradient_clip=gradient_clip,
            description=description | {"epochs": epochs},
            probe=data.probe(PROBE_PAIRS),
            title=f"stage {number} of 2 ({stage})",
        )
        _run_stage(module, data, trainer, Path(directory) / f"stage{number}", checkpoint_every, callbacks, loggers)
        description |= {f"stage{number}_epochs": epochs}
    return prefix.to(backbone.device).eval()


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
            f"trainer.precision={made.precision} would round the prefix or its gradient. Set it to one of "
            f"{', '.join(PRECISIONS)}; backbone.dtype is the backbone's own precision."
        )
    return made


def _run_stage(module, data, trainer, directory: Path, checkpoint_every: int, callbacks, loggers) -> None:
    checkpoint = directory / CHECKPOINT
    for left_over in directory.glob("*.partial"):
        left_over.unlink(missing_ok=True)
    if (directory / FINISHED).exists():
        state = AtomicCheckpointIO().load_checkpoint(checkpoint)
        module.on_load_checkpoint(state)
        module.load_state_dict(state["state_dict"])
        return
    own = [Curve(directory), StageCheckpoint(directory, checkpoint_every)]
    with _quiet():
        fitter = make_trainer(
            trainer,
            max_epochs=module.hparams.epochs,
            callbacks=[*callbacks, *own],
            logger=list(loggers),
            default_root_dir=directory,
            plugins=[AtomicCheckpointIO()],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        fitter.fit(module, datamodule=data, ckpt_path=checkpoint if checkpoint.exists() else None)
    if fitter.is_global_zero:
        summary = {"stage": module.stage, "steps": fitter.global_step, "epochs": fitter.current_epoch}
        write_json(directory / FINISHED, summary)


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
        ):
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
