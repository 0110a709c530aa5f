"""Encode Python values as JSON that keeps their types apart: the only form in which values leave a candidate.

None, bool, int, float, str and list stand for themselves (ints beyond 63 bits as {"int": hex}); everything else is an
object with one key, its kind. Subclasses count as their built-in base, except for named tuples and enumerations between
examiner and candidate. `wire_values.py` reads it.
"""

from __future__ import annotations

import array
import base64
import collections
import enum
import itertools
import keyword
import sys
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH, MAX_ITEMS = 100, 5_000_000
_LONG = 10_000  # items of a list
_TYPES = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    dict,
    set,
    frozenset,
    range,
    type(None),
    object,
)
_TYPE_NAMES = {kind: kind.__name__ for kind in _TYPES}
NAMED_TYPES = {kind.__name__: kind for kind in _TYPES}
_SCALARS = {  # (module, class) -> how it is written
    ("decimal", "Decimal"): str,
    ("fractions", "Fraction"): lambda value: [hex(value.numerator), hex(value.denominator)],
    ("datetime", "date"): lambda value: value.isoformat(),
    ("datetime", "datetime"): lambda value: value.isoformat(),
    ("datetime", "time"): lambda value: value.isoformat(),
    ("datetime", "timedelta"): lambda value: [value.days, value.seconds, value.microseconds],
    ("uuid", "UUID"): lambda value: value.hex,
    ("pathlib", "PosixPath"): str,
    ("pathlib", "PurePosixPath"): str,
    ("array", "array"): lambda value: [value.typecode, value.tolist()],
    ("time", "struct_time"): list,
}

_VIEWS = {type({}.keys()): "dict_keys", type({}.values()): "dict_values", type({}.items()): "dict_items"}
HandOver = Callable[[Any], Any]


class Containers:
    """The mutable containers of a message, in the order in which they are written: both processes number them alike.

    A container that comes again is written as its number. So both sides keep what is one object and what are two, and one
    can tell the other which of its arguments a function changed.
    """

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}

    def add(self, container: Any) -> None:
        self.numbers[id(container)] = len(self.objects)
        self.objects.append(container)  # and so it lives on, and its id stays its own


def encode(
    value: Any, hand_over: HandOver | None = None, containers: Containers | None = None, known: bool = False
) -> Any:
    """Encode `value` as JSON data. What is no data becomes {"other": type name}, or whatever `hand_over` makes of it.

    With `hand_over`, a few more types are encoded as themselves (Decimal, datetime, Counter, numpy arrays, ...). With
    `containers`, mutable containers are numbered; if `value` itself is `known` there, its content is what is asked for.
    ValueError where the value is deeper than 100 or has more than five million items.
    """
    return _Encoder(hand_over, containers).encode(value, 0, known)


