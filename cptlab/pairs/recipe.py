"""Where pairs come from: the model's own programs, edits or repairs of programs, a data set, or several of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.pairs.injection.injectors import MESSAGES
from cptlab.pairs.selection import SelectionOptions
from cptlab.records import Pair
from cptlab.settings.setting import Part, Setting, check_settings


@dataclass(frozen=True, kw_only=True)
class TaskPairs:
    """Pairs that are made of programs for the tasks of a benchmark."""

    train_tasks: Annotated[
        int | None, Setting("Tasks of split train, as many of each difficulty; null: all.", at_least=1)
    ] = None
    validation_tasks: Annotated[
        int | None, Setting("Tasks of split validation, as many of each difficulty; null: all.", at_least=1)
    ] = None
    seed: Annotated[int, Setting("Seed of the sampling, and of what else is drawn at random.", at_least=0)] = 0


@dataclass(frozen=True)
class SampledPairs(TaskPairs):
    """Pairs that Algorithm 1 selects from the backbone's own programs (CPT IV-D)."""

    selection: Annotated[SelectionOptions, Part()] = SelectionOptions()
    n: Annotated[int, Setting("Programs per task.", at_least=2)] = 100
    refine: Annotated[
        str,
        Setting(
            "none: mask all differences; message_lines: only those that touch a line with a message of the scorer (not the "
            "paper's). pylint_lines is an earlier name of message_lines.",
            choices=("none", "message_lines", "pylint_lines"),
        ),
    ] = "none"
    align_names: Annotated[
        bool,
        Setting(
            "Give the variables of the worse program the names of the better one's before masking (not the paper's)."
        ),
    ] = False

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class InjectedPairs(TaskPairs):
    """Pairs of a clean program and the same program with one pylint message brought about by an edit."""

    messages: Annotated[
        Sequence[str] | None,
        Setting("Messages to inject, such as [R1705,W0612]; null: all that can be.", choices=MESSAGES),
    ] = None
    source: Annotated[
        str,
        Setting(
            "canonical: edit the benchmark's own solutions; model: the best of n programs of the backbone for each task.",
            choices=("canonical", "model"),
        ),
    ] = "canonical"
    per_task: Annotated[int, Setting("Pairs of a task at most, each with another message.", at_least=1)] = 1
    n: Annotated[int, Setting("Programs per task that source=model chooses from.", at_least=1)] = 6

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "messages", None if self.messages is None else tuple(self.messages))


@dataclass(frozen=True)
class RewrittenPairs(TaskPairs):
    """Pairs of a program of the backbone and what a tool makes of it, where the tool raises the score and the tests agree."""

    rewriter: Annotated[Any, Part()]
    n: Annotated[int, Setting("Programs per task.", at_least=1)] = 12
    min_gap: Annotated[float, Setting("A pair's score gap / 10 must exceed it.", at_least=0, below=1)] = 0.1

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class MixedPairs:
    """Pairs of several recipes, by share: as many as the shares allow of what each recipe gives."""

    parts: Annotated[Mapping[str, Any], Part(many="names")]
    shares: Annotated[
        Mapping[str, float], Setting("Share of the pairs for each of parts; shares are above 0 and add up to 1.")
    ]
    seed: Annotated[
        int, Setting("Seed of the choice of pairs where a recipe gives more than its share.", at_least=0)
    ] = 0
    n: Annotated[int, Setting("Programs per task for the sampled part that pairs=mixed names.", at_least=2)] = 100
    train_tasks: Annotated[
        int | None, Setting("Tasks of split train for the parts that pairs=mixed names; null: all.", at_least=1)
    ] = None
    validation_tasks: Annotated[
        int | None, Setting("Tasks of split validation for those parts; null: all.", at_least=1)
    ] = None

    def __post_init__(self) -> None:
        check_settings(self)
        shares = list(self.shares.values())
        if set(self.shares) != set(self.parts):
            raise UserError(
                f"pairs.shares names {', '.join(self.shares) or 'nothing'} and pairs.parts {', '.join(self.parts) or 'nothing'}. "
                "Give a share for each of the parts."
            )
        if not all(isinstance(one, (int, float)) and one > 0 for one in shares) or abs(sum(shares) - 1) > 1e-9:
            raise UserError(
                f"pairs.shares={dict(self.shares)} cannot be: shares are above 0 and add up to 1. Correct them, or leave a "
                "part without a share out with ~pairs.parts.NAME ~pairs.shares.NAME."
            )


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
