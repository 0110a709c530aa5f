"""Honest programs are judged right: what they need of the standard library and numpy works under all limits.

The expected values are those of a plain interpreter.
"""

import textwrap

import pytest

from cptlab.judging.execution.executor import Executor, probe_sandbox
from cptlab.judging.sandbox.levels import LEVELS
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.verdicts import judge
from cptlab.records import Prompt, Task, Test

CALLS: dict[str, tuple[str, list[tuple[tuple, object]]]] = {}
SCRIPTS: dict[str, tuple[str, list[tuple[str, str]]]] = {}
CHECKS: dict[str, tuple[str, list[str]]] = {}
REFUSED: dict[str, str] = {}  # honest, but they need what no program may have


def call(name, source, *tests):
    CALLS[name] = textwrap.dedent(source), list(tests) or [((3,), 6), ((-2,), -4)]


def script(name, source, *tests):
    SCRIPTS[name] = textwrap.dedent(source), list(tests) or [("1 2\n3\n", "6\n"), ("10\n", "10\n")]


def check(name, source, *units):
    CHECKS[name] = textwrap.dedent(source), list(units)


call(
    "files in the working directory",
    """
    import os
    def f(x):
        with open("a.txt", "w") as file:
            file.write(str(x))
        os.makedirs("d/e", exist_ok=True)
        os.replace("a.txt", "d/e/b.txt")
        with open(os.path.join(os.getcwd(), "d", "e", "b.txt")) as file:
            return 2 * int(file.read())
    """,
)
call(
    "tempfile",
    """
    import os, tempfile
    def f(x):
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("w+", suffix=".txt") as file:
            with open(os.path.join(folder, "a"), "w") as inner:
                inner.write(str(x))
            file.write(str(x))
            file.seek(0)
            with tempfile.TemporaryFile() as third, tempfile.SpooledTemporaryFile(10) as fourth:
                third.write(b"x" * 100)
                fourth.write(b"x" * 100)
            handle, path = tempfile.mkstemp()
            os.close(handle)
            os.unlink(path)
            return int(file.read()) + int(open(os.path.join(folder, "a")).read())
    """,
)
call(
    "pathlib, glob and shutil",
    """
    import glob, shutil
    from pathlib import Path
    def f(x):
        folder = Path("tree")
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        (folder / "sub" / "a.py").write_text(str(x))
        shutil.copytree(folder, "copy", dirs_exist_ok=True)
        found = glob.glob("copy/**/*.py", recursive=True) + [str(path) for path in folder.rglob("*.py")]
        result = sum(int(Path(path).read_text()) for path in found)
        shutil.rmtree(folder)
        shutil.rmtree("copy")
        return result
    """,
)
call(
    "the home folder and the environment",
    """
    import os
    from pathlib import Path
    def f(x):
        path = Path.home() / "settings.ini"
        path.write_text("a")
        os.environ["SOMETHING"] = str(x)
        return 2 * int(os.environ["SOMETHING"]) * len(Path("~/settings.ini").expanduser().read_text())
    """,
)
call(
    "threads",
    """
    import threading
    def f(x):
        lock, total = threading.Lock(), []
        def add():
            with lock:
                total.append(x)
        threads = [threading.Thread(target=add) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(total)
    """,
)
call(
    "a pool of 32 threads",
    """
    import time
    from concurrent.futures import ThreadPoolExecutor
    def f(x):
        with ThreadPoolExecutor(max_workers=32) as pool:
            return sum(pool.map(lambda i: time.sleep(0.01) or x, range(64))) // 32
    """,
)
call(
    "queues, timers and events",
    """
    import queue, threading
    def f(x):
        results = queue.Queue()
        threading.Timer(0.01, results.put, [x]).start()
        done = threading.Event()
        threading.Thread(target=lambda: (results.put(x), done.set())).start()
        done.wait(5)
        return results.get(timeout=5) + results.get(timeout=5)
    """,
)
call(
    "multiprocessing.dummy",
    """
    from multiprocessing.dummy import Pool
    def f(x):
        with Pool(2) as pool:
            return sum(pool.map(lambda i: x, range(2)))
    """,
)
call(
    "locks and queues of multiprocessing, in threads",
    """
    import multiprocessing, queue, threading
    from multiprocessing.pool import ThreadPool
    def f(x):
        lock, again, gate = multiprocessing.Lock(), multiprocessing.RLock(), multiprocessing.BoundedSemaphore(2)
        with lock, again, again, gate, gate:
            assert not gate.acquire(timeout=0.01) and not lock.acquire(block=False)
        for broken in (lock, gate):
            try:
                broken.release()
            except ValueError:
                pass
            else:
                return "released too often"
        ready, total = multiprocessing.Event(), []
        threading.Timer(0.01, ready.set).start()
        ready.wait()
        with ThreadPool(3) as pool:
            for part in pool.imap_unordered(lambda i: x, range(2)):
                with lock:
                    total.append(part)
        return sum(total)
    """,
)
call(
    "asyncio",
    """
    import asyncio
    async def twice(x):
        await asyncio.sleep(0.01)
        first, second = await asyncio.gather(asyncio.to_thread(abs, x), asyncio.sleep(0.01, abs(x)))
        return (first + second) * (1 if x > 0 else -1)
    def f(x):
        return asyncio.run(twice(x))
    """,
)
call("sleeps a little", "import time\ndef f(x):\n    time.sleep(0.2)\n    return 2 * x")
call(
    "random",
    """
    import random, secrets, uuid
    def f(x):
        assert 0 <= secrets.randbelow(5) < 5 and len(str(uuid.uuid4())) == 36 and len(secrets.token_hex(4)) == 8
        rng = random.Random(x)
        values = rng.sample(range(10), 10) + [random.randint(1, 2)]
        return 2 * x if sorted(values[:10]) == list(range(10)) else 0
    """,
)
call(
    "dates",
    """
    from datetime import date, datetime, timedelta, timezone
    import calendar, time, zoneinfo
    def f(x):
        assert datetime.now(timezone.utc).year > 2020 and time.time() > 0 and time.strftime("%Y")
        assert zoneinfo.ZoneInfo("UTC").key == "UTC"
        return str(date(2024, 2, 28) + timedelta(days=x)), calendar.monthrange(2024, 2)[1]
    """,
    ((1,), ["2024-02-29", 29]),
    ((2,), ["2024-03-01", 29]),
)
call(
    "decimal and fractions",
    """
    from decimal import Decimal, getcontext
    from fractions import Fraction
    def f(x):
        getcontext().prec = 50
        return str(Decimal(x) / 7)[:20], str(Fraction(x, 9) + Fraction(1, 3))
    """,
    ((1,), ["0.142857142857142857", "4/9"]),
    ((6,), ["0.857142857142857142", "1"]),
)
call(
    "numpy",
    """
    import numpy as np
    def f(rows):
        a = np.array(rows, dtype=float)
        values = np.linalg.eigvalsh(a @ a.T)
        assert np.allclose(values.sum(), (a ** 2).sum()) and np.random.default_rng(0).random(3).shape == (3,)
        return a.T.astype(int).tolist()
    """,
    (([[1, 2], [3, 4]],), [[1, 3], [2, 4]]),
    (([[5]],), [[5]]),
)
call(
    "numpy on a million numbers",
    """
    import numpy as np
    def f(n):
        a = np.arange(n, dtype=np.int64)
        return int((a * a)[a % 2 == 0].sum())
    """,
    ((10,), 120),
    ((1000000,), 166666166667000000),
)
call(
    "deep recursion",
    """
    import sys
    sys.setrecursionlimit(100000)
    def depth(n):
        return 0 if n == 0 else 1 + depth(n - 1)
    def f(n):
        return depth(n)
    """,
    ((900,), 900),
    ((20000,), 20000),
)
call(
    "deep recursion in a thread with a big stack",
    """
    import sys, threading
    def depth(n):
        return 0 if n == 0 else 1 + max([depth(n - 1)])
    def f(n):
        sys.setrecursionlimit(10 ** 6)
        threading.stack_size(256 * 1024 * 1024)
        result = []
        thread = threading.Thread(target=lambda: result.append(depth(n)))
        thread.start()
        thread.join()
        return result[0]
    """,
    ((50000,), 50000),
)
call(
    "memoised recursion",
    """
    from functools import cache, lru_cache
    @lru_cache(maxsize=None)
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)
    @cache
    def f(n):
        return fib(n)
    """,
    ((80,), 23416728348467685),
    ((300,), 222232244629420445529739893461909967206666939096499764990979600),
)
call(
    "the method of a class",
    """
    from typing import List, Optional
    class Solution:
        def __init__(self):
            self.count = 0
        def f(self, x: int) -> Optional[int]:
            self.count += 1
            return 2 * x
    """,
)
call(
    "dataclasses, enums and named tuples",
    """
    from collections import namedtuple
    from dataclasses import dataclass, field
    from enum import Enum, IntEnum, auto
    class Colour(Enum):
        RED = auto()
    class Size(IntEnum):
        BIG = 3
    @dataclass(order=True)
    class Point:
        x: int
        tags: list = field(default_factory=list)
    Pair = namedtuple("Pair", "a b")
    def f(x):
        return [Point(x).x, Colour.RED.value, Size.BIG, Pair(x, x), Colour.RED.name, Point(1) < Point(2)]
    """,
    ((3,), [3, 1, 3, [3, 3], "RED", True]),
)
call(
    "generators and comprehensions",
    """
    from itertools import accumulate, chain, groupby, islice, permutations
    def squares():
        n = 0
        while True:
            yield n * n
            n += 1
    def f(n):
        return list(islice(squares(), n)), [*accumulate(range(n))], sum(1 for _ in permutations(range(n)))
    """,
    ((4,), [[0, 1, 4, 9], [0, 1, 3, 6], 24]),
)
call(
    "Counter, deque, defaultdict, heapq and bisect",
    """
    import bisect, heapq
    from collections import Counter, OrderedDict, defaultdict, deque
    def f(text):
        groups = defaultdict(list)
        for word in text.split():
            groups[len(word)].append(word)
        heap = text.split()
        heapq.heapify(heap)
        return Counter(text.replace(" ", "")), heapq.heappop(heap), list(deque(groups[1], maxlen=1)), bisect.bisect([1, 2], 1)
    """,
    (("a b aa",), [{"a": 3, "b": 1}, "a", ["b"], 1]),
)
call(
    "sqlite in memory and in a file",
    """
    import sqlite3
    def f(x):
        total = 0
        for place in (":memory:", "data.db"):
            with sqlite3.connect(place) as base:
                base.execute("create table if not exists t (a integer)")
                base.execute("delete from t")
                base.executemany("insert into t values (?)", [(x,), (1,), (-1,)])
                total += base.execute("select sum(a) from t").fetchone()[0]
        return total
    """,
)
call(
    "archives",
    """
    import bz2, gzip, io, lzma, tarfile, zipfile, zlib
    def f(x):
        text = str(x).encode()
        with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner/a.txt", text)
        with tarfile.open("a.tar.gz", "w:gz") as archive:
            archive.add("a.zip")
        assert tarfile.open("a.tar.gz").getnames() == ["a.zip"]
        with gzip.open("a.gz", "wb") as file:
            file.write(text)
        assert bz2.decompress(bz2.compress(text)) == lzma.decompress(lzma.compress(text)) == gzip.open("a.gz").read()
        return int(zipfile.ZipFile("a.zip").read("inner/a.txt")) + int(zlib.decompress(zlib.compress(text)))
    """,
)
call(
    "json, csv, pickle and configparser",
    """
    import configparser, csv, io, json, pickle
    def f(rows):
        with open("a.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
        with open("a.json", "w") as file:
            json.dump(list(csv.reader(open("a.csv", newline=""))), file)
        with open("a.pickle", "wb") as file:
            pickle.dump(json.load(open("a.json")), file)
        config = configparser.ConfigParser()
        config.read_string("[a]\\nb = 1")
        return pickle.load(open("a.pickle", "rb")) + [[config["a"]["b"]]]
    """,
    (([[1, "a,b"], [2, "c"]],), [["1", "a,b"], ["2", "c"], ["1"]]),
)
call(
    "hashes and encodings",
    """
    import base64, binascii, hashlib, hmac, zlib
    def f(text):
        data = text.encode()
        hmac.new(b"k", data, "sha256").hexdigest()
        return hashlib.md5(data).hexdigest()[:8], hashlib.sha256(data).hexdigest()[:8], base64.b64encode(data).decode(), \\
            zlib.crc32(data)
    """,
    (("abc",), ["90015098", "ba7816bf", "YWJj", 891568578]),
)
call(
    "text in any language",
    """
    import unicodedata, re, string, textwrap, difflib
    def f(text):
        plain = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
        return plain, text.upper(), re.findall(r"\\w+", text), text[::-1], len("\U0001f600"), text.encode().hex()
    """,
    (("né ü",), ["ne u", "NÉ Ü", ["né", "ü"], "ü én", 1, "6ec3a920c3bc"]),
)
call(
    "logging and warnings",
    """
    import logging, warnings, sys
    logging.basicConfig(level=logging.DEBUG)
    def f(x):
        logging.getLogger("a").debug("x = %s", x)
        warnings.warn("careful")
        print("some noise", file=sys.stderr)
        print("more noise")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("again", DeprecationWarning)
        handler = logging.FileHandler("a.log")
        handler.close()
        return 2 * x * len(caught)
    """,
)
call(
    "locale and formatting",
    """
    import locale, string
    def f(x):
        locale.setlocale(locale.LC_ALL, "")
        return locale.format_string("%d", x, grouping=False), f"{x:>5,.2f}", "%05d" % x, string.Template("$a").substitute(a=x)
    """,
    ((3,), ["3", " 3.00", "00003", "3"]),
)
call(
    "what it imports is found",
    """
    import abc, argparse, array, ast, contextlib, copy, ctypes, cmath, decimal, dis, email, getpass, graphlib, html, http, inspect
    import ipaddress, keyword, linecache, mimetypes, numbers, operator, optparse, platform, pprint, queue, reprlib, sched, select
    import selectors, shelve, shlex, signal, socket, statistics, stat, struct, symtable, sysconfig, tokenize, traceback
    import types, typing, unittest, urllib.parse, urllib.request, weakref, xml.etree.ElementTree, dbm.dumb, concurrent.futures
    def f(x):
        tree = xml.etree.ElementTree.fromstring("<a><b/></a>")
        return int(statistics.mean([x, 3 * x])) * len(tree) * len(urllib.parse.urlparse("http://a/b").netloc)
    """,
)
call(
    "guarded main",
    """
    def f(x):
        return 2 * x
    if __name__ == "__main__":
        print(f(int(input())))
        raise SystemExit("this is not reached when it is loaded as a module")
    """,
)
call(
    "handles its own exceptions",
    """
    import signal, sys, traceback
    def f(x):
        try:
            sys.exit(3)
        except SystemExit as error:
            code = error.code
        try:
            [][0]
        except IndexError:
            assert "IndexError" in traceback.format_exc()
        try:
            f_deep(0)
        except RecursionError:
            code -= 1
        try:
            memory = [0] * 10 ** 12
        except MemoryError:
            code += 1
        return 2 * x if code == 3 else code
    def f_deep(n):
        return f_deep(n + 1) + 1
    """,
)
call(
    "an alarm of its own",
    """
    import signal
    def f(x):
        def ring(*_):
            raise TimeoutError
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            while True:
                pass
        except TimeoutError:
            return 2 * x
    """,
)
call("a big value", "def f(n):\n    return list(range(n)), 'x' * n", ((100000,), [list(range(100000)), "x" * 100000]))
call("some hundred megabytes", "def f(x):\n    data = bytearray(300_000_000)\n    return len(data) // 150_000_000 * x")
call(
    "exec, eval and source",
    """
    import ast, code, inspect
    def f(x):
        scope = {}
        exec(compile(ast.parse("def g(y):\\n    return 2 * y"), "<made>", "exec"), scope)
        return eval("g(x)", scope, {"x": x})
    """,
)
call(
    "ctypes and struct",
    """
    import ctypes, struct
    def f(x):
        return ctypes.CDLL(None).abs(-abs(x)) * (1 if x > 0 else -1) + struct.unpack("<i", struct.pack("<i", x))[0]
    """,
)

