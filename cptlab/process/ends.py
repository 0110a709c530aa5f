"""How a command ends: with one sentence on stderr, and with the exit code that shells and batch systems expect.

0 is success, 2 a user's mistake, 130 Ctrl-C (SIGINT) and 143 SIGTERM (128 + the signal's number), 1 anything else.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from cptlab.errors import UserError
from cptlab.process.streams import protect_streams

MISTAKE, FAILURE = 2, 1
GRACE_SECONDS = 8.0  # for the loggers and worker processes of a command that was told to stop; docker kills after 10
AGAIN_SECONDS = 0.05
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"  # which a progress bar hides


class Stopped(BaseException):
    """The process was told to stop. No `Exception`, so that nothing takes it for an error that it can handle."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def command(kept: Callable[[], str] = str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Decorate the `main(arguments)` of a command: it returns an exit code whatever happens, and prints at most a sentence.

    `kept` says what of the work is kept when the command is stopped, and how to go on. A UserError, a full disk and a
    file that may not be written are a sentence; our own mistakes keep their traceback, and so does everything where
    CPTLAB_TRACEBACK is set.
    """

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def ending_well(arguments: Sequence[str] | None = None) -> int:
            protect_streams()
            with _signals_handled(kept) as stop:
                try:
                    return main(arguments)
                except Stopped as stopped:
                    stop.say(stopped.number)
                    return 128 + stopped.number
                except KeyboardInterrupt:
                    stop.say(signal.SIGINT)
                    return 128 + signal.SIGINT
                except Exception as error:
                    return code_of(error)

        return ending_well

    return decorate


def code_of(error: Exception) -> int:
    """Print the sentence of an error, and return the exit code. Raises the error if it is our own mistake."""
    sentence = sentence_of(error)
    if sentence is None or os.environ.get("CPTLAB_TRACEBACK"):
        raise error
    print(f"error: {sentence}", file=sys.stderr)
    return MISTAKE if isinstance(error, UserError) else FAILURE


def sentence_of(error: BaseException) -> str | None:
    """Return what to tell the user of an error that is not our mistake: the user's, a disk's or a GPU's. None for any other."""
    if isinstance(error, UserError):
        return str(error)
    again = "What is finished is kept: once that is mended, the same command goes on."
    if isinstance(error, OSError) and error.errno in (*_FULL, *_FORBIDDEN):
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}. {again}"
    # torch's, by name, as most commands need no torch; CUDA says so itself where another program has all of the memory
    if type(error).__name__ == "OutOfMemoryError" or str(error).startswith("CUDA error: out of memory"):
        return (
            f"The memory of the GPU does not suffice ({str(error).splitlines()[0].partition('. ')[0]}). Set decoding.token_budget for sampling, "
            "or a smaller compute.token_budget, compute.checkpointing=true or fewer pairs a step (data.loader.batch_size) for "
            "training; backbone.dtype=bfloat16 and backbone.quantization=4bit make the weights small. What is finished is "
            "kept."
        )
    earlier = error.__cause__ or error.__context__
    while earlier is not None:  # torch says something else of a full disk
        if isinstance(earlier, OSError) and earlier.errno in _FULL:
            return f"{earlier.strerror}. {again}"
        earlier = earlier.__cause__ or earlier.__context__
    return None


def exit_with(code: int) -> NoReturn:
    """End the process. A signal that comes while the interpreter winds up ends it at once, without a traceback.

    After a signal, what libraries do at the end of the interpreter is left out: it may take long.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if code > 128:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


class _Stop:
    """What the first signal and the second one do."""

    def __init__(self, kept: Callable[[], str]) -> None:
        self.kept = kept
        self.number: int | None = None
        self.said = False
        self.watch: threading.Timer | None = None  # in case that cleaning up hangs, or a library ate `Stopped`
        self.again: threading.Timer | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:  # the user is impatient
            self._leave()
        self.number = number
        if self.watch is None:
            self.watch = _timer(GRACE_SECONDS, self._leave)
        raise Stopped(number)

    def raise_again(self) -> None:
        """Let the signal come once more: it came in a `__del__` or a callback, from which no exception gets out."""
        number, self.number = self.number or signal.SIGINT, None
        self.again = _timer(AGAIN_SECONDS, lambda: os.kill(os.getpid(), number))

    def say(self, number: int) -> None:
        """Print the sentence, once."""
        if not self.said:
            self.said = True
            print(self._sentence(number), file=sys.stderr, flush=True)

    def _sentence(self, number: int) -> str:
        how = "Interrupted" if number == signal.SIGINT else f"Stopped by {signal.Signals(number).name}"
        return f"{how}. {self.kept()}".strip()

    def _leave(self) -> NoReturn:
        """End the process now. Files appear whole or not at all, and worker processes end with this one."""
        number = self.number or signal.SIGINT
        text = (_SHOW_CURSOR if os.isatty(2) else "") + ("" if self.said else self._sentence(number) + "\n")
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))  # stderr itself may be in the middle of a line
        os._exit(128 + number)


def _timer(seconds: float, act: Callable[[], Any]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer


@contextlib.contextmanager
def _signals_handled(kept: Callable[[], str]) -> Iterator[Any]:
    """Within the block, a signal that stops a process raises `Stopped`; a second one ends the process at once.

    A signal that the process was started to ignore stays ignored. Inside another command, that one's handling holds.
    """
    stop, before, report = _Stop(kept), {}, sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if isinstance(lost.exc_value, Stopped):
            stop.raise_again()
        else:
            report(lost)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, _Stop):
                outer.kept = kept
                stop = outer
            elif handler is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop.handle)
    if before:
        sys.unraisablehook = unraisable
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            sys.unraisablehook = report
            for timer in filter(None, (stop.watch, stop.again)):
                timer.cancel()