class _Encoder:
    def __init__(self, hand_over: HandOver | None, containers: Containers | None) -> None:
        self.hand_over, self.containers, self.budget = hand_over, containers, MAX_ITEMS

    def encode(self, value: Any, depth: int, known: bool = False) -> Any:
        self.budget -= 1
        if depth > MAX_DEPTH or self.budget < 0:
            raise ValueError("the returned value is too deep, too big or cyclic")
        kind = type(value)
        if value is None or kind is bool:
            return value
        hand_over = self.hand_over
        if hand_over is not None:
            if kind is int or kind is str or kind is float:
                pass
            elif self.containers is not None and not known and _is_container(value, kind):
                number = self.containers.numbers.get(id(value))
                if number is not None:
                    return {"same": number}
                self.containers.add(value)
            special = self._special(value, kind, depth)
            if special is not None:
                return special
        if issubclass(kind, int):
            number = int.__add__(value, 0)
            return number if -(1 << 63) <= number < 1 << 63 else {"int": hex(number)}
        if issubclass(kind, float):
            return float.__add__(value, 0.0)
        if issubclass(kind, str):
            return str.__str__(value)
        if kind is list and hand_over is not None and len(value) > _LONG:
            rows = _encode_rows(value)
            if rows is not None:
                return rows
        if issubclass(kind, list):
            return self._items(list.__iter__(value), depth)
        if issubclass(kind, tuple):
            return {"tuple": self._items(tuple.__iter__(value), depth)}
        if issubclass(kind, dict):
            return {"dict": self._pairs(value, depth)}
        if issubclass(kind, (set, frozenset)):
            name = "frozenset" if hand_over is not None and kind is frozenset else "set"
            return {
                name: self._items(set.__iter__(value) if issubclass(kind, set) else frozenset.__iter__(value), depth)
            }
        if issubclass(kind, bytes):
            return {"bytes": bytes.hex(value)}
        if issubclass(kind, complex):
            return {"complex": [value.real, value.imag]}
        if hand_over is not None:
            return hand_over(value)
        numpy = sys.modules.get("numpy")
        if numpy is not None and issubclass(kind, (numpy.bool_, numpy.number)):
            return self.encode(value.item(), depth + 1)
        return {"other": kind.__name__}

    def _items(self, items: Iterable[Any], depth: int) -> list[Any]:
        return [self.encode(item, depth + 1) for item in items]

    def _pairs(self, value: Any, depth: int) -> list[Any]:
        ordered = issubclass(type(value), collections.OrderedDict)  # its order is not that of the dict below it
        items = collections.OrderedDict.items(value) if ordered else dict.items(value)
        return [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in items]

    def _special(self, value: Any, kind: Any, depth: int) -> Any:
        """Encode a type that only an examiner gets as itself; None for other types."""
        if kind in (int, float, str, list, tuple, dict, set):
            return None
        if kind in (collections.Counter, collections.OrderedDict):
            return {kind.__name__: self._pairs(value, depth)}
        if kind is collections.defaultdict:
            return {"defaultdict": [self.encode(value.default_factory, depth + 1), self._pairs(value, depth)]}
        if kind is collections.deque:
            return {"deque": [value.maxlen, self._items(value, depth)]}
        if kind is range:
            return {"range": [self.encode(number, depth + 1) for number in (value.start, value.stop, value.step)]}
        if kind is bytearray:
            return {"bytearray": value.hex()}
        if kind is memoryview and value.format == "B":
            return {"memoryview": value.tobytes().hex()}
        if kind in _VIEWS:
            return {_VIEWS[kind]: self._items(value, depth)}
        written = _SCALARS.get((kind.__module__, kind.__name__))
        if (
            written is not None
            and kind is getattr(sys.modules.get(kind.__module__), kind.__name__, None)
            and _has_fixed_zone(value)
        ):
            return {kind.__name__: written(value)}
        if kind is type and value in _TYPE_NAMES:
            return {"type": _TYPE_NAMES[value]}
        fields = getattr(kind, "_fields", ("_",)) if issubclass(kind, tuple) else ("_",)
        if is_named(kind.__name__) and is_named(*fields) and len(fields) == tuple.__len__(value):
            return {"namedtuple": [kind.__name__, list(fields), self._items(tuple.__iter__(value), depth)]}
        if type(kind) is enum.EnumMeta:
            return _encode_member(value, kind)
        numpy = sys.modules.get("numpy")
        if numpy is not None and issubclass(kind, (numpy.ndarray, numpy.generic)) and value.dtype.kind in "biufcSU":
            items = self._items(numpy.asarray(value).ravel().tolist(), depth)
            shape = list(value.shape) if issubclass(kind, numpy.ndarray) else None
            return {"numpy": [value.dtype.str, shape, items]}
        return None


def _is_container(value: Any, kind: type) -> bool:
    if issubclass(kind, (list, dict, set)) or kind in (bytearray, collections.deque, array.array):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.ndarray) and value.dtype.kind in "biufcSU"


def is_named(*names: Any) -> bool:
    """Whether classes can be made by these names, as `collections.namedtuple` and `enum.Enum` make them."""
    return (
        len(names) <= 256
        and len(set(names)) == len(names)
        and all(
            type(name) is str and name.isidentifier() and not name.startswith("_") and not keyword.iskeyword(name)
            for name in names
        )
    )


def _encode_member(value: Any, kind: Any) -> Any:
    """Encode a member of an enumeration of data (IntEnum, StrEnum, `class E(str, Enum)`) with its class; None for others."""
    found = dict(kind.__members__)
    base: Any = next((base for base in (int, str, float) if issubclass(kind, base)), None)
    members = [(name, member._value_) for name, member in found.items()]
    if base is None or issubclass(kind, enum.Flag) or not is_named(kind.__name__) or not is_named(*found):
        return None
    if any(type(content) is not base or found[name] != content for name, content in members):
        return None
    made_by = next(
        (name for name in ("IntEnum", "StrEnum") if issubclass(kind, getattr(enum, name, ()))), base.__name__
    )
    return {"enum": [kind.__name__, made_by, members, value._name_]}


def _encode_rows(value: list) -> Any:
    """Encode a long list of tuples that share few objects: each object once, and for each row their numbers.

    None for other lists. Some canonical solutions return gigabytes of such tuples, which would take minutes item by item.
    """
    if set(map(type, value)) != {tuple}:
        return None
    objects = {id(item): item for item in itertools.chain.from_iterable(itertools.islice(value, _LONG))}
    numbers = {key: number for number, key in enumerate(objects)}
    if len(numbers) > 256 or not set(map(type, objects.values())) <= {bool, int, float, str, type(None)}:
        return None
    try:
        cells = bytes(map(numbers.__getitem__, map(id, itertools.chain.from_iterable(value))))
    except KeyError:
        return None
    lengths = array.array("I", map(len, value)).tobytes()
    texts = [base64.b64encode(part).decode() for part in (lengths, cells)]
    return {"rows": [[encode(item) for item in objects.values()], *texts]}


def _has_fixed_zone(value: Any) -> bool:
    """Whether a date or time has no time zone, or one at a fixed distance from UTC."""
    zone = getattr(value, "tzinfo", None)
    return zone is None or type(zone) is sys.modules["datetime"].timezone
