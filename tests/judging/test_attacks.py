"""Every hostile program of attacks.py gets the right verdict and leaves nothing: as this user, as another, under load.

The suite is one test for each user, not one for each program: a batch is judged by one pool, as in earnest.
"""

import ctypes
import json
import os
import pty
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest
from attacks import _FRAMES, _MEMORY, _OBJECTS, ATTACKS, Attack, tasks

import cptlab
from cptlab.judging.execution.executor import Executor, probe_sandbox
from cptlab.judging.execution.rpc import Connection
from cptlab.judging.sandbox.levels import LEVELS
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.verdicts import judge
from cptlab.storage.jsonl import to_json

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(cpu_seconds=0.25, wall_seconds=40, memory_mb=512, output_mb=1)
LONGEST = 60  # seconds of wall time that a program may hold the judge; a loaded machine takes its time
NOBODY = 65534
# groups of attacks that meet other protections at other levels
ON_THE_SYSTEM = (
    "reading results",
    "descendants",
    "files",
    "links",
    "network",
    "signals to others",
    "raw calls",
    "left behind",
)
libc = ctypes.CDLL(None)


class Surroundings:
    """What programs might damage, and whether they did: files, a process, listeners, a terminal, the judge's folder."""

    def __enter__(self):
        self.mark = "atk" + secrets.token_hex(5)
        self.secret = "secret-" + secrets.token_hex(8)
        self.key = 0x40000000 | secrets.randbits(24)  # of System V objects
        self.base = Path(tempfile.mkdtemp(prefix="atk"))
        self.home = Path.home() / f".{self.mark}"
        self.kept = {self.base / "canary/file": "whole", self.base / "canary/sub/inner": "whole"}
        self.kept |= {self.base / "data.jsonl": self.secret, self.home: self.secret, Path(f".{self.mark}-cwd"): "whole"}
        for path, text in self.kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.before = {path: self._state(path) for path in self._watched()}
        (self.base / "judge").mkdir()
        self.tempdir, tempfile.tempdir = tempfile.tempdir, str(self.base / "judge")
        self._listen()
        self.master, self.terminal = pty.openpty()
        os.set_blocking(self.master, False)
        self.signals = []
        self.old_handler = signal.signal(signal.SIGWINCH, lambda *_: self.signals.append("SIGWINCH"))
        code = "import os, signal, time\nsignal.signal(28, lambda *_: os._exit(7))\nprint(1, flush=True)\n"
        code += "time.sleep(600)"
        self.victim = subprocess.Popen(
            [sys.executable, "-c", code], env={"SECRET": self.secret}, stdout=subprocess.PIPE, start_new_session=True
        )
        self.victim.stdout.readline()
        self.victim_before = self._state_of_victim()
        self.children = self._children()
        libc.prctl(36, 1, 0, 0, 0)  # whatever outlives its server becomes a child of this process
        return self

    def __exit__(self, *_):
        libc.prctl(36, 0, 0, 0, 0)
        signal.signal(signal.SIGWINCH, self.old_handler)
        tempfile.tempdir = self.tempdir
        self.victim.kill()
        self.victim.wait()
        self.victim.stdout.close()
        for one in self.listeners:
            one.close()
        os.close(self.master)
        os.close(self.terminal)
        for path in [*self._marked(), *self.kept]:  # what a broken judge let through
            remove = ["rmdir"] if path.parent.name == "cgroup" else ["rm", "-rf"]
            subprocess.run([*remove, path], capture_output=True)
        subprocess.run(["rm", "-rf", self.base])  # deeper than shutil can

    def fill(self, attack, number):
        words = {
            "MARK": self.mark, "NAME": self.name(number), "CANARY": self.base / "canary", "HOME": self.home,
            "DATA": self.base / "data.jsonl", "PLACES": self._places(), "PORT": self.port, "UNIX": self.base / "socket",
            "VICTIM": self.victim.pid, "JUDGE": os.getpid(), "TTY": os.ttyname(self.terminal), "KEY": self.key,
        }  # fmt: skip
        return re.sub("@([A-Z]+)@", lambda match: str(words[match[1]]), attack.source)

    def name(self, number):
        return f"{self.mark}{number}"[:15]

    def survivors(self, number):
        """Living processes with the name that the program gave itself and its children."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                name, state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[::2]
            except OSError:
                continue
            if name.partition("(")[2] == self.name(number) and state.split()[0] not in "ZX":
                found.append(pid)
        return found

    def damage(self):
        """What is not as it was, now that the pool is gone: one line each."""
        found = [f"{path} is changed" for path in self._watched() if self._state(path) != self.before[path]]
        found += [f"{path} was left" for path in self._marked()]
        found += [f"{path} was left in the judge's folder" for path in (self.base / "judge").iterdir()]
        found += [f"something connected to {one}" for one in self.listeners if self._reached(one)]
        found += [f"this process got {name}" for name in self.signals]
        try:
            found += [f"the terminal got {os.read(self.master, 100)!r}"]
        except BlockingIOError:
            pass
        if self._state_of_victim() != self.victim_before:
            found.append(f"another process: {self.victim_before} became {self._state_of_victim()}")
        for kind in ("shm", "sem", "msg"):
            for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines():
                if line.split()[0] == str(self.key):
                    found.append(f"System V {kind} was left")
                    getattr(libc, f"{kind}ctl")(int(line.split()[1]), 0, 0)  # IPC_RMID
        if libc.syscall({"x86_64": 242}.get(os.uname().machine, 182), self.mark.encode(), os.O_RDWR, 0, None) >= 0:
            found.append("a POSIX queue was left")
        if os.path.exists("/proc/keys") and self.mark in Path("/proc/keys").read_text():
            found.append("a key was left in the kernel")
        for _ in range(20):  # a killed process may take its time to go
            left = [pid for pid in self._children() - self.children if self._alive(pid)]
            if not left:
                break
            time.sleep(0.1)
        return found + [f"process {pid} was left" for pid in left]

    def _watched(self):
        return [*self.kept, self.base / "canary", self.base / "canary/sub"]

    @staticmethod
    def _state(path):
        try:
            stat = path.lstat()
            content = path.read_text() if path.is_file() else sorted(os.listdir(path))
            return content, stat.st_mode, stat.st_uid, stat.st_nlink, stat.st_mtime_ns, os.listxattr(path)
        except OSError as error:
            return str(error)

    def _places(self):
        places = ["/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/mnt", "/opt", "/srv", "/usr/local", "/home",
                  "/sys/fs/cgroup", "/dev/mqueue", str(Path.home()), str(ROOT), str(ROOT / "tests"), os.getcwd(),
                  str(self.base), sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), *(str(path.parent) for path in Path(cptlab.__file__).parent.rglob("__init__.py"))]  # fmt: skip
        return sorted(set(places))

    def _marked(self):
        own = {self.home.resolve(), Path(f".{self.mark}-cwd").resolve()}
        found = {path for place in self._places() for path in Path(place).glob(f"*{self.mark}*")}
        found |= set((self.base / "canary").rglob(f"*{self.mark}*"))
        return {path for path in found if path.resolve() not in own}

    def _listen(self):
        self.listeners = [socket.socket(socket.AF_INET, socket.SOCK_STREAM)]
        self.listeners[0].bind(("127.0.0.1", 0))
        self.port = self.listeners[0].getsockname()[1]
        more = [(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", self.port))]
        more += [(socket.AF_UNIX, socket.SOCK_STREAM, str(self.base / "socket"))]
        more += [(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.base}/socket")]
        more += [(socket.AF_UNIX, socket.SOCK_DGRAM, f"{start}{self.base}/socket-datagrams") for start in ("", "\0")]
        for family, kind, address in more:
            self.listeners.append(socket.socket(family, kind))
            self.listeners[-1].bind(address)
        os.chmod(self.base / "socket", 0o777)
        for one in self.listeners:
            one.setblocking(False)
            if one.type == socket.SOCK_STREAM:
                one.listen(64)

    @staticmethod
    def _reached(listener):
        try:
            listener.accept()[0].close() if listener.type == socket.SOCK_STREAM else listener.recv(100)
            return True
        except BlockingIOError:
            return False

    def _state_of_victim(self):
        pid, ended = self.victim.pid, self.victim.poll()
        if ended is not None:
            return f"ended with {ended}"
        stopped = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"  # or traced
        return (stopped, os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid), os.sched_getscheduler(pid),
                Path(f"/proc/{pid}/limits").read_text(), Path(f"/proc/{pid}/oom_score_adj").read_text())  # fmt: skip

    @staticmethod
    def _children():
        children = set()
        for task in Path("/proc/self/task").iterdir():
            children |= {int(word) for word in (task / "children").read_text().split()}
        return children

    @staticmethod
    def _alive(pid):
        try:
            return os.waitpid(pid, os.WNOHANG) == (0, 0)
        except ChildProcessError:
            return False


# Its scratch directory is empty and its own; priority and scheduler are those of this process, and one CPU is its own.
SOUND = """
import os
left, mode = os.listdir(), os.stat(".").st_mode
state = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), len(os.sched_getaffinity(0))
def f(x):
    os.mkdir(f"folder{x}")
    return 2 * x if not left and mode & 0o700 == 0o700 and state == STATE else [left, mode, state]
