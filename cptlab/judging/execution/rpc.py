"""How an examiner's process uses what a program defines in another process: questions and plain answers on one socket.

The examiner asks [function, arguments, keywords], the candidate answers ["value", ...] or ["raised", ...]. Plain values
travel by value; other objects stay where they are and are named by a number: in the examiner they are `Remote`, in the
candidate `Borrowed` (functions and stand-ins that a test hands over). While one side waits, the other may ask back. The
candidate's side is not trusted: all that it can do here is to give plain answers and to use what was handed to it.
"""

from __future__ import annotations

import _thread
import json
import operator
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from cptlab.judging.execution.wire import decode, encode

_dumps, _loads = json.dumps, json.loads  # a program may replace the module's
_MAX_ARGUMENTS = 10_000  # characters, of an exception's
_MUTABLE = (list, dict, set, bytearray)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    **{f.__name__: f for f in (getattr, setattr, len, bool, iter, next, str, int, float)},
    **{name: getattr(operator, name) for name in ("getitem", "setitem", "delitem", "contains")},
    "enter": lambda manager: type(manager).__enter__(manager),
    "exit": lambda manager, *error: type(manager).__exit__(manager, *error),
}


class Lost(Exception):
    """The other process has ended (no argument), or says what cannot be understood (why)."""


