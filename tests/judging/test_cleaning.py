"""Clean raw model output. The truth throughout is the syntax tree of the program that was put in."""

import ast
import gzip
import json
import random
import time

import pytest

from cptlab.judging.cleaning.clean import clean
from cptlab.kata.benchmark import build
from cptlab.records import Prompt, Task

PROMPT = '''from typing import List
import math
import bisect


def helper(x):
    return math.floor(x)


def f(xs: List[int]) -> int:
    """ Doc (see below.
    >>> f([1])
    1
    """
'''
BODY = """    total = 0
    for x in xs:
        total += helper(x)
    return total
"""
SIGNATURE = "def f(xs: List[int]) -> int:\n"
TASK = Task("t/0", "b", "test", "", "check", Prompt(PROMPT, PROMPT), "f")
SCRIPT = "import sys\n\nn = int(input())\nfor i in range(n):\n    print(i)\n"
SCRIPT_TASK = Task("s/0", "b", "test", "", "stdin", Prompt("Print numbers up to n.\n"))


pytestmark = pytest.mark.filterwarnings("ignore:invalid escape")


def tree(program: str) -> str:
    return ast.dump(ast.parse(program))


def cleaned(raw: str, task: Task = TASK, is_solution: bool = False) -> str:
    """The cleaned text, which must be empty only if `raw` is, and the same when cleaned again, as either."""
    program = clean(raw, task, is_solution)
    assert program or not raw
    assert clean(program, task, is_solution) == program
    assert clean(program, task, True) == program
    return program


@pytest.mark.parametrize(
    "raw",
    [
        BODY,
        BODY + "\nThis function's result (a sum) isn't negative.",
        BODY + "```\n\nExplanation: it sums (see above",
        BODY + "    ```\nBye",
        BODY + '\n\ndef next_one(y):\n    """ The next prompt, cut o',
        BODY + '\n\ndef next_one(y):\n    """ The next prompt. """\n    return f([y])\n',
        BODY + '\nif __name__ == "__main__":\n    import doctest\n    doctest.testmod()\n',
        BODY + "\nprint(f([1]))\nassert f([1]) == 2\nx = f([3])\nfor y in [1, 2]:\n    print(y)\n    assert f([y])\n",
        BODY + "\n# Test\ndef check(candidate):\n    assert candidate([1]) == 1\n\ncheck(f)\n",
        BODY + "<|endoftext|>from x import y",
        BODY + "[DONE]\nNow another (task",
        BODY.lstrip(),  # the first line lost its indentation
        BODY.lstrip() + "\nAnd that's it.",
        "total = 0\nfor x in xs:\n    total += helper(x)\nreturn total",  # all lines lost theirs
        f"```python\n{BODY}```",
        "Here's the rest:\n```\ntotal = 0\nfor x in xs:\n    total += helper(x)\nreturn total\n```",
        PROMPT + BODY,
        PROMPT + BODY + "\nThat's all.",
        f"Sure, here's the function:\n\n```python\n{PROMPT}{BODY}```\nIt's O(n).",
        f"<think>def f(xs): return 1? No.</think>\n```py\n{PROMPT}{BODY}\n```",
        PROMPT + BODY.replace("\n", "\r\n"),
    ],
)
def test_completions(raw):
    assert tree(cleaned(raw)) == tree(PROMPT + BODY)


def test_a_repeated_signature_stands_alone_with_what_it_lacks_of_the_prompt():
    program = cleaned(SIGNATURE + BODY)
    before = PROMPT.split("def f")[0].replace("import bisect\n", "")
    assert tree(program) == tree(before + SIGNATURE + BODY)
    own = "def helper(x):\n    return x\n\n\n"
    assert tree(cleaned(own + SIGNATURE + BODY)) == tree("from typing import List\n" + own + SIGNATURE + BODY)
    future = "from __future__ import annotations\n"
    assert cleaned(future + SIGNATURE + BODY).startswith(future)
    needs = Task("t/1", "b", "test", "", "check", Prompt(PROMPT, PROMPT), "f", names=("bisect", "f"))
    assert "import bisect" in cleaned(SIGNATURE + BODY, needs) and "math" in cleaned(SIGNATURE + BODY, needs)


