"""Repeat in the candidate's process what a unittest does to its own: mock.patch, seeds, the working directory.

Such tests are written for one process in which they can replace `os.listdir` under the program's feet. Here the
replacement lives in the examiner and the program gets a proxy for it (proxies.py). Nothing else that tests may change in
place is repeated, such as logging handlers and sys.path.
"""

from __future__ import annotations

import functools
import importlib
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from cptlab.judging.execution.rpc import Connection

_MAIN = "__main__"


def install(connection: Connection) -> None:
    """Install in the examiner, for good and before the tests are loaded, what repeats patches in the candidate."""
    from unittest import mock

    for module, name in ((random, "seed"), (os, "chdir"), (getattr(sys.modules.get("numpy"), "random", None), "seed")):
        if module is not None:
            setattr(module, name, _in_both(connection, module.__name__, name, getattr(module, name)))
    patcher, dictionary = mock._patch, mock._patch_dict  # what patch, patch.object, patch.multiple and patch.dict make
    enter, leave, enter_dict, leave_dict = (
        patcher.__enter__,
        patcher.__exit__,
        dictionary.__enter__,
        dictionary.__exit__,
    )

    def patched(self: Any) -> Any:
        value = enter(self)
        owner = _path(self.target)
        if owner is not None and owner != ["sys"]:  # the program's output comes here anyway
            connection.request("patch", owner, self.attribute, getattr(self.target, self.attribute))
        return value

    def restored(self: Any, *error: Any) -> Any:
        owner = _path(self.target)
        result = leave(self, *error)
        if owner is not None and owner != ["sys"]:
            connection.request("restore", owner, self.attribute)
        return result

    def environment(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(self: Any, *arguments: Any) -> Any:
            result = change(self, *arguments)
            if self.in_dict is os.environ:
                connection.request("environment", dict(os.environ))
            return result

        return changed

    patcher.__enter__, patcher.__exit__ = patched, restored
    dictionary.__enter__, dictionary.__exit__ = environment(enter_dict), environment(leave_dict)


def _in_both(connection: Connection, module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def here_and_there(*arguments: Any) -> Any:
        connection.request("same_call", module, name, *arguments)
        return function(*arguments)

    return here_and_there


def _path(target: Any) -> list[str] | None:
    """Return the names by which the other process finds the module or class `target`; None for anything else."""
    if isinstance(target, types.ModuleType):
        return [target.__name__]
    if isinstance(target, type):
        return [target.__module__, *target.__qualname__.split(".")]
    return None


def operations(program: types.ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the operations that the examiner may request of the candidate's process."""
    before: dict[tuple[str, ...], list[Any]] = {}
    missing = object()

    def owner(path: list[str]) -> Any:
        found: Any = program if path[0] == _MAIN else importlib.import_module(path[0])
        for name in path[1:]:
            found = getattr(found, name)
        return found

    def patch(path: list[str], name: str, value: Any) -> None:
        target = owner(path)
        before.setdefault((*path, name), []).append(vars(target).get(name, missing))
        setattr(target, name, value)

    def restore(path: list[str], name: str) -> None:
        value = before[(*path, name)].pop()
        if value is missing:
            delattr(owner(path), name)
        else:
            setattr(owner(path), name, value)

    def environment(content: dict[str, str]) -> None:
        os.environ.clear()
        os.environ.update(content)

    def same_call(module: str, name: str, *arguments: Any) -> None:
        getattr(importlib.import_module(module), name)(*arguments)

    def import_modules(modules: dict[str, str]) -> None:
        for name, module in modules.items():
            if not hasattr(program, name):
                setattr(program, name, importlib.import_module(module))

    return {
        "import": import_modules,
        "patch": patch,
        "restore": restore,
        "environment": environment,
        "same_call": same_call,
    }
