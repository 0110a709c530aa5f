"""What the settings of several commands have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cptlab.settings.groups import Decoding, Paths
from cptlab.settings.setting import Part, Setting

SANDBOX_LEVELS = ("namespaces", "landlock", "seccomp", "limits")


@dataclass(frozen=True, kw_only=True)
class CommandSettings:
    """What every command has. `task_name` is the command's own name."""

    task_name: str
    print_config: Annotated[bool, Setting("Whether the config is printed first.")] = True
    paths: Paths = Paths()


@dataclass(frozen=True, kw_only=True)
class ModelSettings(CommandSettings):
    """What every command has that asks a backbone."""

    prompting: Annotated[
        str | None,
        Setting(
            "How the backbone is asked, in the place of backbone.prompting; null: as that says, or as the training run did.",
            choices=("auto", "base", "chat"),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SandboxSettings(CommandSettings):
    """What every command has that runs programs."""

    sandbox: Annotated[
        str,
        Setting(
            "The weakest sandbox level that will do; the strongest that the machine offers is used.",
            choices=SANDBOX_LEVELS,
        ),
    ] = "landlock"
    workers: Annotated[int | None, Setting("Processes that judge programs; null: one per core.", at_least=1)] = None
    judge: Annotated[Any, Part()]


@dataclass(frozen=True, kw_only=True)
class JudgingSettings(SandboxSettings, ModelSettings):
    """What every command has that samples or scores programs."""

    extra_disabled: Annotated[
        Sequence[str],
        Setting(
            "Pylint checks to leave out beside the frozen list, of scores and of what pairs are made by: CPT's Table XII "
            "does without [W0621,E0602]. For scorer=pylint and combinations with it."
        ),
    ] = ()
    scorer: Annotated[Any, Part()]
    decoding: Decoding
    experiment_name: Annotated[str, Setting("Name of the experiment, the group of its runs in W&B.")] = "default"


@dataclass(frozen=True, kw_only=True)
class ProgramsSettings(JudgingSettings):
    """What the commands have whose programs several processes or machines can make (docs/scale.md)."""

    shards: Annotated[
        int | None, Setting("Into how many shards the programs are divided; null: this command makes all.", at_least=1)
    ] = None
    shard: Annotated[
        int | None,
        Setting(
            "The shard, from 0, whose programs this command makes and nothing else; without shard and shards, the same command "
            "then finds them.",
            at_least=0,
        ),
    ] = None
    ray: Annotated[Any, Part(optional=True)] = None
    estimate: Annotated[
        bool,
        Setting("true: only make a first chunk of programs, and print what all of them would take of time and disk."),
    ] = False
