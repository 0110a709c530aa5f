"""Where programs end: by hand, on the functions of this package, on kata's and the benchmarks' references."""

import ast
import random
import warnings
from pathlib import Path

import pytest
from test_decoding import double

from cptlab.backbone import load_backbone
from cptlab.decoding.stopping_criteria import StoppingCriteria
from cptlab.kata.benchmark import build
from cptlab.tasks.bigcodebench import bigcodebench
from cptlab.tasks.humaneval import humaneval
from cptlab.tasks.mbpp import mbpp

FUNCTION = StoppingCriteria(function_end=True)
SIGNATURE = "def f(x):\n"
DOCSTRING = 'import re\n\n\ndef f(x):\n    """Say \\d."""\n'
JUNK = ["print(solve([]))\n", "def other():\n", "@wraps\ndef g(): ...", "class C:", "```\nThat is it.", "# Test\nsolve(1)",
        ")", ">>> solve(1)", "é = 1", "if __name__ == '__main__':"]  # fmt: skip


def ends(code, marked, stopping=FUNCTION):
    """Whether `marked`, a text with ¦ at its end, ends there."""
    end = marked.find("¦")
    assert stopping.end(code, marked.replace("¦", "")) == end
    if end >= 0 and stopping == FUNCTION:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(code + marked[:end])


@pytest.mark.parametrize("code, marked", [
    (SIGNATURE, "    return 1\n¦print(f(1))"),
    (SIGNATURE, "    return 1\n"),
    (SIGNATURE, "    return 1\n¦\n\n\nprint(f(1))"),
    (SIGNATURE, "    return 1\r\n¦\r\nf(1)"),
    (SIGNATURE, "    return 1\n¦\n# Test the function\n\nf(1)"),
    (SIGNATURE, "    return 1\n    # done\n¦# Test\nf(1)"),
    (SIGNATURE, "    return 1\n\n# only a comment\n"),
    (SIGNATURE, "    x = 1\n# a comment in column 0\n\n    return x\n¦f(1)"),
    (SIGNATURE, '    x = """\nprint(1)\n# two"""\n    return x\n¦f(1)'),
    (SIGNATURE, '    return """\n# three"""\n¦\n# four\nf(1)'),
    (SIGNATURE, "    x = [\n1,\n]\n    return x\n¦f(1)"),
    (SIGNATURE, "    x = f(\n1,\n"),
    (SIGNATURE, "    x = 1 + \\\n2\n    return x\n¦f(1)"),
    (SIGNATURE, "    return 1 + \\\nx\n¦f(1)"),
    (SIGNATURE, "    return x\\\n\\\n\n¦f(1)"),
    (SIGNATURE, "    return x  # \\\n\n¦\nf(1)"),
    (SIGNATURE, "    if x:\n        return 1\n¦else:\n"),
    (SIGNATURE, "    try:\n        return 1\nexcept E:\n    pass\n"),
    (SIGNATURE, "    @g\n    def h():\n        return 1\n    return h\n¦@g\ndef i(): pass"),
    (SIGNATURE, "    return '\n"),
    (SIGNATURE, "f(1)\n"),
    ("def f(x):", " return x\n¦f(1)"),
    ("def f(x):", "\n    return x\n¦f(1)"),
    ("def f(x):", "f(1)"),
    ("def f(a", ",\nb):\n    return a\n¦f(1)"),
    (DOCSTRING, "    return 1\n¦f(1)"),
    (DOCSTRING, "f(1)\nf(2)\n"),
    (DOCSTRING, "import os\n\n\ndef f(x):\n    return g(x)\n¦\n\ndef g(x):\n    return x\n"),
    (DOCSTRING, 'def g(x):\n    return x\n\n\ndef f(x):\n    """Say."""\n    return g(x)\n¦f(1)'),
    (DOCSTRING + "    return 1\n", "¦f(1)"),
    (DOCSTRING + "    return 1\n", "¦\n\nf(1)"),
    ("async def f(x):\n", "    await x\n¦f(1)"),
    ("@g\n", "def f(x):\n    return x\n¦f(1)"),
    ("@g\n@h(\n1)\ndef f(x):\n", "    return x\n¦f(1)"),
    ("class S:\n    def f(self):\n        'Say.'\n", "        return 1\n\n    def g(self):\n        return 2\n¦S()"),
    ("class S:\n    x = 1\n    def f(self):\n        'Say.'\n", "S().f()\n"),
    ("def g():\n    pass\n\n\ndef f(x):\n", "    return g()\n¦f(1)"),
    ("import os\n", "def f():\n    pass\nf()\n"),
    ("x = 1\n", "print(x)\nprint(x)\n"),
    ("", "def f():\n    pass\n\n\nf()\n"),
])  # fmt: skip
def test_by_hand(code, marked):
    ends(code, marked)


@pytest.mark.parametrize("text", ["    x = 1\x00\nf()", "    x = '\ud800'\nf()", "    return " + "(" * 300 + "\nf()",
                                  "    return x" + ".x" * 50_000 + "\nf()", "    return " + "-" * 50_000 + "1\nf()",
                                  "    return " + "9" * 5000 + "\nf()"])  # fmt: skip
def test_texts_that_cannot_be_parsed_do_not_end(text):
    ends(SIGNATURE, text)


def test_no_warning_leaves():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FUNCTION.end(SIGNATURE, "    return '\\d'\nf(1)") == 16


