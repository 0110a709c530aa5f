"""Proxies: objects that stand for objects of the other process, where everything that is done to them is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

_LIBRARY_PROBES = frozenset(  # attributes by which libraries find out what an object is
    "__array_interface__ __array_struct__ __array__ __index__ __length_hint__ __wrapped__".split()
)


class Requester(Protocol):
    """What a proxy needs of the connection (rpc.py)."""

    def request(self, operation: str, *arguments: Any, **keywords: Any) -> Any: ...


# What a program may ask of objects that were handed to it, by the names of the module `operator`.
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor")
OPERATORS = (*_COMPARISONS, *_BINARY, "neg", "pos", "abs", "invert")


class Proxy:
    """Stands for an object of the other process. `number` names it there."""

    __slots__ = ("__weakref__", "_connection", "_number")  # so that __dict__ is asked of the object

    def __init__(self, connection: Requester, number: int) -> None:
        object.__setattr__(self, "_connection", connection)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._connection.request("call", self, *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name in _LIBRARY_PROBES:
            raise AttributeError(name)
        return self._connection.request("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._connection.request("setattr", self, name, value)

    def __iter__(self) -> Any:
        steps = self._connection.request("iter", self)
        while True:
            try:
                item = self._connection.request("next", steps) if isinstance(steps, Proxy) else next(steps)
            except StopIteration:
                return
            yield item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and other._number == self._number

    def __hash__(self) -> int:
        return hash((Proxy, self._number))

    def __copy__(self) -> Any:
        return self._connection.request("copy", self)

    def __deepcopy__(self, _: Any) -> Any:
        return self._connection.request("deepcopy", self)

    def __enter__(self) -> Any:
        return self._connection.request("enter", self)

    def __exit__(self, *error: Any) -> Any:
        return self._connection.request("exit", self, None, None, None)


class CandidateObject(Proxy):
    """In the examiner, an object of the candidate. It is not asked to compare or to calculate: it could always agree."""

    __slots__ = ()


class ExaminerObject(Proxy):
    """In the candidate, an object that the examiner handed over."""

    __slots__ = ()
    __hash__ = Proxy.__hash__  # __eq__ is set below


def _forward(kind: type[Proxy], operations: tuple[str, ...]) -> None:
    def method(name: str) -> Callable[..., Any]:
        return lambda self, *arguments: self._connection.request(name, self, *arguments)

    for name in operations:
        setattr(kind, f"__{name.strip('_')}__", method(name))


def _reflect(kind: type[Proxy], operations: tuple[str, ...]) -> None:
    def method(name: str) -> Callable[..., Any]:
        return lambda self, other: self._connection.request(name, other, self)

    for name in operations:
        setattr(kind, f"__r{name.strip('_')}__", method(name))


_forward(Proxy, ("len", "bool", "next", "repr", "str", "int", "float", "getitem"))
_forward(ExaminerObject, ("setitem", "delitem", "contains"))
_forward(ExaminerObject, OPERATORS)
_reflect(ExaminerObject, _BINARY)
setattr(  # noqa: B010 (and not that of the class)
    CandidateObject, "__doc__", property(lambda self: self._connection.request("getattr", self, "__doc__"))
)