"""
STATE = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), 1
MARKERS = {
    "call": (SOUND.replace("STATE", str(STATE)), "def f(x):\n    return x + 1"),
    "stdin": ("print(int(input()) + 1)", "print(2)"),
    "check": ("def f(x):\n    return 2 * x", "def f(x):\n    return x + 1"),
}  # right, and right for the first test only


def name_of(attack: Attack) -> str:
    return f"{attack.kind}, {attack.group}: {attack.name}"


def problems_with(attacks: list[Attack], level: str = LEVELS[-1], workers: int = 2) -> list[str]:
    """Judge them between honest programs in one pool at `level`; what went wrong, one line each."""
    attacks = [attack for attack in attacks if LEVELS.index(attack.needs) <= LEVELS.index(level)]
    found, costs, pulled = [], {}, {}
    with Surroundings() as around, pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "Executor", lambda *_: Executor(workers, LIMITS, at_least=level, strongest=level))
        all_tasks = tasks(around.secret)

        def items():
            for number, attack in enumerate(attacks):
                kind = list(MARKERS)[number % 3]
                for right, marker in zip((True, False), MARKERS[kind]):
                    yield ("marker", number, right), marker, all_tasks[kind, "plain"]
                pulled[number] = time.monotonic()  # pulled when a worker is free
                yield ("attack", number, None), around.fill(attack, number), all_tasks[attack.kind, attack.task]
            for right, marker in zip((True, False), MARKERS["call"]):
                yield ("marker", len(attacks), right), marker, all_tasks["call", "plain"]

        def judged(what, number, right, verdict):
            line = f"{verdict.status} ({verdict.reason[:150]!a})"
            if what == "attack":
                attack = attacks[number]
                name = name_of(attack)
                costs[number] = time.monotonic() - pulled[number]
                found.extend(f"{name}: {problem}" for problem in _wrong(attack, verdict))
                if "@NAME@" in attack.source:
                    end = time.monotonic() + 1
                    while (left := around.survivors(number)) and time.monotonic() < end:
                        time.sleep(0.05)
                    found.extend(f"{name}: process {pid} outlived the verdict" for pid in left)
            expected = {True: "passed", False: "failed", None: verdict.status}[right]
            if verdict.status != expected:
                near = [name_of(attack) for attack in attacks[max(0, number - 2) : number + 1]]
                found.append(f"an honest program ({expected}) became {line}; before and beside it: {near}")

        try:
            for (what, number, right), verdict in judge.judge_stream(items()):
                judged(what, number, right, verdict)
        except Exception as error:  # what is left behind still counts
            last = [name_of(attack) for attack in attacks[max(0, len(costs) - 2) : len(costs) + 2]]
            found.append(f"the judge stopped at or near {last}: {error!r}")
        for number, cost in costs.items():
            if cost > LONGEST:
                found.append(f"{name_of(attacks[number])}: took {cost:.1f} s")
        if len(costs) != len(attacks):
            found.append(f"{len(attacks) - len(costs)} programs have no verdict")
        found += around.damage()
    return found


def _wrong(attack: Attack, verdict) -> list[str]:
    """What is wrong with a verdict."""
    line = f"{verdict.status} ({verdict.reason[:150]!a})"
    found = []
    if verdict.status not in attack.expected:
        found.append(f"{line}, not {' or '.join(attack.expected)}")
    passes, total = verdict.public_passed + verdict.hidden_passed, verdict.public_total + verdict.hidden_total
    if not verdict.passed and (passes > attack.passes or (passes < attack.passes and len(attack.expected) == 1)):
        found.append(f"passes {passes} of {total} tests, not {attack.passes}")
    if verdict.passed and passes != total:
        found.append(f"passed with {passes} of {total} tests")
    try:
        to_json(verdict).encode()
    except UnicodeEncodeError:
        found.append("its reason cannot be written to a file")
    if len(verdict.reason) > 500:
        found.append(f"its reason has {len(verdict.reason)} characters")
    return found


def require(level: str) -> None:
    found = probe_sandbox()
    if LEVELS.index(found["level"]) < LEVELS.index(level):
        pytest.skip(f"this system has no {level}: {found['reasons']}")


def test_the_suite_covers_what_it_should():
    assert len(ATTACKS) >= 80 and len({attack.group for attack in ATTACKS}) >= 16
    assert len({(attack.kind, attack.group, attack.name) for attack in ATTACKS}) == len(ATTACKS)
    for kind in MARKERS:
        assert sum(attack.kind == kind for attack in ATTACKS) >= 20
    assert all(hasattr(Connection, name) for name in ("send", "receive", "request")), "attacks use it by these names"


def test_attacks():
    problems = problems_with(ATTACKS, probe_sandbox()["level"])
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("level", LEVELS[1:-1])
def test_attacks_on_the_system_at_weaker_levels(level):
    require(level)
    problems = problems_with([attack for attack in ATTACKS if attack.group in ON_THE_SYSTEM], level)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS[1:-1])
def test_other_attacks_at_weaker_levels(level):
    require(level)
    problems = problems_with([attack for attack in ATTACKS if attack.group not in ON_THE_SYSTEM], level)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
def test_attacks_under_load():
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        problems = problems_with([attack for attack in ATTACKS if attack.group in ("early exit", "timeouts", "bombs")])
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert not problems, "\n".join(problems)


@pytest.mark.slow
def test_attacks_as_an_ordinary_user():
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    if not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("needs unshare, setpriv and mount (util-linux) to become another user who can read the interpreter")
    home = Path(tempfile.mkdtemp(prefix="nobody"))
    try:
        os.chown(home, NOBODY, NOBODY)
        environment = {"PATH": os.defpath, "HOME": home, "TMPDIR": home, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}:{ROOT / 'tests/judging'}",
                       "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}  # fmt: skip
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command += [sys.executable, "-m", "test_attacks"]
        script = f"set -e\n{_opened(home)}\ncd {home}\nexec {shlex.join(command)}"
        run = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=300
        )
        if run.returncode != 0 and "mount" in run.stderr:
            pytest.skip(f"the interpreter cannot be shown to another user here: {run.stderr.strip()}")
        assert run.returncode == 0, run.stderr
        answer = json.loads(run.stdout.splitlines()[-1])
    finally:
        subprocess.run(["rm", "-rf", str(home)])
    assert answer["user"] == NOBODY and answer["judged"] >= 80
    assert not answer["problems"], "\n".join(answer["problems"])


def _opened(stage: Path) -> str:
    """Shell lines that, in a mount namespace of their own, let everyone reach the interpreter and this project.

    A folder that is closed to others, such as /root, is covered by one that holds only what is needed of it.
    """
    lines = []
    needed: dict[Path, set[Path]] = {}
    for path in (sys.base_prefix, sys.prefix, ROOT, sysconfig.get_path("purelib")):
        path = Path(path).resolve()
        closed = [parent for parent in path.parents[::-1] if not parent.stat().st_mode & 0o001]
        if closed:
            needed.setdefault(closed[0], set()).add(path)
    for number, (closed, paths) in enumerate(needed.items()):
        cover = stage / f"cover{number}"
        for path in paths:
            target = cover / path.relative_to(closed)
            lines += [f"mkdir -p {target}", f"mount --rbind {path} {target}"]
        lines += [f"chmod 755 {cover}", f"mount --rbind {cover} {closed}"]
    return "\n".join(lines)


@pytest.mark.parametrize("search", [_FRAMES, _OBJECTS, _MEMORY], ids=["frames", "objects", "memory"])
@pytest.mark.parametrize("kind", ["call", "check"])
def test_the_searches_find_what_is_there(kind, search):
    """The attacks that look for the expected value do find it where a program has it in its memory."""
    secret = "secret-" + secrets.token_hex(8)
    planted = f"kept = ['sec' + 'ret-' + {secret[7:]!r} + ' ' * 5000]\n"
    program = planted + search + "def f(x):\n    return search()"
    ((_, verdict),) = judge.judge_stream([(0, program, tasks(secret)[kind, "secret"])], workers=1)
    assert verdict.passed, verdict.reason


if __name__ == "__main__":
    print(json.dumps({"user": os.geteuid(), "judged": len(ATTACKS), "problems": problems_with(ATTACKS)}))