def test_stop_texts_and_functions_whichever_ends_first():
    text = "    return 'ab'\nprint(f(1))\n```"
    ends(SIGNATURE, "    return 'ab'\nprint(f(1))\n¦```", StoppingCriteria(("```", "xyz")))
    ends(SIGNATURE, "    return 'ab'¦\nprint(f(1))\n```", StoppingCriteria(("\n", "f(")))
    ends(SIGNATURE, "    return 'ab'\n¦print(f(1))\n```", StoppingCriteria(("```",), function_end=True))
    ends(SIGNATURE, "    return '¦ab'\nprint(f(1))\n```", StoppingCriteria(("ab",), function_end=True))
    ends("", "    return 'ab'\nprint(f(1))\n¦```", StoppingCriteria(("```",), function_end=True))
    assert StoppingCriteria().end(SIGNATURE, text) == -1


def functions(source):
    """(code, text, end) for every function at the top of a module: up to its first statement, all that follows, and
    where it ends in that (-1 for the last thing of the module)."""
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if ast.unparse(node).endswith('"""'):
            continue  # no body but a docstring, or a last method without one: more is expected there
        for begin in {node.body[0].lineno, node.body[min(1, len(node.body) - 1)].lineno}:
            begin = min(
                [begin, *(d.lineno for n in node.body for d in getattr(n, "decorator_list", ()) if n.lineno == begin)]
            )
            if begin == node.lineno:
                continue
            code, text = "".join(lines[: begin - 1]), "".join(lines[begin - 1 :])
            last = node is tree.body[-1]
            yield code, text, -1 if last else len("".join(lines[begin - 1 : node.end_lineno]))


@pytest.mark.slow
def test_functions_of_this_package():
    seen = 0
    for path in sorted((Path(__file__).resolve().parents[2] / "cptlab").rglob("*.py")):
        for code, text, end in functions(path.read_text(encoding="utf-8")):
            assert FUNCTION.end(code, text) == end, (path, code[-200:])
            seen += end >= 0
    assert seen > 300


def calls(count=20):
    return [task for task in random.Random(3).sample(build()[0], 200) if task.kind == "call"][:count]


def test_kata_references_end_with_the_first_character_behind_them():
    for task, junk in zip(calls(), JUNK * 2, strict=True):
        body = task.canonical_solution[len(task.prompt.code) :]
        for blank in ("", "\n\n"):
            text = body + blank + junk
            shown = len(body + blank) + (junk.index("solve") if junk.startswith("#") else 0)
            for length in range(len(text) + 1):
                assert FUNCTION.end(task.prompt.code, text[:length]) == (len(body) if length > shown else -1)


def test_looking_every_few_characters_finds_the_same_and_parses_each_line_once(monkeypatch):
    rng, parsed, parse = random.Random(5), [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: (parsed.append(text), parse(text))[1])
    stopping = StoppingCriteria(("STOP",), function_end=True)
    for text in (
        '    """\n' + "x\n" * 200 + '    """\n    return 1\nf(1)\n' + "y\n" * 30,
        "    return (\n" + "x\n" * 200 + "\nSTOP" + "y\n" * 30,
    ):
        parsed.clear()
        at = seen = 0
        while stopping.end(SIGNATURE, text[:at], seen) < 0:
            seen, at = at, at + rng.randrange(1, 9)
            assert at < len(text) + 9
        assert stopping.end(SIGNATURE, text[:at], seen) == stopping.end(SIGNATURE, text)
        assert min(text.find(end) for end in ("f(1)", "STOP") if end in text) < at
        assert len(parsed) < 900  # a few times for each of 200 lines, not 200 times


@pytest.mark.parametrize("stopping", [FUNCTION, StoppingCriteria(("en", "é", "1)"), True), StoppingCriteria(("\n\n",))])
@pytest.mark.parametrize("name", ["kata-lm", "bytes"])
def test_cut_keeps_the_shortest_beginning_that_shows_the_end(name, stopping):
    backbone = load_backbone("kata-lm") if name == "kata-lm" else double("llama_gqa")
    healed, code = "def", " f(x):\n"
    text = "def" + "    # été\n    return 'ende' + \"日本\"\n\nété(1)\nprint(2)\n\n\n"
    ids = backbone.encode_completion(text)
    kept, raw, program, stopped = stopping.cut(backbone, ids, "def" + code, healed)
    first = next(k for k in range(len(ids)) if stopping.end("def" + code, backbone.decode(ids[: k + 1])[3:]) >= 0) + 1
    assert stopped and kept == ids[:first] and raw == backbone.decode(kept)[3:]
    assert program == raw[: stopping.end("def" + code, raw)] and len(program) < len(raw)
    short = ids[: first - 1]
    raw = backbone.decode(short)[3:]
    assert stopping.cut(backbone, short, "def" + code, healed) == (short, raw, raw, False)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("build", [humaneval, bigcodebench])
def test_benchmark_references_end_behind_their_function(data_dir, build):
    for task in build(str(data_dir)).tasks:
        code = task.prompt.code
        assert task.canonical_solution.startswith(code)
        tree, lines = ast.parse(task.canonical_solution), task.canonical_solution.splitlines(keepends=True)
        function = next(node for node in tree.body if node.end_lineno > code.count("\n"))
        text = task.canonical_solution.rstrip()[len(code) :] + "\n"
        end = len("".join(lines[: function.end_lineno]).rstrip()) + 1 - len(code)
        for junk in ("\n\nprint(1)", "assert 1", "\n# Test\nx"):
            assert FUNCTION.end(code, text + junk) == end


@pytest.mark.data
def test_scripts_do_not_end(data_dir):
    assert all(
        FUNCTION.end(task.prompt.code, task.canonical_solution + "\nprint(1)") == -1
        for task in mbpp(str(data_dir)).tasks
    )
