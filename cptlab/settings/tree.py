"""Print a config as a tree."""

from __future__ import annotations

import json
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.tree import Tree

SHOWN_LAST = ("paths", "hydra")


def print_tree(config: DictConfig) -> None:
    """Print the resolved config, groups in the order of the file, paths and the like last."""
    root = Tree("config", guide_style="dim")
    content: Any = OmegaConf.to_container(config, resolve=True)
    for name in sorted(content, key=lambda name: name in SHOWN_LAST):
        _branch(root, name, content[name])
    Console(stderr=False, soft_wrap=True).print(root)


def _branch(tree: Tree, name: str, value: Any) -> None:
    if isinstance(value, dict) and value:
        node = tree.add(f"[bold]{name}[/bold]")
        for key, item in value.items():
            _branch(node, str(key), item)
    else:
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, list)) else str(value)
        tree.add(f"{name}: {text}".replace("[", r"\["))
