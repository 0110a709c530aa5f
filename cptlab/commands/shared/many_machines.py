"""Who makes a system's programs: this process, a shard of several, or the workers of a Ray cluster (docs/scale.md)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cptlab.commands.shared.common import content_of, say
from cptlab.settings.instantiate import instantiate

if TYPE_CHECKING:
    from cptlab.systems.samples import SystemPrograms


def makes_a_part(config: DictConfig) -> bool:
    """Whether the command makes some programs only, and nothing of them: a shard, or a first chunk to measure."""
    return config.shard is not None or config.estimate


def make_programs(config: DictConfig, programs: SystemPrograms, node: DictConfig, run: str | None) -> None:
    """Make programs here, or where the setting `ray` says. `node`: the backbone, and `run`: the training run of the
    adapter, which workers on other machines load by themselves.
    """
    if config.get("ray") is not None:
        run = run and str(Path(run).absolute())
        instantiate(config.ray, "ray").fill(programs, functools.partial(load_policy, content_of(node), run))
    programs.fill()


def make_a_part(config: DictConfig, programs: SystemPrograms) -> None:
    """Make the programs of the shard that the settings name; or a first chunk, to print what all would take."""
    if config.estimate:
        from cptlab.estimate.programs import measure

        print("\n".join(measure(programs).lines()))
        return
    from cptlab.systems.shards import fill_shard

    keys = fill_shard(programs, config.shard, config.shards)
    made, of = programs.chunks.programs_of(keys), programs.chunks.programs_of(programs.chunks.keys)
    say(
        f"Shard {config.shard} of {config.shards}: {made} of {of} programs of {programs.system.name}, {len(keys)} of "
        f"{len(programs.chunks.keys)} chunks. The same command without shard and shards finds them."
    )


def on_the_driver(config: DictConfig, node: DictConfig) -> DictConfig:
    """Return the backbone's node as this process loads it: where Ray's workers sample, the GPU is left to them.

    Raises UserError where Ray is not installed.
    """
    if config.get("ray") is None:
        return node
    instantiate(config.ray, "ray")
    return OmegaConf.merge(node, {"device": "cpu"})  # type: ignore[return-value]


def load_policy(node: dict[str, Any], run: str | None) -> Any:
    """Load the backbone of a node, and the adapter of a training run onto it."""
    from cptlab.adapters import Policy, load_adapter

    backbone = instantiate(OmegaConf.create(node), "backbone")
    return Policy(backbone) if run is None else load_adapter(run, backbone).policy(backbone)