@pytest.mark.parametrize(
    "raw",
    [
        f"```python\n{SIGNATURE}{BODY}```",
        f"Sure:\n~~~\n{SIGNATURE}{BODY}~~~\n",
        f"Sure! ```python\n{SIGNATURE}{BODY}",  # never closed
        f"1. Do it:\n   ```python\n   {(SIGNATURE + BODY).replace(chr(10), chr(10) + '   ').rstrip()}\n   ```\n2. Done.",
        f"Draft:\n```python\ndef f(xs):\n    return 0\n```\nBetter:\n```python\n{SIGNATURE}{BODY}```\n```python\nprint(f([1]))\n```",
        f"```python\n{SIGNATURE}{BODY}```\nUse it:\n```python\nfrom solution import f\nprint(f([1]))\n```\n```text\n1\n```",
        f"```python\n{SIGNATURE}    ...\n```\nbecomes\n```python\n{SIGNATURE}{BODY}```\n",
        f"```python\n{SIGNATURE}{BODY}```\nas for\n```python\n{SIGNATURE}    pass\n```\n",
        f"Certainly! Here it is:\n\n{SIGNATURE}{BODY}\n\nThis works (for lists).\nprint(f([1]))",
        f"Note\n\n{SIGNATURE}{BODY}\nNote",
        f"# Solution\n\nIt's easy:\n\n{SIGNATURE}{BODY}\n## Complexity\n\nO(n)",
        f"The code:\n\n    {(SIGNATURE + BODY).replace(chr(10), chr(10) + '    ').rstrip()}\n\nDone.",
        "   " + (SIGNATURE + BODY).replace("\n", "\n   "),
        f"\ufeff{SIGNATURE}{BODY}",
        f"[PYTHON]\n{SIGNATURE}{BODY}[/PYTHON]",
        f"{SIGNATURE}{BODY}<|im_end|>",
    ],
)
def test_solutions(raw):
    assert tree(cleaned(raw, is_solution=True)) == tree(SIGNATURE + BODY)


def test_several_blocks_make_one_program():
    helper = "import math\n\n\ndef helper(x):\n    return math.floor(x)\n"
    raw = f"First a helper:\n```python\n{helper}```\nThen:\n```python\n{SIGNATURE}{BODY}```\nRun `pip`:\n```bash\npip\n```"
    assert tree(cleaned(raw, is_solution=True)) == tree(helper + SIGNATURE + BODY)


def test_a_fence_inside_a_docstring():
    program = f'{SIGNATURE}    """\n    ```\n    f([1])\n    ```\n    """\n{BODY}'
    assert cleaned(program, is_solution=True) == program
    assert tree(cleaned(f"So:\n```python\n{program}```\nBye", is_solution=True)) == tree(program)


def test_what_the_function_needs_stays_wherever_it_stands():
    program = f"""LIMIT = 3
print("loaded")
{SIGNATURE}{BODY.replace("total = 0", "total = later(LIMIT) + len(f.cache) + TABLE[0]")}

import functools
def later(x):
    return base(x)
class Unused:
    pass
base = functools.partial(max, 0)
f.cache = {{}}
TABLE = [f([])]
f = functools.wraps(f)(f)
"""
    assert cleaned(program, is_solution=True) == program
    tail = "\n# Example\nexample = [1]\nresult = f(example)\nif result:\n    print(result)\n"
    assert cleaned(program + tail, is_solution=True) == program + tail


def test_methods_of_class_solution():
    code = "class Solution:\n    def f(self, x):\n"
    task = Task("t/2", "b", "test", "", "call", Prompt("Do it.\n" + code, code), "f")
    program = code + "        y = x\n        return y\n"
    for raw in (
        "        y = x\n        return y\n\nprint(Solution().f(1))",
        "y = x\n        return y",
        program,
        f"```\n{program}```",
        "Do it.\n" + program,
    ):
        assert tree(cleaned(raw, task)) == tree(program), raw
    assert tree(cleaned(f"OK:\n{program}\nFine, right?", task, True)) == tree(program)


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("I can't do that.", PROMPT + "I can't do that."),
        ("", PROMPT),
        ("    # todo\n", PROMPT + "    # todo\n"),
        ("    return (1 +", PROMPT + "    return (1 +"),
        (f"```python\n{SIGNATURE}    return (1 +\n```\nOops", f"{SIGNATURE}    return (1 +\n"),
    ],
)
def test_what_is_no_program_is_handed_on(raw, expected):
    assert cleaned(raw) == expected
    assert cleaned(raw, is_solution=True) in (raw, expected)