script("input", "print(sum(int(w) for w in (input() + (' ' + input() if True else '')).split()))", ("1 2\n3\n", "6"))
script("sys.stdin.read", "import sys\nprint(sum(map(int, sys.stdin.read().split())))")
script("sys.stdin, line by line", "import sys\nprint(sum(int(w) for line in sys.stdin for w in line.split()))")
script("sys.stdin.readlines", "import sys\nprint(sum(int(w) for line in sys.stdin.readlines() for w in line.split()))")
script("sys.stdin.buffer", "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))")
script(
    "input = sys.stdin.readline",
    """
    import sys
    input = sys.stdin.readline
    total, line = 0, input()
    while line:
        total += sum(map(int, line.split()))
        line = input()
    print(total)
    """,
)
script("open(0)", "print(sum(map(int, open(0).read().split())))")
script(
    "open('/dev/stdin')",
    """
    import os, sys
    try:
        text = open("/dev/stdin").read()
    except FileNotFoundError:  # there is no /proc for a judged program
        text = sys.stdin.read()
    print(sum(map(int, text.split())))
    """,
)
script("fileinput", "import fileinput\nprint(sum(int(w) for line in fileinput.input() for w in line.split()))")
script(
    "os.read",
    """
    import os, io
    print(sum(map(int, io.BytesIO(os.read(0, os.fstat(0).st_size or 10000)).read().split())))
    """,
)
script(
    "until the end of the input",
    """
    total = 0
    while True:
        try:
            total += sum(map(int, input().split()))
        except EOFError:
            break
    print(total)
    """,
)
script(
    "a guarded main that exits",
    """
    import sys
    def main():
        print(sum(map(int, sys.stdin.read().split())))
        return 0
    if __name__ == "__main__":
        sys.exit(main())
    """,
)
script("exit() at the end", "import sys\nprint(sum(map(int, sys.stdin.read().split())))\nexit()")
script(
    "main in a thread with a big stack",
    """
    import sys, threading
    sys.setrecursionlimit(10 ** 6)
    threading.stack_size(128 * 1024 * 1024)
    def depth(n):
        return 0 if n == 0 else 1 + depth(n - 1)
    def main():
        print(sum(map(int, sys.stdin.read().split())) + depth(30000) - 30000)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    """,
)
script(
    "output in many ways",
    """
    import io, os, sys
    total = sum(map(int, sys.stdin.read().split()))
    print("a", end=" ", flush=True)
    sys.stdout.write("b\\n")
    sys.stdout.flush()
    sys.stdout.buffer.write(b"c\\n")
    sys.stdout.flush()
    os.write(1, b"d\\n")
    print(*[total, total], sep=", ", file=sys.stdout)
    print("not this", file=sys.stderr)
    """,
    ("1 2\n", "a b\nc\nd\n3, 3\n"),
)
script(
    "output collected and written once",
    """
    import io, sys
    out = io.StringIO()
    sys.stdout, old = out, sys.stdout
    print(sum(map(int, sys.stdin.read().split())))
    sys.stdout = old
    sys.stdout.write(out.getvalue())
    """,
)
script(
    "a writer of its own for stdout",
    """
    import os, sys
    from io import BytesIO, IOBase
    class FastIO(IOBase):
        def __init__(self, file):
            self._fd = file.fileno()
            self.buffer = BytesIO()
            self.writable = "x" in file.mode or "r" not in file.mode
            self.write = self.buffer.write if self.writable else None
        def read(self):
            while True:
                data = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
                if not data:
                    break
                self.buffer.write(data)
            return self.buffer.getvalue()
        def flush(self):
            os.write(self._fd, self.buffer.getvalue())
            self.buffer.truncate(0), self.buffer.seek(0)
    class Wrapper(IOBase):
        def __init__(self, file):
            self.buffer = FastIO(file)
            self.flush = self.buffer.flush
            self.write = lambda text: self.buffer.write(text.encode("ascii"))
            self.read = lambda: self.buffer.read().decode("ascii")
    sys.stdin, sys.stdout = Wrapper(sys.stdin), Wrapper(sys.stdout)
    print(sum(map(int, sys.stdin.read().split())))
    sys.stdout.flush()
    """,
)
script(
    "closes stdout at the end",
    """
    import sys
    print(sum(map(int, sys.stdin.read().split())))
    sys.stdout.close()
    """,
)
script("atexit", "import atexit, sys\natexit.register(lambda: print(sum(map(int, sys.stdin.read().split()))))")
script(
    "much output",
    "n = int(input())\nprint('\\n'.join(map(str, range(n))))",
    ("200000\n", "".join(f"{i}\n" for i in range(200000))),
)
script("much input", "import sys\nprint(len(sys.stdin.read()))", ("x" * 3_000_000, "3000000\n"))
script("unicode in and out", "print(input()[::-1] + ' \U0001f600 ß')", ("äöü→\n", "→üöä \U0001f600 ß\n"))
script(
    "input with Windows line ends", "import sys\nprint(sum(map(int, sys.stdin.read().split())))", ("1 2\r\n3\r\n", "6")
)
script(
    "argparse without arguments",
    """
    import argparse, sys
    arguments = argparse.ArgumentParser().parse_args()
    assert len(sys.argv) == 1
    print(sum(map(int, sys.stdin.read().split())))
    """,
)
script(
    "cmd line by line",
    """
    import cmd
    class Shell(cmd.Cmd):
        prompt = ""
        total = 0
        def default(self, line):
            if line == "EOF":
                print(self.total)
                return True
            self.total += sum(map(int, line.split()))
    Shell().cmdloop()
    """,
)
script(
    "its own module is __main__",
    """
    import sys, pickle
    class Box:
        def __init__(self, value):
            self.value = value
    box = pickle.loads(pickle.dumps(Box(sum(map(int, sys.stdin.read().split())))))
    assert sys.modules["__main__"].Box is Box and __name__ == "__main__" and type(box) is Box
    print(box.value)
    """,
)

