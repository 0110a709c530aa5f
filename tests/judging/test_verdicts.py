"""Verdicts on honest, broken and hostile programs. test_attacks.py has the attack suite."""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter, OrderedDict, namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cptlab.errors import UserError
from cptlab.judging.execution import wire
from cptlab.judging.execution.executor import Executor, probe_sandbox
from cptlab.judging.execution.prefetch import known_calls
from cptlab.judging.execution.request import ExecutionRequest
from cptlab.judging.sandbox.levels import LEVELS, explanation
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.verdicts import judge, task_requests, verdict
from cptlab.judging.verdicts.comparison import same_output, same_value
from cptlab.judging.verdicts.judge import judge_programs, judge_stream
from cptlab.judging.verdicts.task_requests import TaskRequests
from cptlab.records import Prompt, Task, Test

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=8, memory_mb=256, output_mb=1)


def call_task(*tests, public=1, entry_point="f"):
    tests = tuple(Test(expected=expected, args=args) for args, expected in tests)
    return Task("t", "b", "test", "introductory", "call", Prompt("p"), entry_point, tests[:public], tests[public:])


def script_task(*tests):
    tests = tuple(Test(expected=expected, stdin=stdin) for stdin, expected in tests)
    return Task("s", "b", "test", "introductory", "stdin", Prompt("p"), None, tests[:1], tests[1:])


def check_task(setup, *tests):
    tests = tuple(Test(code=code) for code in tests)
    return Task("c", "b", "test", "", "check", Prompt("p"), "f", hidden_tests=tests, setup=setup)


def test_tests_that_do_not_count_change_no_verdict():
    """Not by failing, not by ending the process, not by what they leave behind in it."""
    own = ("assert candidate(2) == 4", "assert candidate(3) == 6")
    other = ("assert candidate(1) == 2", "assert candidate(0) == 0")
    programs = {
        "def f(x):\n    return 2 * x": ("passed", "passed", 2),
        "def f(x):\n    return 2 * x if x else 1": ("passed", "failed", 1),
        "def f(x):\n    while x == 1:\n        pass\n    return 2 * x": ("passed", "timeout", 0),
        "def f(x):\n    if x == 1:\n        __import__('os')._exit(0)\n    return 2 * x": ("passed", "error", 0),
        "seen = []\ndef f(x):\n    seen.append(x)\n    return 2 * x * (1 not in seen)": ("passed", "failed", 1),
        "def f(x):\n    return 2 * x * (x < 3)": ("failed", "passed", 2),
        "def f(x:": ("not_parsed", "not_parsed", 0),
    }
    for part in ("public", "hidden"):
        task = replace(check_task("", *own), public_tests=tuple(Test(code=code) for code in other), uncounted="public")
        if part == "hidden":
            task = replace(task, public_tests=task.hidden_tests, hidden_tests=task.public_tests, uncounted="hidden")
        verdicts = judge_programs([(program, task) for program in programs], limits=LIMITS)
        for verdict, (status, on_others, passed) in zip(verdicts, programs.values(), strict=True):
            assert (verdict.status, verdict.by_rule) == (status, {part: on_others})
            assert (verdict.public_total, verdict.hidden_total) == (2, 2)
            if part == "public":
                assert verdict.public_passed == passed
        assert judge_programs([("def f(x):\n    return 2 * x", replace(task, uncounted=""))])[0].by_rule == {}


DOUBLE = call_task(((1,), 2), ((2,), 4), ((3,), 6))
ECHO = script_task(("1\n", "2\n"), ("5", "6"))

