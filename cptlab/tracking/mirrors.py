"""Mirrors: the loggers of a run, none of which can fail it. The local result files are the truth.

What can be refused of their settings is refused by `check_mirrors`, before any work. What a logger raises later is one
warning; the run goes on without that logger.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from cptlab.errors import UserError
from cptlab.tracking.loggers import Logger, check_wandb
from cptlab.tracking.outcome import Outcome

NEEDED = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "tensorboard": ("tensorboard",)}  # packages, by logger


class Mirror:
    """A logger, ours or one of Lightning's, with the same attributes and methods. After the first error it does nothing."""

    def __init__(self, name: str, save_dir: str, open_logger: Callable[[], Any]) -> None:
        self._name, self._save_dir = name, save_dir
        self._logger: Any = Logger(save_dir)
        self._contained(lambda: setattr(self, "_logger", open_logger()))

    @classmethod
    def of(cls, logger: Any, save_dir: str) -> Mirror:
        """Return the mirror of a logger that is open."""
        return cls(type(logger).__name__, save_dir, lambda: logger)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = self._contained(lambda: getattr(self._logger, name))
        return (lambda *a, **k: self._contained(lambda: found(*a, **k))) if callable(found) else found

    def log_outcome(self, outcome: Outcome) -> None:
        """Log what the run came to; to a logger that takes numbers alone, such as most of Lightning's, the figures."""
        if hasattr(self._logger, "log_outcome"):
            self._contained(lambda: self._logger.log_outcome(outcome))
        else:
            self.log_metrics(outcome.metrics)

    def close(self, failed: bool) -> None:
        """End the record of the run: `failed` if an exception ended it."""
        if hasattr(self._logger, "close"):
            self._contained(lambda: self._logger.close(failed))
        else:
            self.finalize("failed" if failed else "success")

    def _contained(self, call: Callable[[], Any]) -> Any:
        """Return what `call` returns; None after a warning where it raises. A logger may raise anything."""
        try:
            return call()
        except AttributeError as error:
            if error.obj is self._logger:
                raise  # Lightning asks whether it has an attribute
            self._give_up(error)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if os.environ.get("CPTLAB_TRACEBACK"):
            traceback.print_exception(error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"warning: logger {self._name} failed ({reason}). The run goes on without it, and its own files are complete.",
            file=sys.stderr,
            flush=True,
        )
        self._logger = Logger(self._save_dir)


def check_mirrors(loggers: Mapping[str, Any] | None, tags: Sequence[Any] | None) -> None:
    """Raise UserError for settings that a logger would refuse, and for a package that it needs. `loggers`: their config."""
    for node in (loggers or {}).values():
        for name, packages in NEEDED.items():
            if str(node.get("_target_")) == f"cptlab.tracking.{name}_logger.{name}_logger":
                _check_installed(name, packages)
        if str(node.get("_target_")).endswith("loggers.wandb_logger"):
            check_wandb(tags or (), **{name: node.get(name) for name in ("project", "group", "name")})


def _check_installed(name: str, packages: Sequence[str]) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"logger={name} needs {' and '.join(missing)}, which this Python does not have. Install with "
            f"pip install 'cptlab[{name}]', or leave {name} out of logger."
        )


@contextmanager
def closed_at_the_end(mirrors: Sequence[Mirror]) -> Iterator[None]:
    """Close the mirrors at the end, as failed if an exception ends the block."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for mirror in mirrors:
            mirror.close(failed)
