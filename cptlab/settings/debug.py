"""debug=…: the same run, made small. Only numbers that are larger become smaller; what is off stays off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab.errors import UserError
from cptlab.settings.setting import shown


def shrink(config: DictConfig) -> None:
    """Lower every setting that `debug.at_most` names to the number there; `null`, which stands for all, becomes it.

    A setting that this run does not have, such as pairs.n of ready-made pairs, is passed over. Raises UserError where
    there are no numbers.
    """
    debug: Any = OmegaConf.to_container(config).get("debug")  # type: ignore[union-attr]
    if debug is None:
        return
    if not isinstance(debug, dict) or set(debug) != {"at_most"} or not isinstance(debug["at_most"], dict):
        raise UserError("Group debug has at_most alone, with the settings to lower. Use debug=fdr, or a file like it.")
    for name, limit in leaves(debug["at_most"]):
        parent, _, last = name.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if isinstance(node, DictConfig) and last in node:
            if not _is_number(limit) or not (node[last] is None or _is_number(node[last])):
                raise UserError(
                    f"debug.at_most.{name}={shown(limit)} cannot be: it must be a number, for a setting that is one. "
                    "Correct that value."
                )
            node[last] = limit if node[last] is None else min(node[last], limit)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the value of everything in nested dictionaries that is not one."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, content