CALLS = {
    "def f(x):\n    return 2 * x": ("passed", 1, 2),
    "def f(x):\n    return 2": ("failed", 1, 0),
    "def f(x):\n    return 4": ("failed", 0, 1),
    "def f(x):\n    return 2.0 * x": ("failed", 0, 0),
    "def f(x):\n    return None": ("failed", 0, 0),
    "def f(x):\n    return 6 // (x - 1) if x > 1 else 1 / 0": ("error", 0, 0),
    "def g(x):\n    return 2 * x": ("error", 0, 0),
    "f = 3": ("error", 0, 0),
    "raise ValueError('load')": ("error", 0, 0),
    "def f(x:": ("not_parsed", 0, 0),
    "": ("error", 0, 0),
    "x = 'a\x00'": ("not_parsed", 0, 0),
    "(" * 500: ("not_parsed", 0, 0),
    "def f(x):\n    while x < 3:\n        pass\n    return 6": ("timeout", 0, 0),
    "def f(x):\n    while x == 2:\n        pass\n    return 2 * x": ("timeout", 1, 0),
    "while True:\n    pass": ("timeout", 0, 0),
    "def f(x):\n    return [0] * 10 ** 12": ("memory", 0, 0),
    "def f(x):\n    data = []\n    while True:\n        data.append(' ' * 1000000)": ("memory", 0, 0),
    "def f(x):\n    return f(x)": ("error", 0, 0),
    "def f(x):\n    exit()": ("error", 0, 0),
    "import sys\nsys.exit(0)": ("error", 0, 0),
    "import os\ndef f(x):\n    os._exit(0)": ("error", 0, 0),
    "import os\ndef f(x):\n    os.abort()": ("crashed", 0, 0),
    "import ctypes\ndef f(x):\n    ctypes.string_at(0)": ("crashed", 0, 0),
    "class E:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return E()": ("failed", 0, 0),
    "class I(int):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return I(7)": ("failed", 0, 0),
    "def f(x):\n    yield 2 * x": ("failed", 0, 0),
    "def f(x):\n    a = []\n    a.append(a)\n    return a": ("error", 0, 0),
    "def f(x):\n    return list(range(500000))": ("crashed", 0, 0),
    "class B(Exception):\n    def __str__(self):\n        raise self\ndef f(x):\n    raise B": ("error", 0, 0),
    "import json\njson.dumps = json.loads = print = None\ndef f(x):\n    return 2 * x": ("passed", 1, 2),
    "import os\ndef f(x):\n    os.close(3)\n    return 2 * x": ("error", 0, 0),
    "import os\ndef f(x):\n    while True:\n        os.write(3, b'[' * 10000)": ("crashed", 0, 0),
    "import os\nos.write(3, b'[' * 100000 + b'\\n')\ndef f(x):\n    return 2 * x": ("crashed", 0, 0),
    "import os\ndef f(x):\n    while True:\n        os.write(1, b'x' * 1000)": ("timeout", 0, 0),
    "import signal\ndef f(x):\n    signal.signal(signal.SIGXCPU, lambda *a: None)\n    while True:\n        pass": (
        "timeout",
        0,
        0,
    ),
    "def f(x):\n    try:\n        while True:\n            pass\n    except BaseException:\n        return 2 * x": (
        "timeout",
        0,
        0,
    ),
    "import os\ndef f(x):\n    os.kill(os.getppid(), 9)\n    return 2 * x": ("error", 0, 0),
    "import socket\ndef f(x):\n    socket.socket()\n    return 2 * x": ("error", 0, 0),
    "import subprocess\ndef f(x):\n    subprocess.run(['true'])\n    return 2 * x": ("error", 0, 0),
    "def f(x):\n    with open('big', 'w') as file:\n        file.write('x' * 2 ** 22)": ("error", 0, 0),
    "import threading\nr = []\ndef f(x):\n    t = threading.Thread(target=lambda: r.append(2 * x))\n"
    "    t.start()\n    t.join()\n    return r[-1]": ("passed", 1, 2),
    "import tempfile, os\ndef f(x):\n    with tempfile.NamedTemporaryFile('w+', delete=False) as file:\n"
    "        file.write('a')\n    assert os.path.dirname(file.name) == os.getcwd()\n    return 2 * x": ("passed", 1, 2),
    "from dataclasses import dataclass\n@dataclass\nclass P:\n    v: int\ndef f(x):\n    return P(2 * x).v": (
        "passed",
        1,
        2,
    ),
    "print('noise')\ndef f(x):\n    print(x)\n    return 2 * x\nif __name__ == '__main__':\n    input()": (
        "passed",
        1,
        2,
    ),
    "import os\ndef f(x):\n    for fd in range(4, 99):\n        try:\n            os.fstat(fd)\n        except OSError:\n"
    "            continue\n        return fd\n    return 2 * x": ("passed", 1, 2),
    "import os\ndef f(x):\n    os.mkdir('d')\n    os.chmod('d', 0)\n    return 2 * x": ("error", 1, 0),  # 'd' exists
}

