"""The systems that a configuration names: their training runs, and the backbone and benchmark that they share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab.commands.shared.common import content_of, say
from cptlab.errors import UserError
from cptlab.settings.instantiate import instantiate
from cptlab.storage.run_directory import ADAPTER_KINDS, CONFIG_FILE, adapter_kind, training_run
from cptlab.systems.decoding import build_decoding
from cptlab.systems.system import ANY, System

DEVICE = "device"  # of a backbone; it may differ between training runs and evaluations


def choose_systems(config: DictConfig, **decoding: Any) -> list[System]:
    """Build the systems of the node `system`, in order, each with the directory of its training run.

    Those that need a training run are left out where `run` is null, which is said. `decoding`: see `build_decoding`.
    Raises UserError where none is left, and where there is no such training run.
    """
    systems, without = [], []
    for name, node in (config.get("system", {})).items():
        system = _build(str(name), node, decoding)
        if system.adapter is not None and system.run is None:
            without.append(system.name)
            continue
        systems.append(system if system.run is None else _with_run_found(system, config))
    if not systems:
        left = f"{', '.join(without)} needs a training run; give run=<directory> or run=latest" if without else ""
        raise UserError(f"There is no system to evaluate: {left or 'name some, such as system=[base,tuned]'}.")
    if without:
        say(f"Left out, for want of a training run (run=null): {', '.join(without)}.")
    return systems


def _build(name: str, node: DictConfig, decoding: dict[str, Any]) -> System:
    content = content_of(node)
    has_decoding = content.pop("decoding", None) is not None
    # as Hydra would otherwise put the objects of a list into a config of its own
    made = instantiate(OmegaConf.create(content | {"name": name, "_convert_": "all"}), f"system.{name}")
    if not has_decoding:
        return made
    return replace(made, decoding=build_decoding(node.decoding, f"system.{name}.decoding", **decoding))


def _with_run_found(system: System, config: DictConfig) -> System:
    """Return the system with the directory of its training run, and the kind of adapter that this has."""
    kinds = ADAPTER_KINDS if system.adapter == ANY else (str(system.adapter),)
    try:
        directory = training_run(str(system.run), Path(config.paths.logs), kinds)
    except UserError as error:
        raise UserError(f"System {system.name}: {error}") from None
    return replace(system, run=str(directory), adapter=adapter_kind(directory))


def shared_setting(config: DictConfig, systems: list[System], group: str) -> DictConfig:
    """Return the node of conf group backbone or benchmark: as the configuration names it, or as the training runs have it.

    Raises UserError where nothing names one, and where the training runs differ.
    """
    if config.get(group):
        return config[group]
    runs = list(dict.fromkeys(Path(system.run) for system in systems if system.run is not None))
    if not runs and config.run is not None:
        runs = [training_run(config.run, Path(config.paths.logs))]
    if not runs:
        usual = {"benchmark": "kata", "backbone": "kata_lm"}[group]
        raise UserError(f"Nothing says which {group} to evaluate on. Add {group}={usual}, or run=<a training run>.")
    nodes: list[DictConfig] = [OmegaConf.select(OmegaConf.load(run / CONFIG_FILE), group) for run in runs]
    if group == "backbone":
        nodes = [prompted(node, config.prompting) for node in nodes]
    first, *others = [{key: value for key, value in node.items() if key != DEVICE} for node in nodes]
    for run, other in zip(runs[1:], others, strict=True):
        if other != first:
            raise UserError(
                f"The training runs {runs[0]} and {run} have different {group}s, so their systems cannot be compared. "
                f"Evaluate them apart, or name one with {group}=…."
            )
    return nodes[0]


def build_backbone(config: DictConfig, systems: list[System]) -> Any:
    """Load the frozen backbone that all systems share."""
    return instantiate(backbone_node(config, systems), "backbone")


def backbone_node(config: DictConfig, systems: list[System]) -> DictConfig:
    """Return the node of the backbone that all systems share, on `device` and asked by `prompting` if these are named."""
    node = prompted(shared_setting(config, systems, "backbone"), config.prompting).copy()
    if config.device is not None:
        node.device = config.device
    return node


def prompted(backbone: DictConfig, prompting: str | None) -> DictConfig:
    """Return the node of a backbone, asked by `prompting` if that is named."""
    return backbone if prompting is None else OmegaConf.merge(backbone, {"prompting": prompting})  # type: ignore[return-value]