class Channel:
    """One side of the socket: what the other side may ask for (`functions`), and at most how many bytes it may say.

    `waiting` is called whenever a read of the socket, which may have a time limit (SO_RCVTIMEO), has come to nothing.
    """

    def __init__(
        self,
        fd: int,
        stand_in: type[_StandIn],
        functions: Mapping[str, Callable[..., Any]],
        max_bytes: int,
        waiting: Callable[[], None] | None = None,
    ) -> None:
        self.waiting = waiting
        self.fd, self.stand_in, self.functions, self.left = fd, stand_in, functions, max_bytes
        self.own: list[Any] = []  # what was handed out, by number
        self.numbers: dict[int, int] = {}
        self.buffer = bytearray()
        self.ahead = self.received = 0  # calls asked for ahead, and how many of their answers have come
        self.early: dict[int, Any] = {}  # answers that came before their turn
        self.current: int | None = None  # the one in turn
        self.turn = _thread.RLock()  # a program's threads ask one after the other

    def send(self, message: Any) -> None:
        view = memoryview(_dumps(message).encode() + b"\n")
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError:
            raise Lost from None

    def receive(self) -> Any:
        """The next message; `Lost` at the end, after too much, or for what is not JSON."""
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            try:
                chunk = os.read(self.fd, 1 << 16)
            except BlockingIOError:  # the socket's own patience is at its end
                if self.waiting is not None:
                    self.waiting()
                continue
            except OSError:
                chunk = b""
            self.left -= len(chunk)
            if self.left < 0:
                raise Lost("its answers are too long")
            if not chunk:
                raise Lost
            self.buffer += chunk
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        try:
            return _loads(line)  # a line of digits that is too long is refused by Python's own limit
        except (ValueError, RecursionError):
            raise Lost("its answer cannot be read") from None

    def ask(self, function: str, *arguments: Any, **keywords: Any) -> Any:
        """Have the other side do `function`; its value, or the exception that it raised."""
        with self.turn:
            return self._ask(function, arguments, keywords)

    def ask_ahead(self, calls: list[list[Any]]) -> None:
        """Ask for calls (packed) whose answers are then taken in their order; `turn_to` says which is next."""
        self.send(["calls", calls, {}])
        self.ahead = len(calls)

    def turn_to(self, number: int) -> None:
        """The next call asked for is the one that was asked for ahead as `number`, if there is one of that number."""
        self.current = number if number < self.ahead else None

    def _receive_ahead(self, count: int) -> None:
        while self.received < count:
            self.early[self.received] = self.receive()
            self.received += 1

    def _ask(self, function: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if function == "call" and self.current is not None:
            self._receive_ahead(self.current + 1)
            message, self.current = self.early.pop(self.current), None
        else:
            self._receive_ahead(self.ahead)  # they come before the answer to anything else
            packed = [self.pack(value) for value in arguments]
            self.send([function, packed, {key: self.pack(value) for key, value in keywords.items()}])
            message = self.receive()
        while True:
            if not isinstance(message, list) or not message:
                raise Lost("its answer cannot be read")
            if message[0] == "value" and len(message) == 3:
                try:
                    return self._settle(message, arguments)
                except (ValueError, RecursionError, TypeError, IndexError, KeyError):
                    raise Lost("its answer cannot be read") from None
            if message[0] == "raised" and len(message) == 4:
                error = exception(*message[1:])
                if isinstance(error, StopIteration) and function != "next":
                    raise RuntimeError("the program raised StopIteration") from error  # would end a loop of the test's
                raise error
            self.send(self.answer(message))
            message = self.receive()

    def _settle(self, message: list[Any], arguments: tuple[Any, ...]) -> Any:
        """The value of an answer, after what the function did to its arguments was done to ours."""
        for index, encoded in message[2]:
            mine, changed = arguments[index], self.unpack(encoded)
            if type(mine) is not type(changed) or not isinstance(mine, _MUTABLE):
                continue
            if isinstance(mine, (list, bytearray)):
                mine[:] = changed
            else:
                mine.clear()
                mine.update(changed)
        return self.unpack(message[1])

    def answer(self, message: Any) -> list[Any]:
        """Do what the other side asks."""
        try:
            name, packed, keywords = message
            function, arguments = self.functions[name], [self.unpack(value) for value in packed]
            value = function(*arguments, **{key: self.unpack(item) for key, item in keywords.items()})
            changed = []
            if name == "call":
                again = [(i, self.pack(value)) for i, value in enumerate(arguments) if isinstance(value, _MUTABLE)]
                changed = [(i, item) for i, item in again if item != packed[i]]
            return ["value", self.pack(value), changed]
        except Lost:
            raise
        except BaseException as error:  # whatever the function raises is its own failure
            return failure(error)

    def pack(self, value: Any) -> Any:
        return encode(value, self._keep)

    def unpack(self, data: Any) -> Any:
        return decode(data, self._resolve)

    def _keep(self, value: Any) -> Any:
        if isinstance(value, _StandIn) and type(value) is self.stand_in:
            return {"yours": object.__getattribute__(value, "_number")}
        number = self.numbers.get(id(value))
        if number is None:
            number = self.numbers[id(value)] = len(self.own)
            self.own.append(value)  # and so it lives on, and its id stays its own
        return {"mine": [number, type(value).__name__]}

    def _resolve(self, kind: str, content: Any) -> Any:
        if kind == "yours" and type(content) is int and 0 <= content < len(self.own):
            return self.own[content]
        if kind == "mine":
            return self.stand_in(self, int(content[0]), str(content[1])[:80])
        raise ValueError(f"an encoded {kind}")


def failure(error: BaseException) -> list[Any]:
    """An exception as data: ["raised", names of its classes, its text, its arguments]."""
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


def exception(names: Any, text: Any, arguments: Any) -> BaseException:
    """The nearest exception of Python's own to what the other side raised; its attribute `candidate` is its name."""
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    text, kind = str(text), Exception
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
    except Exception:
        shown = type(kind.__name__, (kind,), {"__str__": lambda self: text, "__init__": lambda self: None})
        error = shown.__new__(shown)
    error.candidate = f"{(names or ['Exception'])[0].removeprefix('builtins.')[:80]}: {text}"
    return error


class _StandIn:
    """Stands for an object of the other process: whatever is done to it is done there."""

    def __init__(self, channel: Channel, number: int, kind: str) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_kind", kind)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._channel.ask("call", self, *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name in (
            "__array_interface__",
            "__array_struct__",
            "__array__",
            "__index__",
            "__length_hint__",
            "__wrapped__",
        ):
            raise AttributeError(name)  # what libraries look for to see what a thing is
        return self._channel.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._channel.ask("setattr", self, name, value)

    def __iter__(self) -> Any:
        steps = self._channel.ask("iter", self)
        while True:
            try:
                item = self._channel.ask("next", steps) if isinstance(steps, _StandIn) else next(steps)
            except StopIteration:
                return
            yield item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StandIn) and other._number == self._number

    def __hash__(self) -> int:
        return hash((_StandIn, self._number))

    def __repr__(self) -> str:
        return f"<{self._kind} object of the program>"

    def __enter__(self) -> Any:
        return self._channel.ask("enter", self)

    def __exit__(self, *error: Any) -> Any:
        return self._channel.ask("exit", self, None, None, None)


def _forward(kind: type, functions: tuple[str, ...]) -> None:
    for name in functions:
        setattr(kind, f"__{name}__", lambda self, *arguments, name=name: self._channel.ask(name, self, *arguments))


class Remote(_StandIn):
    """An object of the candidate, in the examiner. It is not asked to compare or to calculate: it could always agree."""


class Borrowed(_StandIn):
    """An object of the examiner, in the candidate."""


_forward(_StandIn, ("len", "bool", "next", "str", "int", "float", "getitem"))
_forward(Borrowed, ("setitem", "delitem", "contains"))