SCRIPTS = {
    "print(int(input()) + 1)": ("passed", 1, 1),
    "print(2)": ("failed", 1, 0),
    "print(int(input()) + 1, '  \\n\\n')": ("passed", 1, 1),
    "print('', int(input()) + 1)": ("failed", 0, 0),
    "import sys\nprint(int(sys.stdin.buffer.readline()) + 1)\nsys.exit(3)": ("passed", 1, 1),
    "import os\nprint(int(open(0).read()) + 1, flush=True)\nos._exit(0)": ("passed", 1, 1),
    "def main():\n    print(int(input()) + 1)\nif __name__ == '__main__':\n    main()": ("passed", 1, 1),
    "import threading\nthreading.Thread(target=lambda: print(int(input()) + 1)).start()": ("passed", 1, 1),
    "import atexit\natexit.register(lambda: print(int(input()) + 1))": ("passed", 1, 1),
    "print(int(input()) + 1)\nraise ValueError": ("error", 0, 0),
    "input()\ninput()": ("error", 0, 0),
    "print(2": ("not_parsed", 0, 0),
    "while True:\n    print('x' * 1000)": ("error", 0, 0),
    "while 1:\n    pass": ("timeout", 0, 0),
    "x = ' ' * 10 ** 10": ("memory", 0, 0),
    "import os\nos.abort()": ("crashed", 0, 0),
}


def outcome(verdict):
    return verdict.status, verdict.public_passed, verdict.hidden_passed


@pytest.fixture(scope="module")
def verdicts():
    items = [(program, DOUBLE) for program in CALLS] + [(program, ECHO) for program in SCRIPTS]
    return dict(zip([*CALLS, *SCRIPTS], judge_programs(items, workers=2, limits=LIMITS), strict=True))


@pytest.mark.parametrize("program", [*CALLS, *SCRIPTS])
def test_verdict(verdicts, program):
    verdict = verdicts[program]
    assert outcome(verdict) == {**CALLS, **SCRIPTS}[program], verdict.reason
    assert (verdict.reason == "") == verdict.passed
    assert (verdict.public_total, verdict.hidden_total) == ((1, 2) if program in CALLS else (1, 1))


def test_order_workers_and_neighbours_change_nothing(verdicts):
    fast = [p for p in CALLS if CALLS[p][0] not in ("timeout", "memory") and "while" not in p]
    again = judge_programs([(p, DOUBLE) for p in reversed(fast)], workers=1, limits=LIMITS)
    assert again == [verdicts[p] for p in reversed(fast)]


def test_arguments_are_fresh_for_every_test():
    task = call_task((([3, 1],), [1, 3]), (([3, 1],), [1, 3]))
    program = (
        "kept = []\ndef f(x):\n    kept.append(x)\n    kept[0].append(9)\n    return sorted(x)[:2] if len(x) < 4 else 0"
    )
    assert judge_programs([(program, task)])[0].passed


def test_sleep_counts_as_time_and_the_machines_load_does_not():
    sleeper = "import time\ndef f(x):\n    time.sleep(0.3)\n    return 2 * x"
    assert judge_programs([(sleeper, DOUBLE)], limits=LIMITS)[0].passed
    forever = "import time\ndef f(x):\n    time.sleep(1000)"
    begin = time.monotonic()
    (verdict,) = judge_programs([(forever, DOUBLE)], limits=LIMITS)
    assert verdict.status == "timeout" and "slept" in verdict.reason and time.monotonic() - begin < 10
    busy = "def f(x):\n    for _ in range(2_000_000):\n        pass\n    return 2 * x"  # about 0.05 s of CPU time
    load = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * len(os.sched_getaffinity(0)))
    ]
    try:
        assert judge_programs([(busy, DOUBLE)], limits=LIMITS)[0].passed
    finally:
        for process in load:
            process.kill()
            process.wait()


