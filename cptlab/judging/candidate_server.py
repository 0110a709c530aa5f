"""A small interpreter that forks for every judged program. Run by sandbox.py in a fresh interpreter.

Nothing here is secret from the program: the expected values never enter this process or the program's. The tests of a
'check' task go from a file, which the program cannot see, straight into the examiner's process.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import random
import resource
import signal
import socket
import stat
import sys
import types
from collections.abc import Callable
from typing import Any

from cptlab.judging import examiner, jail, mirror, seccomp
from cptlab.judging.channel import FUNCTIONS, Borrowed, Channel, Lost
from cptlab.judging.forkserver import Ending, Helper, run_forked, serve, tidy, write_all
from cptlab.judging.plain import encode

# What programs import most, so that the children need not.
_PRELOADED = "bisect collections copy functools heapq itertools math operator random re string time typing".split()
_FILE = "program.py"  # the name in tracebacks; there is no such file
_REPORT = 3  # the descriptor of the pipe to the server, or of the socket to the examiner
_dumps, _loads = json.dumps, json.loads  # a program may replace the module's


class Confinement:
    """What this server can do to hold a program in: the best of what the system offers, up to `strongest`."""

    def __init__(self, scratch: str, strongest: str, limits: dict[str, Any]) -> None:
        self.root: str | None = None
        self.rules: int | None = None
        self.folder = os.path.join(scratch, str(os.getpid()))
        os.mkdir(self.folder, 0o700)
        self.filtered = strongest != "limits" and seccomp.works()
        self.level = "seccomp" if self.filtered else "limits"
        if self.filtered and strongest == "namespaces":

            def afterwards() -> None:
                with contextlib.suppress(OSError):  # the main process was quicker
                    os.rmdir(self.folder)
                tidy(scratch)

            if jail.enter(self.folder, limits["scratch_mb"], limits["scratch_files"], afterwards):
                self.level, self.root = "namespaces", self.folder
        if self.filtered and self.root is None and strongest in ("namespaces", "landlock"):
            self.rules = jail.landlock_rules(self.folder)
            self.level = "landlock" if self.rules is not None else self.level
        self.user_tasks = 0 if self.filtered else _tasks_of_user()

    def begin(self) -> None:
        """The part of `enter` that needs a descriptor of the server's."""
        if not seccomp.no_new_privileges() or (self.rules is not None and not jail.landlock(self.rules)):
            os._exit(71)

    def enter(self) -> None:
        """Hold this process in, for good. Its working directory becomes the scratch directory."""
        if self.root is not None:
            os.chroot(self.root)
        scratch = jail.SCRATCH if self.root is not None else self.folder
        os.chdir(scratch)
        os.environ["TMPDIR"] = os.environ["HOME"] = scratch
        if "tempfile" in sys.modules:
            sys.modules["tempfile"].tempdir = None
        seccomp.drop_capabilities(all_of_them=self.root is not None)
        if self.filtered and not seccomp.confine():
            os._exit(71)

    def clean(self) -> None:
        """Empty the scratch directory."""
        _empty(self.folder if self.root is None else self.root + jail.SCRATCH)


def main(arguments: dict[str, Any]) -> None:
    """Serve requests {source, entry_point, inputs, limits, tests}; answers {runs: [{lines, cause, code, stdout}]}.

    With `tests` (a file from `examiner.compile_tests`) there is one run, reported by the examiner. With an entry point
    there is one run for all inputs (JSON texts of argument lists), else one for each (stdin texts), up to the first that
    had to be ended; `lines` are then what the child reported, see `_run_calls` and `_run_script`.
    """
    for name in _PRELOADED:
        importlib.import_module(name)
    confinement = Confinement(arguments["scratch"], arguments["strongest"], arguments["limits"])

    judge: _Examiner | None = None

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal judge
        if request["tests"] is not None:
            if judge is not None and request["alone"]:
                judge = judge.end()
            judge = judge or _Examiner(confinement, request["limits"])
            for module in request["imports"]:
                judge.prepare(module)
            run = _run_tests(request, judge, confinement)
            alive = judge.alive()
            if not alive:
                run["cause"] = "lost"
            if not alive or request["alone"] or run["cause"] not in ("exit", "signal"):
                judge = judge.end()
            return {"runs": [run]}
        if request["entry_point"] is not None:
            groups = [request["inputs"]]
        else:
            groups = [[text] for text in request["inputs"]]
        runs = []
        for group in groups:
            runs.append(_run(request, group, confinement))
            if runs[-1]["cause"] != "exit":
                break
        return {"runs": runs}

    serve(answer, {"level": confinement.level, "protections": _probe(confinement, arguments)})
    if confinement.root is None:
        os.rmdir(confinement.folder)


