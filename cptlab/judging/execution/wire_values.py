"""Read the JSON of wire.py back as Python values. It makes data only, never code, whoever wrote it."""

from __future__ import annotations

import array
import base64
import collections
import enum
import functools
import importlib
import itertools
import sys
from collections.abc import Callable
from typing import Any

from cptlab.judging.execution.wire import NAMED_TYPES, Containers, is_named

Resolve = Callable[[str, Any], Any]


def decode(data: Any, resolve: Resolve | None = None, containers: Containers | None = None, known: bool = False) -> Any:
    """Return the value that `wire.encode` wrote, with `containers` and `known` as there.

    Kinds that are no data go to `resolve(kind, content)`. ValueError for nonsense.
    """
    return _Decoder(resolve, containers).decode(data, known)


def replace_content(container: Any, other: Any) -> None:
    """Give `container` the content of `other`. ValueError where that is not of the same kind."""
    kind: Any = type(other)
    if not isinstance(container, kind):
        raise ValueError(f"{kind.__name__} in the place of {type(container).__name__}")
    if kind in (list, bytearray, array.array):
        kind.__setitem__(container, slice(None), other)
    elif kind is collections.deque:
        container.clear()
        container.extend(other)
    elif issubclass(kind, (dict, set)):  # not by the methods of a subclass, which may count or refuse
        base: Any = next(base for base in (collections.OrderedDict, dict, set) if isinstance(container, base))
        base.clear(container)
        base.update(container, other)
    elif container.shape == other.shape and container.flags.writeable:  # numpy arrays
        container[...] = other


class _Decoder:
    def __init__(self, resolve: Resolve | None, containers: Containers | None) -> None:
        self.resolve, self.containers = resolve, containers

    def decode(self, data: Any, known: bool = False) -> Any:
        if data is None or isinstance(data, (bool, int, str)):
            return data
        if isinstance(data, float):
            return (
                data if data == data or "numpy" not in sys.modules else sys.modules["numpy"].nan
            )  # compared by identity
        if isinstance(data, list):
            value: list[Any] = self._new([], known)
            value.extend([self.decode(item) for item in data])
            return value
        if not isinstance(data, dict) or len(data) != 1:
            raise ValueError("not an encoded value")
        ((kind, content),) = data.items()
        try:
            if kind in _CONTAINERS:
                return _CONTAINERS[kind](self, content, known)
            if kind in _VALUES:
                return _VALUES[kind](self, content)
            if kind == "same" and self.containers is not None and type(content) is int and content >= 0:
                return self.containers.objects[content]
            if self.resolve is not None:
                return self.resolve(kind, content)
        except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"not an encoded {kind}") from error
        raise ValueError(f"an encoded {kind}")

    def _new(self, container: Any, known: bool) -> Any:
        """Number a container, before what is in it."""
        if self.containers is not None and not known:
            self.containers.add(container)
        return container

    def items(self, content: Any) -> list[Any]:
        return [self.decode(item) for item in content]

    def pairs(self, content: Any) -> list[tuple[Any, Any]]:
        return [(self.decode(key), self.decode(item)) for key, item in content]

    def mapping(self, kind: type[dict], content: Any, known: bool) -> Any:
        value = self._new(kind(), known)
        for key, item in self.pairs(content):
            kind.__setitem__(value, key, item)
        return value

    def set(self, content: Any, known: bool) -> Any:
        value = self._new(set(), known)
        value.update(self.items(content))
        return value

    def defaultdict(self, content: Any, known: bool) -> Any:
        value = self._new(collections.defaultdict(), known)
        value.default_factory = self.decode(content[0])
        value.update(self.pairs(content[1]))
        return value

    def deque(self, content: Any, known: bool) -> Any:
        value = self._new(collections.deque(maxlen=content[0]), known)
        value.extend(self.items(content[1]))
        return value

    def rows(self, content: Any, known: bool) -> Any:
        objects, lengths, cells = content
        value = self._new([], known)
        items = map([self.decode(item) for item in objects].__getitem__, base64.b64decode(cells))
        value.extend(tuple(itertools.islice(items, length)) for length in array.array("I", base64.b64decode(lengths)))
        return value

    def numpy(self, content: Any, known: bool) -> Any:
        import numpy

        name, shape, items = content
        dtype = numpy.dtype(name)
        if dtype.kind not in "biufcSU":
            raise ValueError("not an array of data")
        values = numpy.array(self.items(items), dtype=dtype)
        return values[0] if shape is None else self._new(values.reshape(shape), known)