def test_budgets_are_per_test():
    busy = (
        "import time\ndef f(x):\n    end = time.process_time() + 0.3\n"
        "    while time.process_time() < end:\n        pass\n    return 2 * x"
    )
    assert judge_programs([(busy, DOUBLE)], limits=LIMITS)[0].passed
    resetting = "import os\ndef f(x):\n    while True:\n        os.write(3, b'\\n')"
    (verdict,) = judge_programs([(resetting, DOUBLE)], limits=LIMITS)
    assert not verdict.passed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of a process that is not dumpable")
def test_expected_values_never_reach_the_candidate():
    secret = 918273645546372819
    task = call_task(((1,), secret))
    # Looks through the process's own memory for the digits, which it must not hold as a literal itself.
    peek = (
        "import re\ndef f(x):\n    digits = (str(918273645) + 'D').replace('D', str(546372819)).encode()\n"
        "    found = 0\n    for line in open('/proc/self/maps'):\n"
        "        low, high, kind = re.match('(\\w+)-(\\w+) (..)', line).groups()\n"
        "        if kind == 'rw' and '[v' not in line:\n            with open('/proc/self/mem', 'rb') as memory:\n"
        "                memory.seek(int(low, 16))\n"
        "                found += memory.read(int(high, 16) - int(low, 16)).count(digits)\n    return found"
    )
    counts = []
    for args in ("[1]", f"[{secret}]"):  # the second shows that it would be found
        with Executor(1, at_least="seccomp", strongest="seccomp") as executor:  # a root of its own has no /proc
            ((_, runs),) = executor.run([(0, ExecutionRequest(peek, "f", (args,)))])
        counts.append(json.loads(runs[0].lines[1])[1])
    assert judge_programs([(peek, task)])[0].status in ("failed", "error")
    assert counts[1] > counts[0]
    checked = check_task(
        f"SECRET = {secret}", f"found = candidate(1)\nassert found == SECRET or found == {secret}, found"
    )
    with Executor(1, at_least="seccomp", strongest="seccomp") as executor:
        program = TaskRequests(checked).request(peek)
        for _ in range(2):  # nor does the server hold them after a first program
            ((_, runs),) = executor.run([(0, program)])
            assert json.loads(runs[0].lines[1]) == ["failed", str(counts[0])]


