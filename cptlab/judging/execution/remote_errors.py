"""Exceptions that cross from one process to the other: as data, and back as the nearest standard exception."""

from __future__ import annotations

import json
import sys
from typing import Any

from cptlab.judging.execution.wire import decode, encode

_dumps = json.dumps  # a program may replace the module's
_MAX_ARGUMENTS = 10_000  # characters


def encode_error(error: BaseException) -> list[Any]:
    """Return an exception as data: ["raised", names of its classes, its text, its arguments]."""
    try:
        names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__ if kind is not object]
        arguments = encode(list(error.args))
        if len(_dumps(arguments)) > _MAX_ARGUMENTS:
            arguments = []
    except BaseException:  # a hostile exception
        names, arguments = ["builtins.Exception"], []
    try:
        text = str(error)[:1000]
    except BaseException:
        text = "an exception that cannot be shown"
    return ["raised", names, text, arguments]


def decode_error(names: Any, text: Any, arguments: Any) -> BaseException:
    """Return the nearest standard exception to the one that the other side raised.

    Its attribute `candidate` holds the name and text of the original.
    """
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    text = str(text)
    kind: type[BaseException] = Exception
    for name in names:
        module, _, short = name.rpartition(".")
        if module.partition(".")[0] in sys.stdlib_module_names:
            found = getattr(sys.modules.get(module), short, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                kind = found
                break
    try:
        error = kind(*decode(arguments))
        if str(error) != text:
            raise ValueError
    except Exception:  # whatever that class says of arguments which a program chose
        shown = type(kind.__name__, (kind,), {"__str__": lambda self: text, "__init__": lambda self: None})
        error = shown.__new__(shown)
    setattr(error, "candidate", f"{(names or ['Exception'])[0].removeprefix('builtins.')[:80]}: {text}")  # noqa: B010
    return error