def test_a_program_for_something_else_is_not_bent_into_the_function():
    kata = Task("k", "kata", "test", "", "call", Prompt("Sum.\ndef f(xs):", "def f(xs):"), "f")
    for program in ("p = 1", "def g(xs):\n    return xs\n", "import sys\nprint(sys.argv)\n", "x = 1\nprint(x)\n"):
        assert cleaned(program, kata, True) == cleaned(program, TASK, True) == program
        assert clean(program, TASK, False) == PROMPT + program
    assert (
        tree(cleaned("    return 1\n", kata, True))
        == tree(cleaned("return 1", kata, True))
        == tree("def f(xs): return 1")
    )


@pytest.mark.parametrize(
    "raw",
    [
        SCRIPT,
        f"Here's the script:\n\n```python\n{SCRIPT}```\n\nFor the input\n```\n3\n```\nit prints\n```\n0\n```",
        f"```python\nprint(1)\n```\nNo, it reads n:\n```python\n{SCRIPT}```",
        f"Read n first:\n\n{SCRIPT}\nThat's it (I think).",
        f"Print numbers up to n.\n{SCRIPT}",
        f"```\n{SCRIPT}",
    ],
)
def test_scripts(raw):
    assert tree(cleaned(raw, SCRIPT_TASK)) == tree(SCRIPT) == tree(cleaned(raw, SCRIPT_TASK, True))


def test_scripts_keep_everything_that_runs():
    program = SCRIPT + '\n\ndef main():\n    print(2)\n\n\nassert n\nif __name__ == "__main__":\n    main()\n'
    assert cleaned(program, SCRIPT_TASK) == program
    assert cleaned("print 1\nfor", SCRIPT_TASK) == "print 1\nfor"


@pytest.mark.parametrize("last", ["return total", "else:", "break", "raise ValueError", "pass  # done", "assert total"])
def test_a_part_of_a_broken_script_is_no_program(last):
    """The line in front of what Python can read is no prose, so the script is not what stands behind it."""
    broken = f"n = int(input())\n    total = 0\n    {last}\nfor i in range(len(result)):\n    print(result[i] ** 2)\nprint(1)\n"
    assert cleaned(broken, SCRIPT_TASK) == broken
    behind = f"for i in range(3):\n    print(i)\nprint(input())\n{last}\n    n = = 2\n"
    assert cleaned(behind, SCRIPT_TASK) == behind


CHAT = (
    "{p}",
    "Sure! Here's a solution:\n\n```python\n{p}```\n\nThis works because it's O(n). For example, f(1) returns 2.",
    "Here is the code:\n\n{p}\n\nThis code's complexity (time) is O(n).",
    "```\n{p}",
    "{p}\n\nExplanation: doesn't matter",
)


def test_kata_solutions_come_out_of_any_wrapping():
    rng = random.Random(0)
    for task in build()[0]:
        assert clean(task.canonical_solution, task, True) == task.canonical_solution
        assert clean(task.canonical_solution.removeprefix(task.prompt.code), task, False) == task.canonical_solution
        if rng.random() < 0.02:
            body = task.canonical_solution.removeprefix(task.prompt.code)
            for text in CHAT:
                assert tree(cleaned(text.format(p=task.canonical_solution), task, True)) == tree(
                    task.canonical_solution
                ), text
                assert tree(cleaned(text.format(p=body), task)) == tree(task.canonical_solution), text
            assert tree(cleaned(task.prompt.text + body + "\nThat's it", task)) == tree(task.canonical_solution)