def test_environment_and_scratch_folder(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    program = (
        "import os\ndef f(x):\n    open('left', 'x').close()\n    return [os.environ.get('WANDB_API_KEY'), os.getcwd()]"
    )
    for level in LEVELS:
        with Executor(1, LIMITS, at_least="limits", strongest=level) as executor:
            runs = dict(executor.run([(i, ExecutionRequest(program, "f", ("[1]",))) for i in range(2)]))
            folders = [json.loads(run[0].lines[1])[1] for run in runs.values()]
            assert [key for key, _ in folders] == [None, None]
            if executor.level != "namespaces":
                assert os.listdir(folders[0][1]) == []
        assert not (Path(folders[0][1]) / "left").exists()


def test_no_process_is_left_by_a_fork_bomb():
    bomb = "import os\ndef f(x):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass"
    with Executor(1, LIMITS) as executor:
        ((_, runs),) = executor.run([(0, ExecutionRequest(bomb, "f", ("[1]",)))])
        assert runs[0].cause == "cpu"
        (server,) = executor._pool._servers
        while children := Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
            assert len(children) == 1 and executor.level == "namespaces"  # the server's inner process
            server.pid = int(children[0])


PROGRAMS = {
    "def f(x): return sum(x)": "passed",
    "def f(x): return 0": "failed",
    "def f(x): return open('/etc/hostname').read()": "error",
    "def f(x): open('a', 'w').write('b'); return sum(x) if open('a').read() == 'b' else 0": "passed",
    "import numpy\ndef f(x): return numpy.sum(x)": "passed",
    "def f(x):\n    while True: pass": "timeout",
    "import socket\ndef f(x): socket.socket()": "error",
    "import os\ndef f(x): os._exit(0)": "error",
    "import ctypes\ndef f(x): ctypes.string_at(0)": "crashed",
    "def f(x): return [0] * 10**10": "memory",
    "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()": "failed",
}


@pytest.mark.parametrize("level", LEVELS[1:])
def test_verdicts_are_the_same_at_every_level(level):
    if LEVELS.index(probe_sandbox()["level"]) < LEVELS.index(level):
        pytest.skip(f"this system has no {level}")
    task = check_task("", "assert candidate([1, 2]) == 3", "x = [1, 2]\nassert candidate(x) == 3 and x == [1, 2]")
    items = [(source, source, task) for source in PROGRAMS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "Executor", lambda *_: Executor(2, LIMITS, at_least=level, strongest=level))
        verdicts = {source: verdict.status for source, verdict in judge_stream(items)}
    readable = {"def f(x): return open('/etc/hostname').read()": "failed"} if level == "seccomp" else {}
    assert verdicts == PROGRAMS | readable


PREFETCHED = check_task(
    "def twice(x): return 2 * x",
    "assert candidate([1, 2]) == 3, 'first'",
    "assert twice(3) == 7 and candidate([9]) == 9",  # the call is left out: the next ones must not move up
    "assert candidate([4]) == 4",
    "x = [5, 5]\nassert candidate(x) == 10 and x == [5, 5]",
    "assert list(candidate([6, 6])) == [12]",
)


def test_prefetched_calls_change_no_verdict(monkeypatch):
    assert len(known_calls([test.code for test in PREFETCHED.tests], ("candidate",))) == 1
    first = check_task(
        "", *(f"assert candidate([{n}, 1]) == {n + 1}" for n in range(6)), "assert len(candidate([2])) == 0"
    )
    programs = [*PROGRAMS, "def f(x):\n    if x[0] == 3: raise ValueError\n    return sum(x)",
                "import os\ndef f(x):\n    if x[0] == 3: os._exit(0)\n    return sum(x)",
                "def f(x):\n    while x[0] == 3: pass\n    return sum(x)", "def f(x):\n    yield sum(x)"]  # fmt: skip
    items = [(program, task) for program in programs for task in (PREFETCHED, first)]
    at_once = judge_programs(items, limits=LIMITS)
    monkeypatch.setattr(task_requests, "known_calls", lambda *_: [])
    one_by_one = judge_programs(items, limits=LIMITS)
    assert [(v.status, v.hidden_passed) for v in at_once] == [(v.status, v.hidden_passed) for v in one_by_one]


def test_a_weaker_sandbox_than_asked_for_is_refused():
    with pytest.raises(UserError, match="sandbox=seccomp"), Executor(1, strongest="seccomp"):
        pass


@pytest.fixture
def without_namespaces():
    """A shell prefix under which the system refuses user namespaces, as containers do."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare (util-linux)")
    if LEVELS.index(probe_sandbox()["level"]) < LEVELS.index("landlock"):
        pytest.skip("this system has no landlock")
    limit = "echo 0 > /proc/sys/user/max_user_namespaces"  # of the namespace that unshare makes
    return [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount-proc",
        "--pid",
        "--fork",
        "sh",
        "-c",
        f'{limit} && exec "$@"',
        "sh",
    ]


def test_the_reason_for_a_weaker_level_is_told(without_namespaces):
    code = "from cptlab.judging.execution.executor import probe_sandbox; print(probe_sandbox())"
    done = subprocess.run([*without_namespaces, sys.executable, "-c", code], capture_output=True, text=True)
    found = ast.literal_eval(done.stdout)
    assert found["level"] == "landlock" and all(found["protections"].values())
    assert "unshare" in found["reasons"]["namespaces"]
    said = explanation(found["level"], found["reasons"])
    assert "no namespaces: unshare: " in said and "/tmp" in said
    assert explanation("namespaces", {}) == ""


@pytest.mark.parametrize("place, named_by_a_link", [("/tmp", False), ("/tmp", True), ("/var/tmp", True)])
def test_where_the_interpreter_lies_costs_no_level(place, named_by_a_link):
    """A virtual environment in /tmp, as continuous integration makes them, and one that is reached over a link."""
    program = "import numpy, os, tempfile\ndef f(x):\n    tempfile.mkstemp()\n    return int(numpy.sum([x, x])) + len(os.listdir()) - 1"
    code = (
        "from cptlab.judging.execution.executor import probe_sandbox\n"
        "from cptlab.judging.verdicts.judge import judge_programs\n"
        "from test_verdicts import call_task\n"
        f"print(probe_sandbox()['level'], *judge_programs([({program!r}, call_task(((1,), 2)))]), sep='\\n')"
    )
    with tempfile.TemporaryDirectory(dir=place) as folder:
        environment = Path(folder) / "environment"
        python = environment / "bin" / "python"
        if named_by_a_link:
            environment.symlink_to(sys.prefix)
        else:
            (environment / "bin").mkdir(parents=True)
            python.symlink_to(os.path.realpath(sys.executable))
            (environment / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
            packages = environment / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
            packages.mkdir(parents=True)
            numpy = Path(np.__file__).parent
            for name in (numpy, *numpy.parent.glob("numpy.libs")):
                shutil.copytree(name, packages / name.name, ignore=shutil.ignore_patterns("tests"))
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests/judging"), sysconfig.get_path("purelib")])
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        assert done.stdout.split("\n")[0] == probe_sandbox()["level"], done.stderr
        assert "status='passed'" in done.stdout, done.stdout


@pytest.mark.parametrize("level", LEVELS)
def test_kinds_of_task_take_turns_in_one_server(level, capfd, monkeypatch):
    if LEVELS.index(probe_sandbox()["level"]) < LEVELS.index(level):
        pytest.skip(f"this system has no {level}")
    checked = check_task("", "assert candidate(1) == 2", "assert candidate(2) == 4")
    kinds = {
        DOUBLE: "def f(x):\n    return 2 * x",
        ECHO: "print(int(input()) + 1)",
        checked: "def f(x):\n    return 2 * x",
    }
    with Executor(1, LIMITS, at_least="limits", strongest=level) as executor:
        (server,) = executor._pool._servers
        requests = [(task, TaskRequests(task).request(source)) for _ in range(3) for task, source in kinds.items()]
        for task, results in executor.run(requests):
            assert verdict.verdict_of(task, results).passed
        assert executor._pool._servers == [server] and server.poll() is None
    assert capfd.readouterr().err == ""


def test_the_probe_sees_what_is_open():
    found = {}
    for level in LEVELS:
        with Executor(1, at_least="limits", strongest=level) as executor:
            found[executor.level] = {name for name, refused in executor.protections.items() if not refused}
    assert {*found} > {"limits"}
    assert found.get("namespaces", set()) == found.get("landlock", set()) == set()
    assert found.get("seccomp", {"reading", "writing"}) == {"reading", "writing"}


def test_a_killed_judge_leaves_no_process():
    code = (
        "from cptlab.judging.execution.executor import Executor, ExecutionRequest\n"
        "with Executor(1) as s:\n"
        "    print(s._pool._servers[0].pid, s._pool._scratch.name, flush=True)\n"
        "    list(s.run([(0, ExecutionRequest('while True: pass', 'f', ('[]',)))]))\n"
    )
    main = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    server, scratch = main.stdout.readline().split()
    time.sleep(0.3)
    main.kill()
    main.wait()
    main.stdout.close()
    end = time.monotonic() + 20
    while Path(f"/proc/{server}").exists() and "Z" not in Path(f"/proc/{server}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "the server outlived the judge"
        time.sleep(0.05)
    assert not Path(scratch).exists()


def test_a_server_that_dies_is_replaced():
    with Executor(1, LIMITS) as executor:
        executor._pool._servers[0].kill()
        ((_, runs),) = executor.run([(0, ExecutionRequest("def f(x):\n    return x", "f", ("[1]",)))])
        assert runs[0].lines == ('["loaded"]', '["value", 1]')


def test_judging_from_a_process_with_threads():
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert judge_programs([("def f(x):\n    return 2 * x", DOUBLE)])[0].passed
    finally:
        stop.set()


def test_equal_items_are_run_once_and_each_verdict_is_told():
    seen = []
    program = "import time\ndef f(x):\n    return 2 * x"
    items = [(program, DOUBLE), ("", DOUBLE), (program, call_task(((1,), 3)))] + 3 * [(program, DOUBLE)]
    verdicts = judge_programs(items, ended=lambda place, verdict: seen.append((place, verdict)))
    assert [v.status for v in verdicts] == ["passed", "error", "failed", "passed", "passed", "passed"]
    assert dict(seen) == dict(enumerate(verdicts)) and len(seen) == len(verdicts)
    assert judge_programs([]) == []


@pytest.mark.parametrize("expected", [{1, 2}, {1: 2}, b"x", object()])
def test_tests_that_are_not_json_are_refused(expected):
    with pytest.raises(UserError, match="not JSON data"):
        judge_programs([("", call_task(((1,), expected)))])


def test_tasks_without_tests_or_entry_point_are_refused():
    for task in (call_task(), call_task(((1,), 1), entry_point=None)):
        with pytest.raises(UserError, match="Task t"):
            judge_programs([("", task)])


Point = namedtuple("Point", "x y")
SAME = [
    (None, None), (True, True), (3, 3), (-(2**70), -(2**70)), (1.5, 1.5), (float("nan"), float("nan")),
    (float("inf"), float("inf")), ("ä\ud800", "ä\ud800"), ([1, [2, "x"]], [1, [2, "x"]]), ([1, 2], (1, 2)),
    ([1, 2], Point(1, 2)), ((1, 2), [1, 2]), ({"a": [1], "b": {}}, {"b": {}, "a": (1,)}), ({"x": 2}, Counter("xx")),
    ({"a": 1}, OrderedDict(a=1)), (0.0, -0.0), ([], ()),
]  # fmt: skip
DIFFERENT = [
    (1, True), (1, 1.0), (1.0, 1), (0, False), (None, 0), ("1", 1), ([1], [1.0]), ([1, 2], [2, 1]), ([1], [1, 1]),
    ([1, 2], {1, 2}), ([], {}), ({}, []), ({"1": 1}, {1: 1}), ({"a": 1}, {"a": 1, "b": 2}), (2**70, 2**70 + 1),
    ("a", b"a"), ("a", ["a"]), ([0, 1], range(2)), (1.0, 1 + 0j), ({"a": 1}, {"a": True}), (2, "0x2"), ([[]], [{}]),
    ("dict", {"dict": 1}), ([1], object()), (0.1 + 0.2, 0.3), ({"tuple": 1}, (1,)), ([{"a": 1}], {"tuple": [{"a": 1}]}),
]  # fmt: skip


def through_the_pipe(value):
    return json.loads(json.dumps(wire.encode(value)))


@pytest.mark.parametrize("expected, value", SAME)
def test_same_values(expected, value):
    assert same_value(expected, through_the_pipe(value))


@pytest.mark.parametrize("expected, value", DIFFERENT)
def test_different_values(expected, value):
    assert not same_value(expected, through_the_pipe(value))


FORGED = [{"tuple": 1}, {"dict": [1]}, {"dict": [[["a"], 1]]}, {"dict": {"a": 1}}, {"x": []}, {}]


@pytest.mark.parametrize("forged", FORGED)
def test_forged_encodings_equal_nothing(forged):
    assert not same_value([1], forged) and not same_value({"a": 1}, forged)


def test_output_rule():
    assert same_output("1 2\n3\n", "1 2  \r\n3\n\n\n")
    assert same_output("", "\n")
    for printed in ("1  2\n3", " 1 2\n3", "1 2\n\n3", "3\n1 2", "1 2 3", "1 2\n3.0"):
        assert not same_output("1 2\n3\n", printed)
