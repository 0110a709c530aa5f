"""Remote procedure calls between an examiner and a candidate: requests and answers as JSON lines on one socket.

The examiner sends [operation, arguments, keywords], the candidate answers ["value", ...] or ["raised", ...]. Plain data
goes by value (wire.py); what a call changes in its arguments comes back with its value. Other objects stay where they are
and are named by a number; a proxy stands for them on the other side (proxies.py). While one side waits for an answer, the
other may send requests of its own. The candidate's side is not trusted: all that it can do here is to answer with data and
to use what was handed to it.
"""

from __future__ import annotations

import _thread
import copy
import importlib
import json
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

from cptlab.judging.execution.proxies import OPERATORS, Proxy
from cptlab.judging.execution.remote_errors import decode_error, encode_error
from cptlab.judging.execution.wire import Containers, encode
from cptlab.judging.execution.wire_values import decode, replace_content

_dumps, _loads = json.dumps, json.loads  # a program may replace the module's
OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    **{f.__name__: f for f in (getattr, setattr, len, bool, iter, next, repr, str, int, float)},
    **{name: getattr(operator, name) for name in ("getitem", "setitem", "delitem", "contains", *OPERATORS)},
    "run": lambda coroutine: importlib.import_module("asyncio").run(coroutine),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "enter": lambda manager: type(manager).__enter__(manager),
    "exit": lambda manager, *error: type(manager).__exit__(manager, *error),
}


class ConnectionLost(Exception):
    """The other process has ended (no argument), or its message cannot be used (one argument: why)."""