check(
    "plain values",
    "def f(x):\n    return 2 * x",
    "assert candidate(1) == 2",
    "assert f('ab') == 'abab'",
    "assert f([1]) == [1, 1]",
)
check(
    "in place",
    """
    def f(xs):
        xs.sort()
        xs.append(0)
    """,
    "xs = [3, 1]\nassert f(xs) is None\nassert xs == [1, 3, 0]",
)
check("types are kept", """
    from collections import Counter, OrderedDict, defaultdict, deque
    from decimal import Decimal
    from fractions import Fraction
    import datetime
    def f(kind):
        return {"tuple": (1, [2]), "set": {1, 2}, "frozen": frozenset([1]), "bytes": b"a", "complex": 1 + 2j, "none": None,
                "keys": {1: "a", (1, 2): "b", None: 3}, "counter": Counter("aab"), "deque": deque([1, 2]),
                "decimal": Decimal("1.10"), "fraction": Fraction(1, 3), "date": datetime.date(2024, 1, 2),
                "time": datetime.datetime(2024, 1, 2, 3), "range": range(3), "nan": float("nan"), "big": 10 ** 40}[kind]
    """, "assert f('tuple') == (1, [2]) and type(f('tuple')) is tuple", "assert f('set') == {1, 2}",
      "assert f('frozen') == frozenset([1])", "assert f('bytes') == b'a'", "assert f('complex') == 1 + 2j",
      "assert f('none') is None", "assert f('keys') == {1: 'a', (1, 2): 'b', None: 3}",
      "from collections import Counter, deque\nassert f('counter') == Counter('aab') and f('deque') == deque([1, 2])",
      "from decimal import Decimal\nassert str(f('decimal')) == '1.10' and isinstance(f('decimal'), Decimal)",
      "from fractions import Fraction\nassert f('fraction') * 3 == 1", "assert f('range') == range(3)",
      "import datetime\nassert f('date').year == 2024 and f('time') > datetime.datetime(2024, 1, 1)",
      "import math\nassert math.isnan(f('nan'))", "assert f('big') == 10 ** 40")  # fmt: skip
