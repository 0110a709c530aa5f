"""The settings of the commands that make pairs and train on them: those at the top of their conf/<command>.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cptlab.settings.groups import Data
from cptlab.settings.setting import Part, Setting
from cptlab.settings.shared_settings import (
    JudgingSettings,
    ModelSettings,
    ProgramsSettings,
)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(JudgingSettings):
    """conf/train.yaml. `ablation` and `debug` say what was chosen of these groups."""

    benchmark: Annotated[Any, Part()]
    backbone: Annotated[Any, Part()]
    adapter: Annotated[Any, Part(partial=True)]
    pairs: Annotated[Any, Part()]
    data: Data
    objective: Annotated[Any, Part()]
    stages: Annotated[Any, Part()]
    compute: Annotated[Any, Part()]
    trainer: Annotated[Any, Part(partial=True)]
    callbacks: Annotated[Any, Part(many="names")] = None
    logger: Annotated[Any, Part(many="names")] = None
    ablation: Any = None
    debug: Any = None
    seed: Annotated[
        int, Setting("Seed of the adapter's start and the order of the pairs; the pairs have pairs.seed.", at_least=0)
    ] = 0
    tags: Annotated[Sequence[str], Setting("Tags of the run in W&B.")] = ()
    estimate: Annotated[bool, Setting("true: only print what the run would take of memory, disk and time.")] = False
    optimized_metric: Annotated[
        str | None,
        Setting(
            "What a sweep optimises and the command returns, such as comparative/val_accuracy or, of the trained model on the "
            "validation pairs, preference/accuracy, preference/margin or preference/propensity."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PairsSettings(ProgramsSettings):
    """conf/pairs.yaml."""

    benchmark: Annotated[Any, Part()]
    backbone: Annotated[Any, Part()]
    pairs: Annotated[Any, Part()]


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(JudgingSettings):
    """conf/grpo.yaml."""

    benchmark: Annotated[Any, Part()]
    backbone: Annotated[Any, Part()]
    adapter: Annotated[Any, Part(partial=True)]
    grpo: Annotated[Any, Part()]
    logger: Annotated[Any, Part(many="names")] = None
    train_tasks: Annotated[
        int | None, Setting("Tasks of split train to learn from, as many of each difficulty; null: all.", at_least=1)
    ] = None
    seed: Annotated[
        int, Setting("Seed of the adapter's start, the order of the tasks and the sampling.", at_least=0)
    ] = 0
    tags: Annotated[Sequence[str], Setting("Tags of the run in W&B.")] = ()


@dataclass(frozen=True, kw_only=True)
class PreferSettings(ModelSettings):
    """conf/prefer.yaml."""

    backbone: Annotated[Any, Part(optional=True)] = None
    run: Annotated[
        str | None,
        Setting(
            "Training run whose adapter is judged beside its backbone: its directory, or latest; null: the backbone alone."
        ),
    ] = "latest"
    pairs_file: Annotated[
        str | None,
        Setting("Pairs to judge on, as cptlab pairs makes them; null: those that the training run was made with."),
    ] = None
    split: Annotated[str, Setting("Split of the pairs; those of train were trained on.")] = "validation"
    device: Annotated[
        str | None, Setting("Device of the backbone, such as cpu or cuda; null: that of the training run.")
    ] = None
    extra_disabled: Annotated[Sequence[str], Setting("Pylint checks to leave out beside the frozen list.")] = ()
    workers: Annotated[int | None, Setting("Processes that score programs; null: one per core.", at_least=1)] = None
    optimized_metric: Annotated[str | None, Setting("What the command returns to a sweep, such as tuned/margin.")] = (
        None
    )