class Connection:
    """One side of the socket.

    `proxy`: the class that stands for objects of the other side. `operations`: what the other side may request.
    `max_bytes`: how much it may send in all. `on_wait` is called whenever a read of the socket times out (SO_RCVTIMEO).
    """

    def __init__(
        self,
        fd: int,
        proxy: type[Proxy],
        operations: Mapping[str, Callable[..., Any]],
        max_bytes: int,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        self.fd, self.proxy, self.operations, self.bytes_left, self.on_wait = fd, proxy, operations, max_bytes, on_wait
        self.handed: list[Any] = []  # objects handed to the other side, by number
        self.numbers: dict[int, int] = {}
        self.proxies: dict[int, Proxy] = {}  # for objects of the other side: one each, so that `is` tells them apart
        self.buffer = bytearray()
        self.prefetched = 0  # calls requested ahead of the tests that make them
        self.received = 0  # answers to prefetched calls that have come
        self.waiting: dict[int, Any] = {}  # answers that no call has taken yet
        self.next_call: int | None = None  # the prefetched call that comes next
        self.lock = _thread.RLock()  # a program's threads send requests one after the other

    def send(self, message: Any) -> None:
        view = memoryview(_dumps(message).encode() + b"\n")
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError:
            raise ConnectionLost from None

    def receive(self) -> Any:
        """Return the next message. ConnectionLost at the end, after too many bytes, and for what is not JSON."""
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            try:
                chunk = os.read(self.fd, 1 << 16)
            except BlockingIOError:  # the read timed out
                if self.on_wait is not None:
                    self.on_wait()
                continue
            except OSError:
                chunk = b""
            self.bytes_left -= len(chunk)
            if self.bytes_left < 0:
                raise ConnectionLost("its answers are too long")
            if not chunk:
                raise ConnectionLost
            self.buffer += chunk
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        try:
            return _loads(line)  # a line of digits that is too long is refused by Python's own limit
        except (ValueError, RecursionError):
            raise ConnectionLost("its answer cannot be read") from None

    def request(self, operation: str, *arguments: Any, **keywords: Any) -> Any:
        """Have the other side do `operation`. Return its value, or raise the exception that it raised."""
        with self.lock:
            return self._request(operation, arguments, keywords)

    def prefetch(self, calls: list[list[Any]]) -> None:
        """Request calls (packed) at once. Later calls take their answers, as `use_prefetched` says."""
        self.send(["calls", calls, {}])
        self.prefetched = len(calls)

    def use_prefetched(self, number: int) -> None:
        """Let the next call take the answer of prefetched call `number`, if there is one of that number."""
        self.next_call = number if number < self.prefetched else None

    def _receive_prefetched(self, count: int) -> None:
        while self.received < count:
            self.waiting[self.received] = self.receive()
            self.received += 1

    def _request(self, operation: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        containers = Containers()
        if operation == "call" and self.next_call is not None:
            self._receive_prefetched(self.next_call + 1)
            message, self.next_call = self.waiting.pop(self.next_call), None
            for value in arguments:  # numbers their containers as when the call was requested
                self.pack(value, containers)
        else:
            self._receive_prefetched(self.prefetched)  # they come before the answer to anything else
            packed = [self.pack(value, containers) for value in arguments]
            self.send([operation, packed, {key: self.pack(value, containers) for key, value in keywords.items()}])
            message = self.receive()
        while True:
            if not isinstance(message, list) or not message:
                raise ConnectionLost("its answer cannot be read")
            if message[0] == "value" and len(message) == 3:
                return self._change(message[2], containers, message[1])
            if message[0] == "raised" and len(message) == 6:
                self._change(message[5], containers)
                error = decode_error(message[1:5], self.unpack)
                if isinstance(error, StopIteration) and operation != "next":
                    raise RuntimeError("the program raised StopIteration") from error  # would end a loop of the test's
                raise error
            self.send(self.handle(message))
            message = self.receive()

    def _change(self, changes: Any, containers: Containers, value: Any = None) -> Any:
        """Change our arguments as the function changed its copies. Return its value."""
        ours = containers.objects[:]
        try:
            found = self.unpack(value, containers)
            contents = [(int(number), self.unpack(content, containers, known=True)) for number, content in changes]
            for number, content in contents:
                replace_content(ours[number], content)
        except (ValueError, RecursionError, TypeError, LookupError):
            raise ConnectionLost("its answer cannot be read") from None
        return found

    def handle(self, message: Any) -> list[Any]:
        """Do what the other side requests, and return the answer."""
        containers, arguments, named, theirs = Containers(), [], {}, 0
        try:
            name, packed, keywords = message
            function, arguments = self.operations[name], [self.unpack(value, containers) for value in packed]
            named = {key: self.unpack(item, containers) for key, item in keywords.items()}
            theirs = len(containers.objects) if name == "call" else 0
            answer = ["value", self.pack(function(*arguments, **named), containers)]
        except ConnectionLost:
            raise
        except BaseException as error:  # whatever the function raises is its own failure
            answer = encode_error(error, self.pack)
        try:
            changed = theirs > 0 and self._is_changed(message, arguments, named)
            shared = enumerate(containers.objects[:theirs] if changed else [])
            return [*answer, [(number, self.pack(one, containers, known=True)) for number, one in shared]]
        except Exception as error:  # arguments that the function made too deep, too big or too hard to write
            return [*encode_error(error, self.pack), []]

    def _is_changed(self, message: Any, arguments: list[Any], named: dict[str, Any]) -> bool:
        """Whether the arguments of a call would no longer be written as they came; the first is the function."""
        again = Containers()
        now = [self.pack(value, again) for value in arguments[1:]]
        return [now, {key: self.pack(item, again) for key, item in named.items()}] != [message[1][1:], message[2]]

    def pack(self, value: Any, containers: Containers | None = None, known: bool = False) -> Any:
        return encode(value, self._hand_over, containers or Containers(), known)

    def unpack(self, data: Any, containers: Containers | None = None, known: bool = False) -> Any:
        return decode(data, self._resolve, containers or Containers(), known)

    def _hand_over(self, value: Any) -> Any:
        if type(value) is self.proxy:
            return {"yours": object.__getattribute__(value, "_number")}
        number = self.numbers.get(id(value))
        if number is None:
            number = self.numbers[id(value)] = len(self.handed)
            self.handed.append(value)  # and so it lives on, and its id stays its own
        return {"mine": [number, type(value).__name__]}

    async def _awaited(self, coroutine: Proxy) -> Any:
        return self.request("run", coroutine)

    def _resolve(self, kind: str, content: Any) -> Any:
        if kind == "mine":
            number = int(content[0])
            if number not in self.proxies:
                self.proxies[number] = self.proxy(self, number)
            return self._awaited(self.proxies[number]) if content[1] == "coroutine" else self.proxies[number]
        if kind == "yours" and type(content) is int and 0 <= content < len(self.handed):
            return self.handed[content]
        raise ValueError(f"an encoded {kind}")
