"""Every setting of every command and config file, from the declarations: for the command line and docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab.settings.commands import COMMANDS, nodes
from cptlab.settings.config_source import config_directory
from cptlab.settings.debug import leaves
from cptlab.settings.declared import declared
from cptlab.settings.setting import REQUIRED, Declaration, declarations, shown

LONGEST_VALUE = 48


@dataclass(frozen=True)
class Row:
    """One setting, with its name on the command line."""

    name: str
    declaration: Declaration

    @property
    def default(self) -> str:
        default = self.declaration.default
        return "(none)" if default is REQUIRED else _short(default)

    @property
    def line(self) -> str:
        return f"{self.name}={self.default}: {self.declaration.expected}. {self.declaration.setting.meaning}"

    @property
    def cells(self) -> list[str]:
        return [f"`{self.name}`", f"`{self.default}`", self.declaration.expected, self.declaration.setting.meaning]


@dataclass(frozen=True)
class Option:
    """One file of a group: what it is, the values that it sets, and the settings of what it builds, by `_target_`."""

    name: str
    about: str
    values: dict[str, Any]
    targets: dict[str, list[Row]]


def command_rows(command: str) -> list[Row]:
    """The settings at the top of a command's config, and of what it builds itself, such as the stages of training."""
    content = OmegaConf.load(config_directory() / f"{command}.yaml")
    values = dict(leaves(OmegaConf.to_container(content)))
    own = [
        Row(row.name, replace(row.declaration, default=values.get(row.name, row.declaration.default)))
        for rows in _targets(values).values()
        for row in rows
    ]
    return [Row(name, one) for name, one in declarations(COMMANDS[command]).items()] + own


def node_rows() -> dict[str, list[Row]]:
    """The settings of groups that build nothing by themselves, by group."""
    found = {name: node for settings in COMMANDS.values() for name, node in nodes(settings).items()}
    return {
        group: [Row(f"{group}.{name}", one) for name, one in declarations(node).items()]
        for group, node in found.items()
    }


def groups() -> list[str]:
    """All groups of configs, such as objective and decoding/gate."""
    root = config_directory()
    return sorted({str(path.parent.relative_to(root)) for path in root.glob("*/**/*.yaml")} - {"hydra"})


def options(group: str) -> list[Option]:
    return [_option(group, path) for path in sorted((config_directory() / group).glob("*.yaml"))]


def all_rows() -> Iterator[tuple[str, Row]]:
    """Every setting of every command, group and file of a group, with where it is, such as `benchmark=jsonl`."""
    yield from ((f"cptlab {command}", row) for command in COMMANDS for row in command_rows(command))
    yield from ((group, row) for group, rows in node_rows().items() for row in rows)
    for group in groups():
        for option in options(group):
            yield from ((f"{group}={option.name}", row) for rows in option.targets.values() for row in rows)


def names_of(command: str) -> set[str]:
    """The names of all settings and groups that a command has."""
    own = {field.name for field in fields(COMMANDS[command])}
    return own | {row.name for _, row in all_rows() if row.name.split(".")[0] in own}


def owners_of(name: str) -> list[tuple[str, str]]:
    """The files of groups that have a setting of this name, each as its group and its own name."""
    places = [place for place, row in all_rows() if row.name == name]
    return [(group, option) for group, equals, option in (place.partition("=") for place in places) if equals]


def lines(name: str | None = None) -> list[str]:
    """One line for each setting and meaning, with where it is.

    `name`: only those that have its parts in their name, such as `objective` or `sampling.top_p`; or all of a file of that
    name, such as `jsonl`; or else those that have it within their name, such as `epochs`.
    """
    found: dict[str, list[str]] = {}
    rows = list(all_rows())
    for matches in (
        lambda place, row: f".{name}." in f".{row.name}.",
        lambda place, row: place.rpartition("=")[2] == name,
        lambda place, row: str(name) in row.name,
    ):
        for place, row in rows:
            if name is None or matches(place, row):
                found.setdefault(row.line, []).append(place)
        if found:
            break
    return [f"{line} [{_places(places)}]" for line, places in found.items()]


def _places(places: list[str]) -> str:
    """`cptlab train, evaluate; benchmark=apps, jsonl`: what is said of several with one heading is written once."""
    by_heading: dict[str, list[str]] = {}
    for place in dict.fromkeys(places):
        heading, sign, last = place.rpartition("=" if "=" in place else " ")
        by_heading.setdefault(heading + sign, []).append(last)
    return "; ".join(heading + ", ".join(names) for heading, names in by_heading.items())


def markdown() -> str:
    """docs/settings.md."""
    parts = [
        "# Settings",
        "Generated from the declarations by `cptlab settings --markdown`; do not edit. A setting is given as `name=value`, a "
        "file of a group as `group=option`. `--cfg job` prints what a command would use.",
    ]
    for command in COMMANDS:
        parts += [f"## `cptlab {command}`", _table(command_rows(command))]
    of_nodes = node_rows()
    for group in groups():
        parts.append(f"## {group}")
        found = options(group)
        parts.append(_options_table(group, found))
        if of_nodes.get(group):
            parts.append(_table(of_nodes[group]))
        targets: dict[str, list[Row]] = {}
        users: dict[str, list[str]] = {}
        for option in found:
            for target, rows in option.targets.items():
                targets[target] = rows
                users.setdefault(target, []).append(option.name)
        for target, rows in targets.items():
            parts += [f"`{target}` ({', '.join(users[target])}):", _table(rows)]
    return "\n\n".join(parts) + "\n"


def _option(group: str, path: Path) -> Option:
    text = path.read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in text if line.startswith("#") and not line.startswith("# @package")]
    content = OmegaConf.load(path)
    prefix = "" if text[0] == "# @package _global_" else group.replace("/", ".")
    assert isinstance(content, DictConfig)
    content.pop("defaults", None)
    if group == "scale" or "title" in content:  # for `cptlab record`, of which no command has a setting
        return Option(path.stem, f"`{comments[0]}`: {' '.join(comments[1:])}", {}, {})
    values = dict(leaves(OmegaConf.to_container(content), prefix))
    settings = {name: value for name, value in values.items() if not name.rpartition(".")[2].startswith("_")}
    return Option(path.stem, " ".join(comments[1:]), settings, _targets(values))


def _targets(values: dict[str, Any]) -> dict[str, list[Row]]:
    """The settings of what the `_target_` nodes among the values of a file build."""
    targets = {}
    for name, target in values.items():
        found = declared(target) if name.rpartition(".")[2] == "_target_" else None
        if found is not None and found.settings:
            place = name.removesuffix("_target_")
            targets[target] = [Row(place + setting, one) for setting, one in found.settings.items()]
    return targets


def _options_table(group: str, found: list[Option]) -> str:
    rows = []
    for option in found:
        values = ", ".join(f"`{name}={_short(value)}`" for name, value in option.values.items())
        rows.append([f"`{group}={option.name}`", option.about, values])
    return _markdown(["file", "what it is", "sets"], rows)


def _table(rows: list[Row]) -> str:
    return _markdown(["setting", "default", "values", "meaning"], [row.cells for row in rows])


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    escaped = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *escaped])


def _short(value: Any) -> str:
    text = shown(value).replace("\n", r"\n").replace("`", "'")
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
