"""Every setting of every command and config file, from the declarations: for the command line and docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
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
    """The settings at the top of a command's config."""
    return [Row(name, one) for name, one in declarations(COMMANDS[command]).items()]


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


def all_rows() -> Iterator[Row]:
    """Every setting once for each meaning that it has."""
    seen = set()
    for rows in (
        *(command_rows(command) for command in COMMANDS),
        *node_rows().values(),
        *(rows for group in groups() for option in options(group) for rows in option.targets.values()),
    ):
        for row in rows:
            if row.line not in seen:
                seen.add(row.line)
                yield row


def names_of(command: str) -> set[str]:
    """The names of all settings and groups that a command has."""
    own = {field.name for field in fields(COMMANDS[command])}
    return own | {row.name for row in all_rows() if row.name.split(".")[0] in own}


def lines(name: str | None = None) -> list[str]:
    """One line for each setting whose name has the parts of `name` in it, such as `objective` or `sampling.top_p`."""
    wanted = f".{name}." if name else "."
    return [row.line for row in all_rows() if wanted in f".{row.name}."]


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
    targets = {}
    for name, target in values.items():
        found = declared(target) if name.rpartition(".")[2] == "_target_" else None
        if found is not None and found.settings:
            place = name.removesuffix("_target_")
            targets[target] = [Row(place + setting, one) for setting, one in found.settings.items()]
    return Option(path.stem, " ".join(comments[1:]), settings, targets)


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
