"""Where configs come from: YAML files in which every setting that they leave out has its declared default.

A file holds a `_target_` and the values that differ from the declarations. Filling in happens while Hydra reads it, so
that overrides, `--cfg job` and the printed tree know all settings, and no module of a `_target_` is imported.

The source takes the place of Hydra's own for files, so that it also serves `--config-dir` and `hydra.searchpath`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf

from cptlab.settings import optuna_sweeper
from cptlab.settings.commands import COMMANDS, NODES, nodes
from cptlab.settings.declared import PACKAGE, declared
from cptlab.settings.setting import REQUIRED, Declaration, declarations


def config_directory() -> Path:
    """The directory of the configs: inside an installed package, or at the top of a clone."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parent / "conf"


def default_choices(command: str) -> dict[str, str]:
    """Return the default file of each group of a command, as the list at the top of its YAML file has it."""
    config = OmegaConf.load(config_directory() / f"{command}.yaml")
    chosen = [item for item in config.defaults if isinstance(item, DictConfig)]
    return {str(group): str(file) for item in chosen for group, file in item.items() if isinstance(file, str)}


def compose_config(name: str, *overrides: str) -> DictConfig:
    """The config of a command, such as `compose_config("train", "objective=dpo")`, or of one file of a group."""
    use_declared_defaults()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        return compose(name, list(overrides))


@functools.cache
def use_declared_defaults() -> None:
    """Have Hydra read config files through `DeclaredConfigSource` in this process, and know our sweeper."""
    Plugins.instance()  # registers Hydra's own sources first
    optuna_sweeper.register()
    SourcesRegistry.instance().types[DeclaredConfigSource.scheme()] = DeclaredConfigSource


class DeclaredConfigSource(FileConfigSource):
    """YAML files with the declared defaults of what they leave out."""

    def load_config(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
        path = PurePosixPath(config_path.removesuffix(".yaml"))
        if path.parts[:-1] == ("ablation",):
            result.config["ablation"] = {"name": path.name, "sets": OmegaConf.to_container(result.config)}
        if str(path) in COMMANDS and isinstance(result.config, DictConfig):
            _fill_command(result.config, COMMANDS[str(path)])
        _fill_targets(result.config)
        if path.parts[:-1] == ("decoding",) and OmegaConf.select(result.config, "sampling._target_"):
            assert isinstance(result.config, DictConfig)
            _fill(result.config, declarations(NODES["decoding"]))  # here, since systems have decodings, too
        return result


# In the process of a job that a launcher starts, Hydra registers its own sources again, and refuses one of another name.
DeclaredConfigSource.__name__ = FileConfigSource.__name__


def _fill_command(config: DictConfig, settings: type) -> None:
    _fill(config, declarations(settings))
    for name, node in nodes(settings).items():
        config.setdefault(name, {})
        _fill(config[name], declarations(node))


def _fill_targets(node: Any) -> None:
    """Fill in the nodes that name a `_target_` of this package, at any depth."""
    if isinstance(node, DictConfig) and not node._is_none():
        target = node.get("_target_")
        found = declared(target) if isinstance(target, str) else None
        if found is not None:
            _fill(node, found.settings)
        for name in map(str, node):
            if not OmegaConf.is_interpolation(node, name):
                _fill_targets(node[name])
    elif isinstance(node, ListConfig) and not node._is_none():
        for index in range(len(node)):
            if not OmegaConf.is_interpolation(node, index):
                _fill_targets(node[index])


def _fill(node: DictConfig, settings: Mapping[str, Declaration]) -> None:
    for name, declaration in settings.items():
        if name not in node and declaration.default is not REQUIRED:
            value = declaration.default
            node[name] = list(value) if isinstance(value, tuple) else value
