"""Exceptions that cross from one process to the other: as data, and back as the nearest standard exception."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from cptlab.judging.execution.wire import is_named

_dumps = json.dumps  # a program may replace the module's
_MAX_DATA = 10_000  # characters of arguments, and of attributes
_OF_TYPES = (
    "errno",
    "strerror",
    "filename",
    "filename2",
    "name",
    "path",
)  # which OSError and ImportError keep elsewhere
_NOT_SET = ("args", "candidate", "with_traceback", "add_note")


def encode_error(error: BaseException, pack: Callable[[Any], Any]) -> list[Any]:
    """Return an exception as data: ["raised", names of its classes, its text, its arguments, its attributes]."""
    try:
        names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__ if kind is not object]
        arguments = pack(list(error.args))
        if len(_dumps(arguments)) > _MAX_DATA:
            arguments = []
    except BaseException:  # a hostile exception
        names, arguments = ["builtins.Exception"], []
    try:
        found = {name: getattr(error, name) for name in _OF_TYPES if hasattr(type(error), name)} | error.__dict__
        attributes = {name: pack(value) for name, value in found.items() if value is not None}
        if len(_dumps(attributes)) > _MAX_DATA:
            attributes = {}
    except BaseException:
        attributes = {}
    try:
        text = str(error)[:1000]
    except BaseException:
        text = "an exception that cannot be shown"
    return ["raised", names, text, arguments, attributes]


def decode_error(data: list[Any], unpack: Callable[[Any], Any]) -> BaseException:
    """Return the nearest standard exception to what `encode_error` wrote (but for its first word), or a class of its name below it.

    Its attribute `candidate` holds the name and text of the original.
    """
    names, text, arguments, attributes = data
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    text = str(text)
    kind: Any = Exception
    for name in names:
        module, _, short = name.rpartition(".")
        if module.partition(".")[0] in sys.stdlib_module_names:
            found = getattr(sys.modules.get(module), short, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                kind = found
                break
    own = names[0].rpartition(".")[2] if names else ""
    if is_named(own) and len(own) <= 80 and own != kind.__name__:
        kind = type(own, (kind,), {"__module__": "program"})
    try:
        error = kind(*unpack(arguments))
        _set_attributes(error, attributes, unpack)
        if str(error) != text:
            raise ValueError
    except Exception:  # whatever that class says of arguments which a program chose
        error = _shown(kind, text, arguments, unpack)
        _set_attributes(error, attributes, unpack)
    setattr(error, "candidate", f"{(names or ['Exception'])[0].removeprefix('builtins.')[:80]}: {text}")  # noqa: B010
    return error


def _shown(kind: type[BaseException], text: str, arguments: Any, unpack: Callable[[Any], Any]) -> BaseException:
    """Return an exception with this text and these arguments without a call of its class's own initialization."""
    shown = type(kind.__name__, (kind,), {"__str__": lambda self: text, "__init__": lambda self, *_: None})
    try:
        return shown.__new__(shown, *unpack(arguments))
    except Exception:  # arguments that are no data, or not for this class
        return shown.__new__(shown)


def _set_attributes(error: BaseException, attributes: Any, unpack: Callable[[Any], Any]) -> None:
    for name, data in attributes.items() if isinstance(attributes, dict) else ():
        if is_named(name) and name not in _NOT_SET:
            try:
                setattr(error, name, unpack(data))
            except (
                ValueError,
                TypeError,
                AttributeError,
            ):  # data that cannot be read, or an attribute that cannot be set
                pass