check("numpy in and out", """
    import numpy as np
    def f(a):
        return a * 2 if isinstance(a, np.ndarray) else np.asarray(a) / 2
    """, "import numpy as np\nassert np.array_equal(f(np.array([[1, 2]])), [[2, 4]])",
      "assert f(np.ones((2, 3), dtype=np.float32)).dtype == np.float32", "assert np.allclose(f([1, 2]), [0.5, 1.0])",
      "assert f(np.array([1])).shape == (1,) and int(f(np.array([1]))[0]) == 2")  # fmt: skip
check("exceptions", """
    class Special(ValueError):
        pass
    def f(x):
        if x < 0:
            raise Special(f"{x} is negative")
        if x > 9:
            raise KeyError(x)
        assert x != 5, "five"
        return x
    """, "try:\n    f(-1)\n    raise SystemError\nexcept ValueError as error:\n    assert 'negative' in str(error)",
      "try:\n    f(10)\n    raise SystemError\nexcept KeyError as error:\n    assert error.args == (10,)",
      "try:\n    f(5)\n    raise SystemError\nexcept AssertionError:\n    pass",
      "import unittest\nwith unittest.TestCase().assertRaises(ValueError):\n    f(-2)")  # fmt: skip
check("objects with state", """
    class Account:
        rate = 2
        def __init__(self, owner):
            self.owner, self.entries = owner, []
        def add(self, amount):
            self.entries.append(amount)
            return self
        def __len__(self):
            return len(self.entries)
        @property
        def total(self):
            return self.rate * sum(self.entries)
    def f(owner):
        return Account(owner)
    """, "a = f('x')\na.add(1).add(2)\nassert a.total == 6 and a.owner == 'x' and len(a) == 2 and a.entries == [1, 2]",
      "a = f('y')\na.owner = 'z'\nassert a.owner == 'z' and a.entries == []", "assert f('a') != f('a')")  # fmt: skip