@pytest.mark.data
@pytest.mark.parametrize("name", ["humaneval", "humaneval_plus", "mbpp", "mbpp_sanitized", "mbpp_plus", "bigcodebench"])
def test_canonical_solutions_are_left_alone(name, data_dir):
    import importlib

    module = "cptlab.tasks." + name.split("_")[0]
    rng = random.Random(0)
    for task in getattr(importlib.import_module(module), name)(data_dir).tasks:
        program = clean(task.canonical_solution, task, True)
        if program != task.canonical_solution:  # three of MBPP print or call something behind the function
            assert name.startswith("mbpp") and program == task.canonical_solution[: len(program)].rstrip("\n") + "\n", (
                task.id
            )
        body = task.canonical_solution.removeprefix(task.prompt.code)
        assert tree(clean(body, task, False)) == tree(program), task.id
        if rng.random() < 0.15:
            for text in CHAT[1:]:
                assert tree(cleaned(text.format(p=task.canonical_solution), task, True)) == tree(program), (
                    task.id,
                    text,
                )


@pytest.mark.data
def test_real_programs_lose_only_their_own_tests(data_dir):
    with gzip.open(data_dir / "humaneval/HumanEval.jsonl.gz", "rt") as file:
        rows = {row["task_id"]: row for row in map(json.loads, file)}
    with gzip.open(data_dir / "generations/humaneval.jsonl.gz", "rt") as file:
        programs = [(row["task_id"], row["code"]) for row in map(json.loads, file)]
    changed = 0
    for task_id, code in programs:
        prompt = rows[task_id]["prompt"]
        task = Task(task_id, "humaneval", "test", "", "check", Prompt(prompt, prompt), rows[task_id]["entry_point"])
        program = cleaned(code, task, True)
        if program == code:
            continue
        changed += 1
        try:
            before = [ast.dump(s) for s in ast.parse(code).body]
        except SyntaxError:
            continue  # indented as a whole
        if not any(getattr(s, "name", "") == task.entry_point for s in ast.parse(code).body):
            continue  # a body
        after = [ast.dump(s) for s in ast.parse(program).body]
        lost = [s for s in ast.parse(code).body if ast.dump(s) not in after]
        assert [s for s in before if s in after] == after
        assert all(isinstance(s, (ast.Assert, ast.Expr, ast.Assign, ast.If, ast.For)) for s in lost), code
        first = next(i for i, s in enumerate(ast.parse(code).body) if getattr(s, "name", "") == task.entry_point)
        assert before[: first + 1] == after[: first + 1]
    assert 0 < changed < len(programs) / 3


@pytest.mark.parametrize(
    "raw",
    [
        "(" * 1_000_000,
        "[" * 100_000 + "]" * 100_000,
        "-" * 900_000 + "1",
        "not " * 200_000 + "x",
        "a" + ".b" * 300_000,
        "f" + "()" * 300_000,
        "1" + "+1" * 300_000,
        "lambda: " * 100_000 + "0",
        "if x: pass\n" + "elif x: pass\n" * 50_000,
        "".join(" " * i + "if x:\n" for i in range(150)),
        "'" * 999_999,
        "\\\n" * 300_000,
        "a=" * 20_000 + "1",
        "1" * 1_000_000,
        "a\0b",
        "\ud800",
        "```\n" * 50_000,
        "```python\ndef f(xs):\n" * 20_000,
        "def f(xs): return 1\n)\n" * 20_000,
        "word and words (\n" * 50_000,
        "    x = '''\n" * 50_000,
        " " * 1_000_000,
        "\n" * 1_000_000,
        "import a\n" * 100_000 + "(",
        "x = (\n" * 20_000,
        "def f(xs):\n    return 1\n" + "print(f(1))\n" * 8_000,
        "```x\n" + "for example, (a\n" * 20_000,
        "#" * 1_000_000,
        "<think>" * 100_000,
        "<|a|>" * 100_000,
        "`" * 1_000_000,
        "def f(xs):\n" + " pass\n" * 100_000 + "(",
    ],
)
def test_hostile_texts_take_bounded_time(raw):
    for task, is_solution in ((TASK, True), (TASK, False), (SCRIPT_TASK, True)):
        start = time.process_time()
        assert clean(raw, task, is_solution)
        assert time.process_time() - start < 10
