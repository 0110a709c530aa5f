"""The one validation pass over a composed config, before any work.

Names, types and ranges come from the declarations. Settings that contradict each other stand in contradictions.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from cptlab.errors import UserError
from cptlab.settings.commands import COMMANDS, NODES, nodes
from cptlab.settings.contradictions import check_ablation, check_decoding, check_together
from cptlab.settings.declared import declared
from cptlab.settings.setting import REQUIRED, Declaration, Part, declarations, parts, shown

HYDRAS_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")


def validate(config: DictConfig) -> None:
    """Raise UserError for the first setting that is unknown, of a wrong type, out of its range, or contradicts another."""
    command = config.get("task_name")
    if command not in COMMANDS:
        raise UserError(f"task_name={shown(command)} cannot be: the command gives its own name. Leave task_name out.")
    check_ablation(config)
    _check_names(config, command)
    _check_node(config, "", COMMANDS[command])
    check_together(config)


def _check_names(config: DictConfig, command: str) -> None:
    """Refuse what another command has, such as the pairs of a training experiment in an evaluation."""
    if "rows" in (config.get("experiment") or {}):
        raise UserError(
            "This experiment is a table of a paper, which takes several commands. Run `cptlab record <its name>`, or add "
            "--dry-run to see them."
        )
    for name in map(str, config):
        users = [f"cptlab {other}" for other, settings in COMMANDS.items() if name in _names(settings)]
        if users and f"cptlab {command}" not in users:
            raise UserError(
                f"cptlab {command} has no {name}: it belongs to {' and '.join(users)}. Leave it out, or the experiment "
                "that sets it."
            )


def _names(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


def _check_node(node: Any, place: str, settings: type) -> None:
    """Check a command's config, or a node of it that is declared in commands.py and stands at `place`, such as data."""
    if not isinstance(node, DictConfig) or node._is_none():
        raise UserError(
            f"{place}={shown(node)} cannot be: it must hold settings. Leave it as the files in conf/ have it."
        )
    before = f"{place}." if place else ""
    own, inner = parts(settings), nodes(settings)
    _fill(node, declarations(settings))
    _fill_parts(node, own)
    for name, inside in inner.items():  # before the parts, which may refer to what is in there
        if name not in node:
            OmegaConf.update(node, name, {}, force_add=True)
        if isinstance(node[name], DictConfig) and not node[name]._is_none():
            _fill(node[name], declarations(inside))
    _check_values(node, before, declarations(settings), _names(settings))
    _check_parts(node, before, own)
    required = [
        name for name in (*own, *inner) if not hasattr(settings, name)
    ]  # a default is an attribute of the class
    _check_there(node, before, required)
    for name, inside in inner.items():
        _check_node(node[name], f"{before}{name}", inside)
    if settings is NODES["decoding"]:
        check_decoding(node, place)


def _fill(node: DictConfig, settings: Mapping[str, Declaration]) -> None:
    """Give what was removed, as by ~tags, its declared default, as what a file leaves out has it."""
    for name, declaration in settings.items():
        if name not in node and declaration.default is not REQUIRED:
            default = declaration.default
            OmegaConf.update(node, name, list(default) if isinstance(default, tuple) else default, force_add=True)


def _fill_parts(node: DictConfig, own: Mapping[str, Part]) -> None:
    """The same for parts: none where null will do, or no name, as by ~logger."""
    for name, part in own.items():
        if name not in node and (part.optional or part.many == "names"):
            OmegaConf.update(node, name, None if part.optional else {}, force_add=True)


def _check_there(node: DictConfig, before: str, required: Collection[str], meaning: str = "") -> None:
    missing = [name for name in required if name not in node]
    if missing:
        raise UserError(
            f"{before}{missing[0]} is not set. Give it{f': {meaning}' if meaning else ', as the files in conf/ do.'}"
        )


def _check_parts(node: DictConfig, before: str, own: Mapping[str, Part]) -> None:
    for name, part in own.items():
        if name in node:
            _check_part(node[name], f"{before}{name}", part)


def _check_part(value: Any, place: str, part: Part) -> None:
    """Check a value that must describe an object, or several."""
    if value is None and part.optional:
        return
    if part.node:
        _check_node(value, place, NODES[part.node])
    elif part.many == "list" and isinstance(value, ListConfig):
        for index, item in enumerate(value):
            _check_object(item, f"{place}[{index}]", Part())
    elif part.many == "names" and isinstance(value, DictConfig) and not value._is_none():
        for name in map(str, value):
            _check_object(value[name], f"{place}.{name}", Part())
    elif part.many:
        kind = {"list": "a list of nodes", "names": "names with nodes"}[part.many]
        raise UserError(
            f"{place}={shown(value)} cannot be: it must be {kind} that have a _target_. Correct that value."
        )
    else:
        _check_object(value, place, part)


def _check_object(node: Any, place: str, part: Part) -> None:
    """Check a node that must have a `_target_`."""
    if not isinstance(node, DictConfig):
        null = ", or null" if part.optional else ""
        raise UserError(
            f"{place}={shown(node)} cannot be: it must be a node with a _target_{null}, as the files in conf/ have it. "
            "Correct that value."
        )
    target = node.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{place} has no _target_. Give it one, as the files in conf/{place.split('.')[0]} have.")
    if node.get("_partial_", False) is not part.partial:
        raise UserError(
            f"{place}._partial_={shown(node.get('_partial_', False))} cannot be: it must be {shown(part.partial)}. "
            "Correct that value."
        )
    found = declared(target)
    if found is None:  # of another package: its own nodes may still be of ours
        for key in map(str, node):
            if isinstance(node[key], DictConfig) and "_target_" in node[key]:
                _check_object(node[key], f"{place}.{key}", Part(partial=bool(node[key].get("_partial_"))))
        return
    _fill(node, found.settings)
    _check_values(node, f"{place}.", found.settings, None if found.is_open else found.names)
    for name in found.settings:
        if found.settings[name].default is REQUIRED:
            _check_there(node, f"{place}.", [name], found.settings[name].setting.meaning)
    _check_there(node, f"{place}.", [name for name in found.required if name in found.parts])
    _check_parts(node, f"{place}.", found.parts)


def _check_values(
    node: DictConfig, place: str, settings: Mapping[str, Declaration], known: Collection[str] | None
) -> None:
    """Check the values of one node; `known`: all names that it can have, None for any.

    A value that refers to another setting is checked there.
    """
    content: dict[str, Any] = OmegaConf.to_container(node)  # type: ignore[assignment]
    for key, raw in content.items():
        if key in HYDRAS_KEYS:
            continue
        if key in settings and re.fullmatch(r"\$\{[^:{}]+\}", str(raw)):
            _ = node[key]  # which raises where nothing is there
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