check("generators and functions as values", """
    def f(n):
        def add(x):
            return x + n
        return add if n < 5 else (i * i for i in range(n))
    """, "assert f(1)(2) == 3", "assert list(f(5)) == [0, 1, 4, 9, 16]", "assert next(iter(f(6))) == 0",
      "assert sum(f(5)) == 30")  # fmt: skip
check("functions as arguments", """
    def f(function, items):
        return sorted(items, key=function)
    """, "assert f(lambda x: -x, [1, 3, 2]) == [3, 2, 1]", "assert f(len, ['bb', 'a']) == ['a', 'bb']",
      "assert f(str, [10, 9]) == [10, 9]")  # fmt: skip
check("an unittest", "def f(x):\n    if x is None:\n        raise TypeError('nothing')\n    return {'a': [x]}",
      "import unittest\nclass Cases(unittest.TestCase):\n    def setUp(self):\n        self.value = f(1)\n"
      "    def test_a(self):\n        self.assertEqual(self.value, {'a': [1]})\n"
      "    def test_b(self):\n        self.assertRaises(TypeError, f, None)\n        self.assertIn('a', f(2))\n",
      "run_case('Cases', 'test_a')", "run_case('Cases', 'test_b')")  # fmt: skip
check(
    "prints while it works",
    "import sys\ndef f(x):\n    print(x)\n    print(x, file=sys.stderr)\n    return x",
    "assert f(1) == 1",
)
check("files and threads", """
    import tempfile, threading
    def f(x):
        result = []
        thread = threading.Thread(target=lambda: result.append(x))
        thread.start()
        thread.join()
        with tempfile.TemporaryFile("w+") as file:
            file.write(str(result[0]))
            file.seek(0)
            return int(file.read())
    """, "assert f(7) == 7", "assert [f(i) for i in range(20)] == list(range(20))")  # fmt: skip

