"""Make the object that a config node describes."""

from __future__ import annotations

from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from cptlab.errors import UserError


def instantiate(node: DictConfig, name: str, *args: Any, **extra: Any) -> Any:
    """Hydra's instantiate of a node; an error in the user's values is a UserError that names the node."""
    try:
        return hydra.utils.instantiate(node, *args, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, (TypeError, ValueError)) or cause is None:
            raise UserError(
                f"{name} cannot be made from its settings: {cause or error}. Correct conf group {name}."
            ) from error
        raise