class _Examiner:
    """An examiner's process, confined as a program is, to which programs are given one after the other."""

    def __init__(self, confinement: Confinement, limits: dict[str, Any]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                fd = theirs.detach()
                _enter((), fd, {**limits, "cpu_seconds": 1e8}, 1, confinement)
                examiner.serve(socket.socket(fileno=_REPORT))
            finally:
                os._exit(70)
        theirs.close()
        self.imported: set[str] = set()

    def prepare(self, module: str) -> None:
        """Import what tests need before their time begins."""
        if module not in self.imported:
            self.imported.add(module)
            self.control.send(module.encode())
            self.control.recv(64)

    def alive(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG)[0] == 0

    def end(self) -> None:
        self.control.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _run_tests(request: dict[str, Any], judge: _Examiner, confinement: Confinement) -> dict[str, Any]:
    limits, wanted = request["limits"], request["steps"] + 1

    def start(channel: int, report: int) -> None:
        tests = os.open(request["tests"], os.O_RDONLY)
        try:
            socket.send_fds(judge.control, [str(limits["answers_mb"] << 20).encode()], [tests, channel, report])
        except OSError:
            pass  # it has died, and its report is at its end
        os.close(tests)

    def child(fd: int) -> None:
        _enter((), fd, limits, wanted, confinement)
        _run_checked(request["source"], request["mirrored"])

    ending = run_forked(child, **_budget(limits, wanted), examiner=Helper(judge.pid, start))
    confinement.clean()
    lines = _lines(ending, wanted)
    return {"lines": lines, "cause": ending.cause, "code": ending.code, "stdout": ""}


def _budget(limits: dict[str, Any], steps: int) -> dict[str, Any]:
    return {"cpu_seconds": limits["cpu_seconds"], "wall_seconds": limits["wall_seconds"],
            "max_bytes": limits["output_mb"] << 20, "steps": steps}  # fmt: skip


def _lines(ending: Ending, wanted: int) -> list[str]:
    return ending.data.decode("utf-8", "replace").split("\n", wanted)[:-1]


def _run(request: dict[str, Any], inputs: list[str], confinement: Confinement) -> dict[str, Any]:
    limits, wanted = request["limits"], len(inputs) + 1
    is_script = request["entry_point"] is None
    given = printed = -1
    if is_script:
        given, printed = os.memfd_create("stdin"), os.memfd_create("stdout")
        write_all(given, inputs[0].encode("utf-8", "surrogatepass"))
        os.lseek(given, 0, os.SEEK_SET)

    def child(fd: int) -> None:
        _enter((given, printed) if is_script else (), fd, limits, wanted, confinement)
        if is_script:
            _run_script(request["source"])
        else:
            _run_calls(request["source"], request["entry_point"], inputs)

    ending = run_forked(child, **_budget(limits, wanted))
    stdout = ""
    if is_script:
        with open(printed, "rb") as file:
            file.seek(0)
            stdout = file.read(limits["output_mb"] << 20).decode("utf-8", "replace")
        os.close(given)
    confinement.clean()
    return {"lines": _lines(ending, wanted), "cause": ending.cause, "code": ending.code, "stdout": stdout}


def _enter(standard: tuple[int, ...], fd: int, limits: dict[str, Any], steps: int, confinement: Confinement) -> None:
    """Make this process the candidate's (or the examiner's): descriptors 0 to 3, scratch directory, limits."""
    confinement.begin()
    silence = os.open(os.devnull, os.O_RDWR)
    channel = os.dup(fd)  # out of the way of 0 to 3
    for target in (0, 1, 2):
        os.dup2(standard[target] if target < len(standard) else silence, target)
    os.dup2(channel, _REPORT, inheritable=False)
    os.closerange(_REPORT + 1, 1 << 20)
    atexit._clear()
    sys.argv = [_FILE]
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(open(2, "wb", closefd=False), encoding="utf-8", write_through=True)
    sys.stdin.mode, sys.stdout.mode, sys.stderr.mode = "r", "w", "w"
    random.seed(0)  # forking gave it a new one
    memory, size = limits["memory_mb"] << 20, limits["output_mb"] << 20
    cpu = int(limits["cpu_seconds"] * (steps + 1)) + 2  # the server's clock decides; this is its backstop
    bounds = [
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ]
    if confinement.user_tasks:
        bounds.append((resource.RLIMIT_NPROC, confinement.user_tasks + limits["processes"]))
    for kind, bound in bounds:
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))
    confinement.enter()


def _say(*words: Any) -> None:
    write_all(_REPORT, _dumps(words).encode() + b"\n")


def _module(source: str) -> types.ModuleType | None:
    """The program as a module, loaded; None after it was reported why not."""
    code = _compiled(source)
    module = types.ModuleType("program")
    module.__file__ = _FILE
    sys.modules["program"] = module
    return module if _guarded(lambda: exec(code, module.__dict__)) else None


