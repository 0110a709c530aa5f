"""Where pairs come from: the model's own programs, or a data set that has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from cptlab.pairs.selection import SelectionOptions
from cptlab.records import Pair
from cptlab.settings.setting import Part, Setting, check_settings


@dataclass(frozen=True)
class SampledPairs:
    """Pairs that Algorithm 1 selects from the backbone's own programs (CPT IV-D)."""

    selection: Annotated[SelectionOptions, Part()] = SelectionOptions()
    n: Annotated[int, Setting("Programs per task.", at_least=2)] = 100
    train_tasks: Annotated[
        int | None, Setting("Tasks of split train to sample, as many of each difficulty; null: all.", at_least=1)
    ] = None
    validation_tasks: Annotated[
        int | None, Setting("Tasks of split validation to sample, as many of each difficulty; null: all.", at_least=1)
    ] = None
    seed: Annotated[int, Setting("Seed of the sampling.", at_least=0)] = 0
    refine: Annotated[
        str,
        Setting(
            "none: mask all differences; message_lines: only those that touch a line with a message of the scorer (not the "
            "paper's). pylint_lines is an earlier name of message_lines.",
            choices=("none", "message_lines", "pylint_lines"),
        ),
    ] = "none"

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class ReadyPairs:
    """Pairs of a data set. `dataset(encode=…, max_tokens=…)` returns them with counts of what was read and left out."""

    dataset: Annotated[Callable[..., tuple[list[Pair], dict[str, int]]], Part(partial=True)]
    reserved: Annotated[
        int,
        Setting(
            "Positions of the backbone's context to leave free for the adapter; pairs that do not fit beside are dropped.",
            at_least=1,
        ),
    ] = 64

    def __post_init__(self) -> None:
        check_settings(self)
