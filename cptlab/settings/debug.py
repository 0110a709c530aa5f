"""debug=…: the same run, made small. Only numbers that are larger become smaller; what is off stays off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf


def shrink(config: DictConfig) -> None:
    """Lower every setting that `debug.at_most` names to the number there; `null`, which stands for all, becomes it.

    A setting that this run does not have, such as pairs.n of ready-made pairs, is passed over.
    """
    limits = OmegaConf.select(config, "debug.at_most")
    for name, limit in leaves(OmegaConf.to_container(limits) if limits else {}):
        parent, _, last = name.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if node is not None and last in node:
            node[last] = limit if node[last] is None else min(node[last], limit)


def leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the value of everything in nested dictionaries that is not one."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, content
