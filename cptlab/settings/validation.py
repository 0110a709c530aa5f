"""The one validation pass over a composed config, before any work.

Types, ranges and names come from the declarations; what stands here are settings that contradict each other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from cptlab.errors import UserError
from cptlab.settings.commands import COMMANDS, nodes
from cptlab.settings.config_source import config_directory
from cptlab.settings.debug import leaves
from cptlab.settings.declared import declared
from cptlab.settings.setting import REQUIRED, Declaration, declarations

# command -> (pattern of a metric that a sweep can optimise, an example)
METRICS = {
    "train": (r"(comparative|nll)/\w+", "comparative/val_accuracy"),
    "evaluate": (r"[^/]+/[^/]+/[\w@]+", "tuned/all/pylint_mean"),
}


def validate(config: DictConfig) -> None:
    """Raise UserError for the first setting that is unknown, of a wrong type, out of its range, or contradicts another."""
    settings = COMMANDS[config.task_name]
    _check_ablation(config)
    declared_nodes = nodes(settings)
    groups = {path.name for path in config_directory().iterdir() if path.is_dir()}
    known = {field.name for field in fields(settings)} | groups | {"stages"}
    _check_values(config, "", declarations(settings), known)
    for name in config:
        node = config[name]
        if name in declared_nodes and node is not None:
            names = {field.name for field in fields(declared_nodes[name])}
            _check_values(node, f"{name}.", declarations(declared_nodes[name]), names)
        _check_targets(node, str(name))
    _check_given(config)
    _check_ks(config)
    _check_metric(config)
    _check_disabled(config)


def _check_targets(node: Any, name: str) -> None:
    """Check the nodes that name a `_target_` of this package, at any depth."""
    if isinstance(node, ListConfig):
        for index, item in enumerate(node):
            _check_targets(item, f"{name}[{index}]")
    if not isinstance(node, DictConfig) or node._is_none():
        return
    target = node.get("_target_")
    found = declared(target) if isinstance(target, str) else None
    if found is not None:
        _check_values(node, f"{name}.", found.settings, None if found.is_open else found.parameters)
        missing = [key for key, one in found.settings.items() if one.default is REQUIRED and key not in node]
        if missing:
            raise UserError(f"{name}.{missing[0]} is not set. Give it: {found.settings[missing[0]].setting.meaning}")
    for key in map(str, node):
        if not OmegaConf.is_interpolation(node, key):
            _check_targets(node[key], f"{name}.{key}")


def _check_values(
    node: DictConfig, place: str, settings: Mapping[str, Declaration], known: Collection[str] | None
) -> None:
    """Check the values of one node; `known`: all names that it can have, None for any.

    A value that refers to another setting is checked there.
    """
    content: dict[str, Any] = OmegaConf.to_container(node)  # type: ignore[assignment]
    for key, raw in content.items():
        if key.startswith("_") or re.fullmatch(r"\$\{[^:{}]+\}", str(raw)):
            continue
        if key in settings:
            value = node[key]
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            problem = settings[key].problem(place + key, value)
            if problem:
                raise UserError(problem)
        elif known is not None and key not in known:
            near = difflib.get_close_matches(key, known, 1)
            others = f"Choose from {', '.join(sorted(known))}." if known else "Leave it out."
            remedy = f"Did you mean {place}{near[0]}?" if near else others
            raise UserError(f"There is no setting {place}{key}. {remedy}")


def _check_ablation(config: DictConfig) -> None:
    """An ablation must hold: every value that it sets is there in the end."""
    ablation = config.get("ablation")
    if not ablation:
        return
    for name, value in leaves(OmegaConf.to_container(ablation.sets)):
        parent, _, key = name.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        found = declared(node._target_) if "_target_" in node else None
        if found is not None and key not in found.parameters:
            raise UserError(
                f"ablation={ablation.name} sets {name}, which {node._target_} does not have. Leave the ablation out, or "
                f"choose another {parent}."
            )
        if node[key] != value:
            raise UserError(
                f"ablation={ablation.name} sets {name}={value}, and another override or experiment sets it to "
                f"{node[key]}. Leave one of the two out."
            )


def _check_given(config: DictConfig) -> None:
    """The settings of `evaluate completions=…`, which loads no model and draws no sample."""
    if config.get("completions") is None:
        if config.get("against") is not None:
            raise UserError("against=… needs completions=…: the file of programs that are compared with it. Give both.")
        return
    if config.get("benchmark") is None:
        raise UserError(
            "completions=… needs the benchmark that the programs are for. Add benchmark=<name>, such as "
            "benchmark=humaneval."
        )
    for name, usual in (("run", ("latest", None)), ("backbone", (None,)), ("limit", (None,)), ("device", (None,))):
        if config.get(name) not in usual:
            raise UserError(
                f"{name}=… and completions=… contradict each other: a file of programs is judged whole and without a "
                f"model. Leave {name} out."
            )


def _check_ks(config: DictConfig) -> None:
    ks = config.get("ks")
    if ks and config.completions is None and max(ks) > config.n:
        raise UserError(
            f"pass@{max(ks)} needs at least {max(ks)} samples per task, and n={config.n}. "
            f"Raise n, or leave {max(ks)} out of ks."
        )


def _check_metric(config: DictConfig) -> None:
    metric = config.get("optimized_metric")
    if metric is not None and not re.fullmatch(METRICS[config.task_name][0], metric):
        example = METRICS[config.task_name][1]
        raise UserError(f"optimized_metric={metric} cannot be: it must be a name like {example}, or null.")


def _check_disabled(config: DictConfig) -> None:
    for name in config.get("extra_disabled") or ():
        if not re.fullmatch(r"[CRWEF]\d{4}", name):
            raise UserError(
                f"extra_disabled has {name}, which is no id of a pylint message. Give a list such as [W0621,E0602]."
            )
