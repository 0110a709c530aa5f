"""Statements behind a function: cleaning may drop one only where the function's answers stay as they are.

The truth is the program as it was given, run with its test in one namespace.
"""

import pytest

from cptlab.judging.cleaning.clean import clean
from cptlab.records import Prompt, Task

TASK = Task("t/0", "b", "test", "", "check", Prompt("def f(n):\n", "def f(n):\n"), "f")
PURE = "def f(n):\n    return 2 * n\n"
FIB = "def f(n):\n    if n < len(dp):\n        return dp[n]\n    return f(n - 1) + f(n - 2)\n"
TABLE = "def f(n):\n    return table[n]\n"


def passes(program: str, test: str) -> bool:
    namespace = {"__name__": "program"}
    try:
        exec(program, namespace)
        exec(test, namespace)
    except Exception:
        return False
    return True


NEEDED = {  # program, test: the statements behind the function decide
    "a table that the function fills": (f"dp = [0, 1]\n{FIB}for i in range(2, 30):\n    dp.append(f(i))\n", "len(dp) == 30"),
    "a table under another name": (f"table = []\nt = table\n{TABLE}t.extend(f'{{i}}' for i in range(9))\n", "f(3) == '3'"),
    "a table by an assert": (f"table = [1]\n{TABLE}assert table.append(2) is None\n", "f(1) == 2"),
    "a table by a print": (f"table = [1]\n{TABLE}print(table.append(f(0)))\n", "f(1) == 1"),
    "a table by a comprehension": (f"table = {{}}\n{TABLE}[table.setdefault(i, f) for i in range(9)]\n", "f(1) is f"),
    "a table by a helper in a branch": (
        f"table = {{}}\n{TABLE}def fill():\n    table[1] = f\nif not table:\n    print(fill())\n",
        "f(1) is f",
    ),
    "a table by a helper's helper": (
        f"table = {{}}\n{TABLE}def put(t):\n    t[1] = 5\ndef main():\n    put(table)\nmain()\n",
        "f(1) == 5",
    ),
    "a table by try": (f"table = {{}}\n{TABLE}try:\n    f(1)\nexcept KeyError:\n    test_it = table.update({{1: 2}})\n", "f(1) == 2"),
    "a table by an object": (
        f"table = {{}}\n{TABLE}class Filler:\n    def run(self):\n        table[1] = 3\nx = Filler()\nprint(x.run())\n",
        "f(1) == 3",
    ),
    "a table by a decorator": (
        f"table = {{}}\n{TABLE}def put(g):\n    table[1] = g\n    return g\n@put\ndef g():\n    return f\n",
        "f(1)() is f",
    ),
    "a registry": (f"table = [0]\n{TABLE}def g(n):\n    return f(n)\nprint(table.insert(0, g))\n", "f(0) is g"),
    "an iterator that a loop takes from": ("it = iter(range(5))\ndef f(n):\n    return next(it)\nfor x in it:\n    if x > 1:\n        break\n", "f(0) == 3"),
    "setattr": ("def f(n):\n    return f.k * n\nsetattr(f, 'k', 2)\n", "f(2) == 4"),
    "setattr by another name": ("def f(n):\n    return f.k * n\ng = f\nprint(setattr(g, 'k', 2))\n", "f(2) == 4"),
    "an attribute by main": ("def f(n):\n    return f.k * n\ndef main():\n    f.k = 2\nmain()\n", "f(2) == 4"),
    "an attribute through an alias": ("def f(n):\n    return f.k * n\ng = f\ndef main():\n    g.k = 2\nmain()\n", "f(2) == 4"),
    "vars": ("def f(n):\n    return f.k * n\nprint(vars(f).update(k=2))\n", "f(2) == 4"),
    "a global of main": ("def f(n):\n    return K * n\ndef main():\n    global K\n    K = 2\nmain()\n", "f(2) == 4"),
    "a global changed by main": ("K = 2\ndef f(n):\n    return K * n\ndef main():\n    global K\n    K = f(1)\nmain()\nprint(f(1))\n", "f(2) == 4"),
    "globals()": ("def f(n):\n    return K * n\nprint(globals().update(K=2))\n", "f(2) == 4"),
    "exec": ("def f(n):\n    return K * n\nprint(exec('K = 2'))\n", "f(2) == 4"),
    "not the main block": ("def f(n):\n    return g(n)\nif __name__ != '__main__':\n    def g(n):\n        return n\n", "f(2) == 2"),
    "the else of the main block": (
        "def f(n):\n    return g(n)\nif __name__ == '__main__':\n    print(f(1))\nelse:\n    g = abs\n",
        "f(-2) == 2",
    ),
    "a warm cache": (
        "from functools import cache\n@cache\ndef f(n):\n    return n and f(n - 1) + 1\nfor i in range(3000):\n    f(i)\n",
        "f(2999) == 2999",
    ),
    "a memo of default values": ("def f(n, memo={}):\n    memo[n] = memo.get(n, 0) + 1\n    return memo[n]\nprint(f(1))\n", "f(1) == 2"),
    "a counter": ("seen = 0\ndef f(n):\n    global seen\n    seen += 1\n    return seen\nassert f(0) == 1\n", "f(0) == 2"),
    "a counter in a class": (
        "class C:\n    k = 0\ndef f(n):\n    C.k += 1\n    return C.k\nassert f(0) == 1\n",
        "f(0) == 2",
    ),
    "a class attribute by a method": (
        "class C:\n    k = 0\n    @classmethod\n    def up(cls):\n        cls.k += 1\n        return cls.k\n"
        "def f(n):\n    return C.up()\nprint(f(0))\n",
        "f(0) == 2",
    ),
    "a closure": (
        "def make():\n    seen = []\n    def inner(n):\n        seen.append(n)\n        return len(seen)\n    return inner\n"
        "f = make()\nprint(f(1))\n",
        "f(1) == 2",
    ),
    "random's state": ("import random\ndef f(n):\n    return random.random()\ndef main():\n    random.seed(1)\nmain()\n", "f(1) == __import__('random').Random(1).random()"),
    "the recursion limit": (
        "import sys\nsys.setrecursionlimit(900)\ndef f(n):\n    return n and f(n - 1) + 1\ndef main():\n    sys.setrecursionlimit(9000)\nmain()\n",
        "f(2000) == 2000",
    ),
    "its own name by a walrus": (f"{PURE}print(f := abs)\n", "f(-1) == 1"),
    "a count of the objects' type": ("class A:\n    n = 0\n    def __init__(self):\n        type(self).n += 1\ndef f(x):\n    return A.n\nprint(A())\n", "f(0) == 1"),
    "the globals of a frame": ("import sys\ndef f(n):\n    return K * n\nprint(sys._getframe(0).f_globals.update(K=2))\n", "f(2) == 4"),
    "a helper that eval names": ("def f(n):\n    return eval('g(n)')\ndef g(n):\n    return 2 * n\n", "f(2) == 4"),
    "a helper that globals() names": ("def f(n):\n    return globals()[f'g{n}']()\ndef g1():\n    return 2\n", "f(1) == 2"),
    "a module's function": ("import math\ndef f(n):\n    return math.sqrt(n)\ndef main():\n    math.sqrt = abs\nmain()\n", "f(-4) == 4"),
}  # fmt: skip
CORRUPTING = {
    "a call that counts": ("store = {'k': 2}\ndef f(n):\n    return store['k'] * n\nstore.update(k=f(3))\n", "f(1) == 2"),
    "an assert that empties": ("table = [1]\ndef f(n):\n    return table[-1]\nassert table.pop() == 1\n", "f(0) == 1"),
    "a loop that empties": ("table = [1]\ndef f(n):\n    return table[-1]\nwhile table:\n    print(table.pop())\n", "f(0) == 1"),
    "answers that lack": ("answers = []\ndef f(n):\n    return answers[n] if answers else n\nanswers.extend(f(i) for i in range(3))\n", "f(9) == 9"),
    "an except that unbinds it": (f"{PURE}try:\n    f(None) + 1\nexcept TypeError as f:\n    pass\n", "f(1) == 2"),
    "another function of the name": (f"{PURE}if f(1) == 2:\n    f = abs\n", "f(3) == 6"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_stays_changed(monkeypatch):
    import math
    import random
    import sys

    monkeypatch.setattr(math, "sqrt", math.sqrt)
    before, state = sys.getrecursionlimit(), random.getstate()
    yield
    sys.setrecursionlimit(before)
    random.setstate(state)


@pytest.mark.parametrize("wrapping", ["{p}", "Here it is:\n```python\n{p}```\nDone (I think"])
@pytest.mark.parametrize("name", [*NEEDED, *CORRUPTING])
def test_statements_that_decide_stay(name, wrapping):
    program, test = (NEEDED | CORRUPTING)[name]
    right = name in NEEDED
    assert passes(program, f"assert {test}") is right
    assert passes(clean(wrapping.format(p=program), TASK, True), f"assert {test}") is right


@pytest.mark.parametrize(
    "name", [name for name, (program, _) in (NEEDED | CORRUPTING).items() if program.startswith("def f(n):\n")]
)
def test_statements_that_decide_stay_behind_the_body_of_a_prompt(name):
    program, test = (NEEDED | CORRUPTING)[name]
    body = program.removeprefix("def f(n):\n")
    assert passes(clean(body, TASK, False), f"assert {test}") is (name in NEEDED)


@pytest.mark.parametrize("statement", ["assert f(1) == 3", "1 / 0", "print(f())", "raise ValueError", "f(None + 1)"])
def test_a_program_that_fails_by_itself_is_not_repaired(statement):
    program = f"{PURE}{statement}\n"
    assert not passes(program, "assert f(1) == 2")
    assert clean(program, TASK, True) == program


@pytest.mark.parametrize(
    "usage",
    [
        "assert f(1) == 3",
        "print(f(1))\nx = f(2)\nprint(x)",
        "def main():\n    print(f(1))\n\nmain()",
        "def check(candidate):\n    assert candidate(1) == 2\n\ncheck(f)",
        "for i in [1, 2]:\n    print(i, f(i))\n    assert f(i)",
        "import doctest\ndoctest.testmod()",
        "n = int(input())\nprint(f(n))",
        'if __name__ == "__main__":\n    print(f(1))',
    ],
)
@pytest.mark.parametrize(
    "before", ["", "import math\nfrom typing import List\nK = 2\nINF = float('inf')\n\n\ndef g(n):\n    return n\n\n\n"]
)
def test_usage_of_a_function_without_state_goes(usage, before):
    function = f"def f(n):\n    return {'2 * n' if not before else 'g(K * n) if n < INF else math.pi'}\n"
    program = clean(f"Sure:\n```python\n{before}{function}\n{usage}\n```\nBye", TASK, True)
    definitions = "".join(f"\n{part}\n" for part in usage.split("\n\n")[:-1])  # they may stay: they run nothing
    allowed = [f"{before}{function}{more}".rstrip() for more in ("", definitions, "\nimport doctest")]
    assert program.rstrip() in allowed