# Processes and sockets are refused to all programs, so these fail; the reason must say what was refused.
REFUSED["multiprocessing"] = (
    "import multiprocessing\ndef f(x):\n    multiprocessing.Process(target=print).start()\n    return 2 * x"
)
REFUSED["subprocess"] = "import subprocess\ndef f(x):\n    subprocess.run(['true'], check=True)\n    return 2 * x"
REFUSED["socket"] = "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', 80), 1)\n    return 2 * x"


def task(kind, tests, name="t"):
    entry_point = None if kind == "stdin" else "f"
    names = ("f",) if kind == "check" else ()
    public, hidden = tuple(tests[:1]), tuple(tests[1:])
    return Task(name, "b", "test", "introductory", kind, Prompt("p"), entry_point, public, hidden, names=names)


@pytest.mark.parametrize("level", LEVELS[1:])
def test_honest_programs_pass(level, monkeypatch):
    """Each level that this system has, on purpose: what a level cannot judge right stands in docs/judging.md."""
    found = probe_sandbox()
    if LEVELS.index(found["level"]) < LEVELS.index(level):
        pytest.skip(f"this system has no {level}: {found['reasons']}")
    monkeypatch.setattr(judge, "Executor", lambda *_: Executor(2, at_least=level, strongest=level))
    items = []
    for name, (source, tests) in CALLS.items():
        items.append((("call", name), source, task("call", [Test(value, arguments) for arguments, value in tests])))
    for name, (source, tests) in SCRIPTS.items():
        items.append((("stdin", name), source, task("stdin", [Test(text, stdin=given) for given, text in tests])))
    for name, (source, units) in CHECKS.items():
        items.append((("check", name), source, task("check", [Test(code=unit) for unit in units])))
    wrong = [f"{key}: {verdict}" for key, verdict in judge.judge_stream(items) if not verdict.passed]
    assert not wrong, "\n".join(wrong)


def test_what_is_refused_is_an_error_with_its_reason():
    items = [(name, source, task("call", [Test(2, (1,))])) for name, source in REFUSED.items()]
    for name, verdict in judge.judge_stream(items, workers=2):
        assert verdict.status == "error" and ("Error" in verdict.reason), (name, verdict)


@pytest.mark.parametrize("name", ["threads", "files in the working directory", "numpy", "asyncio"])
def test_small_limits_are_enough(name):
    source, tests = CALLS[name]
    limits = Limits(cpu_seconds=1, wall_seconds=10, memory_mb=512, output_mb=1)
    ((_, verdict),) = judge.judge_stream(
        [(0, source, task("call", [Test(e, a) for a, e in tests]))], workers=1, limits=limits
    )
    assert verdict.passed, verdict
