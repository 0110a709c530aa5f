"""Make the object that a config node describes."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from cptlab.errors import UserError
from cptlab.settings.declared import PACKAGE


def instantiate(node: DictConfig, name: str, *args: Any, **extra: Any) -> Any:
    """Hydra's instantiate of a node; an error in the user's values is a UserError that names the node.

    The user's are: a UserError, arguments that do not fit the call, and what another package says of its arguments. Any
    other error that our own code raises is a mistake in it, and comes through as it is.
    """
    try:
        return hydra.utils.instantiate(node, *args, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if not (isinstance(cause, UserError) or _is_ours(cause)):
            if cause is None or isinstance(cause, (TypeError, ValueError)):
                raise UserError(
                    f"{name} cannot be made from its settings: {cause or error}. Correct conf group {name}."
                ) from error
            raise
    assert cause is not None
    raise cause


def _is_ours(error: BaseException | None) -> bool:
    """Whether an error passed through code of this package after Hydra had made the call."""
    frames = traceback.walk_tb(error.__traceback__ if error else None)
    files = (Path(frame.f_code.co_filename).resolve() for frame, _ in frames)
    return any(PACKAGE in file.parents for file in files)