_CONTAINERS: dict[str, Callable[[_Decoder, Any, bool], Any]] = {
    "dict": lambda decoder, content, known: decoder.mapping(dict, content, known),
    "Counter": lambda decoder, content, known: decoder.mapping(collections.Counter, content, known),
    "OrderedDict": lambda decoder, content, known: decoder.mapping(collections.OrderedDict, content, known),
    "defaultdict": _Decoder.defaultdict,
    "set": _Decoder.set,
    "deque": _Decoder.deque,
    "rows": _Decoder.rows,
    "numpy": _Decoder.numpy,
    "bytearray": lambda decoder, content, known: decoder._new(bytearray.fromhex(content), known),
    "array": lambda decoder, content, known: decoder._new(array.array(*content), known),
}


def _of_module(name: str, make: Callable[[Any, Any], Any]) -> Callable[[_Decoder, Any], Any]:
    return lambda _, content: make(importlib.import_module(name), content)


_VALUES: dict[str, Callable[[_Decoder, Any], Any]] = {
    "int": lambda _, content: int(content, 16),
    "tuple": lambda decoder, content: tuple(decoder.items(content)),
    "frozenset": lambda decoder, content: frozenset(decoder.items(content)),
    "bytes": lambda _, content: bytes.fromhex(content),
    "memoryview": lambda _, content: memoryview(bytes.fromhex(content)),
    "complex": lambda _, content: complex(*content),
    "range": lambda decoder, content: range(*decoder.items(content)),
    "type": lambda _, content: NAMED_TYPES[content],
    "dict_keys": lambda decoder, content: dict.fromkeys(decoder.items(content)).keys(),
    "dict_values": lambda decoder, content: dict(enumerate(decoder.items(content))).values(),
    "dict_items": lambda decoder, content: dict(decoder.items(content)).items(),
    "namedtuple": lambda decoder, content: _named_tuple(content[0], tuple(content[1]))(*decoder.items(content[2])),
    "enum": lambda _, content: _enumeration(content[0], content[1], tuple(map(tuple, content[2])))[content[3]],
    "Fraction": _of_module("fractions", lambda module, content: module.Fraction(*(int(part, 16) for part in content))),
    "date": _of_module("datetime", lambda module, content: module.date.fromisoformat(content)),
    "datetime": _of_module("datetime", lambda module, content: module.datetime.fromisoformat(content)),
    "time": _of_module("datetime", lambda module, content: module.time.fromisoformat(content)),
    "timedelta": _of_module("datetime", lambda module, content: module.timedelta(*content)),
    "struct_time": _of_module("time", lambda module, content: module.struct_time(content)),
    "PosixPath": _of_module("pathlib", lambda module, content: module.PosixPath(content)),
    "PurePosixPath": _of_module("pathlib", lambda module, content: module.PurePosixPath(content)),
    "Decimal": _of_module("decimal", lambda module, content: module.Decimal(content)),
    "UUID": _of_module("uuid", lambda module, content: module.UUID(content)),
}


@functools.lru_cache(256)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    if not is_named(name) or not is_named(*fields):
        raise ValueError("not the names of a tuple")
    return collections.namedtuple(name, fields)


@functools.lru_cache(256)
def _enumeration(name: str, made_by: str, members: tuple[tuple[str, Any], ...]) -> Any:
    if not is_named(name) or not is_named(*(member for member, _ in members)):
        raise ValueError("not the names of an enumeration")
    if made_by in ("IntEnum", "StrEnum"):
        return getattr(enum, made_by)(name, members)
    return enum.Enum(name, members, type={"int": int, "str": str, "float": float}[made_by])