def _run_calls(source: str, entry_point: str, inputs: list[str]) -> None:
    """Reports ["loaded"], then for each input ["value", encoded] or a failure; a failure to load ends it."""
    module = _module(source)
    if module is None:
        return
    function = module.__dict__.get(entry_point)
    if function is None and isinstance(module.__dict__.get("Solution"), type):
        made: list[Any] = []
        if not _guarded(lambda: made.append(getattr(module.Solution(), entry_point, None))):
            return
        function = made[0]
    if not callable(function):
        _say("raised", f"there is no function {entry_point}")
        return
    _say("loaded")
    for text in inputs:
        arguments = _loads(text)
        result: list[str] = []
        if _guarded(lambda: result.append(_dumps(encode(function(*arguments))))):  # noqa: B023
            write_all(_REPORT, b'["value", ' + result[0].encode() + b"]\n")


def _run_checked(source: str, mirrored: bool) -> None:
    """Says ["loaded"] or why not to the examiner, then does what it asks for as long as it asks."""
    module = _module(source)
    if module is None:
        return

    def named(name: str) -> Any:
        if name not in module.__dict__:
            raise NameError(name)
        return module.__dict__[name]

    offered = FUNCTIONS | {"global": named} | (mirror.functions(module) if mirrored else {})
    channel = Channel(_REPORT, Borrowed, offered, 1 << 40)
    channel.send(["loaded"])
    if mirrored:
        sys.stdout = _Output(channel)
    try:
        while True:
            channel.send(channel.answer(channel.receive()))
    except Lost:
        pass


class _Output(io.TextIOBase):
    """What the program prints goes to the examiner's stdout, where a test may catch it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.channel.ask("print", text)
        return len(text)


def _run_script(source: str) -> None:
    """Reports ["ended"] or a failure."""
    code = _compiled(source)
    module = types.ModuleType("__main__")
    module.__file__ = _FILE
    sys.modules["__main__"] = module

    def run() -> None:
        try:
            exec(code, module.__dict__)
        except SystemExit:
            pass  # an ordinary end; its status is not compared
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        if not sys.stdout.closed:
            sys.stdout.flush()

    if _guarded(run):
        _say("ended")


def _compiled(source: str) -> types.CodeType:
    try:
        return compile(source, _FILE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _say("not_parsed", _describe(error))
        os._exit(0)


def _guarded(action: Callable[[], Any]) -> bool:
    """Whether `action` came to its end; if not, that is reported."""
    try:
        action()
        return True
    except MemoryError:
        pass  # reported below, when the frames that hold the memory are gone
    except SystemExit as error:
        _say("exited", _describe(error))
        return False
    except BaseException as error:  # whatever the program raises is its own failure
        _say("raised", _describe(error))
        return False
    os.write(_REPORT, b'["memory"]\n')
    return False


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:  # a hostile __str__
        return "an exception that cannot be shown"


def _probe(confinement: Confinement, arguments: dict[str, Any]) -> dict[str, bool]:
    """What a confined child is indeed refused."""
    outside = f"{confinement.folder}-probe"  # beside the scratch directory
    with open(outside, "w") as file:
        file.write("x")

    attempts: dict[str, Callable[[], Any]] = {
        "processes": lambda: os._exit(0) if os.fork() == 0 else None,
        "signals": lambda: os.kill(os.getppid() or 1, 0),
        "network": lambda: socket.socket(),
        "reading": lambda: open(outside).close(),
        "writing": lambda: open(outside, "w").close(),
    }

    def child(fd: int) -> None:
        _enter((), fd, arguments["limits"], 1, confinement)
        refused = {}
        for name, attempt in attempts.items():
            try:
                attempt()
                refused[name] = False
            except (OSError, PermissionError):
                refused[name] = True
        _say(refused)

    ending = run_forked(child, cpu_seconds=5, wall_seconds=60, max_bytes=1 << 12)
    os.unlink(outside)
    try:
        return _loads(ending.data)[0]
    except (ValueError, IndexError):
        return dict.fromkeys(attempts, False)


def _tasks_of_user() -> int:
    """Processes and threads of this user now: RLIMIT_NPROC counts them all."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass
    return count + 1


def _empty(folder: str) -> None:
    """Remove all in `folder`, whatever its modes and however deep it is: the content of a folder moves up, then it goes."""
    os.chmod(folder, stat.S_IRWXU)
    names = os.listdir(folder)
    if not names:
        return
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    moved, prefix = 0, os.urandom(8).hex()  # which no program could have guessed
    while names:
        for name in names:
            try:
                os.unlink(name, dir_fd=top)
                continue
            except (IsADirectoryError, PermissionError):
                os.chmod(name, stat.S_IRWXU, dir_fd=top)  # no link, that would be gone
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            for entry in os.scandir(inner):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.name, stat.S_IRWXU, dir_fd=inner)  # to move a folder changes it
                    moved += 1
                    os.rename(entry.name, f"{prefix}-{moved}", src_dir_fd=inner, dst_dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=inner)
            os.close(inner)
            os.rmdir(name, dir_fd=top)
        names = os.listdir(top)
    os.close(top)
