"""Quality scores against the `pylint` command itself, one process per program."""

import gzip
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cptlab.judging import quality
from cptlab.judging.quality import (
    CRASH,
    TIMEOUT,
    defuse_pragmas,
    linter_pool,
    pylint_flags,
    quality_formula,
    score_programs,
)
from cptlab.records import Message

POISON = "import math\nmath.foo = 1\nprint(math.foo)\n"
PROGRAMS = [
    "",
    "# only a comment\n",
    "def f(:\n    pass\n",  # E0001 from the parser
    "x = (1,\n",
    "def f():\n\treturn 1\n        return 2\n",  # inconsistent tabs
    "x = 'a\x00b'\n",
    "x = 1\n",
    "def add(a, b):\n    return a + b",
    POISON,
    "import math\nprint(math.foo, math.bar)\n",
    "def f(list):\n    for i in range(len(list)):\n        print(list[i])\n    unused = 3\n    return None\n",
    "def g(x):\n    if x > 1:\n        return 1\n    else:\n        return 2\n",
    "def h(x):\n    if x == True:\n        return not x == None\n    return undefined_name\n",
    "from typing import List, Optional\n\n\ndef top(values: List[int]) -> Optional[int]:\n    return max(values)\n",
    "class A:\n    def __init__(self):\n        self.x = 1\n\n    def m(self):\n        return self.y\n\n"
    "    def n():\n        return 1\n",
    "import os, sys\nfrom collections import *\ntry:\n    print(os.getcwd())\nexcept:\n    pass\nsys.exit(1)\n",
    "def f(a=[], b={}):\n    global z\n    z = a\n    return eval('b')\n",
    "f = lambda x: x\nprint(f'no placeholder', '%d %d' % (1,))\n",
    "for i in [1, 2]:\n    def inner():\n        return i\n    print(inner())\nassert (1, 2)\n",
    "def long(a, b, c, d, e, f, g):\n" + "".join(f"    v{i} = a + {i}\n" for i in range(60)) + "    return b, c, d\n",
    "async def f():\n    await g()\n    yield 1\n    return 3\n",
    "x = " + "(" * 60 + "1" + ")" * 60 + "\nx = " + " + ".join(["1"] * 300) + "\n",
    "s = 'äöü € 😀'\nprint(s.nope())\n# TODO: later\n",
    "match [1, 2]:\n    case [a, b] if a:\n        print(a)\n    case _:\n        pass\n",
    "import builtins\nbuiltins.len = lambda x: 3\nprint(len([]).foo)\n",
    "print('a')\r\nprint('b') ;\r\nif (1):\r\n    pass\r\n",
]
PRAGMAS = [
    "# pylint: skip-file\nimport os\nx = undefined\n",
    "def f(list):  # pylint: disable=all\n    y = 1 # pylint:disable=unused-variable\n    return 'pylint: text'\n",
]


# The command's own entry point in a process that has imported pylint and done nothing else: a third of the cost.
COMMAND_IN_FORKS = """
import os, sys, pylint.lint
from pylint import run_pylint
flags, folder = sys.argv[1:-1], sys.argv[-1]
for name in sorted(os.listdir(folder)):
    if os.fork() == 0:
        run_pylint([*flags, f"--output-format=json2:{folder}/{name}.json", f"{folder}/{name}"])
    os.wait()
"""


def by_command(programs: list[str], folder: Path, plain: bool = False) -> list[tuple[float, list[Message]]]:
    """Score and messages of each program by itself; `plain`: one `pylint` command each."""
    folder.mkdir()
    names = [folder / f"m{number:03}.py" for number in range(len(programs))]
    for name, program in zip(names, programs, strict=True):
        name.write_bytes(program.encode())
    if plain:
        for name in names:
            output = f"--output-format=json2:{name}.json"
            subprocess.run([sys.executable, "-m", "pylint", *pylint_flags(), output, name], check=False, cwd=folder)
    else:
        subprocess.run([sys.executable, "-P", "-c", COMMAND_IN_FORKS, *pylint_flags(), folder], check=True, cwd=folder)
    return [told(Path(f"{name}.json"), program) for name, program in zip(names, programs, strict=True)]


def told(report: Path, program: str) -> tuple[float, list[Message]]:
    report = json.loads(report.read_text())
    messages = [Message(m["messageId"], m["symbol"], m["line"]) for m in report["messages"]]
    # Without statements (E0001 is one case) the text report has no score and this one a meaningless 10: ours is 0.
    nothing = all(not line.strip() or line.startswith("#") for line in program.splitlines())
    score = 0.0 if nothing or any(m.id == "E0001" for m in messages) else report["statistics"]["score"]
    return score, messages


def check_against_command(programs: list[str], folder: Path) -> None:
    truths = by_command(programs, folder / "truth")
    order = list(range(len(programs)))
    random.Random(1).shuffle(order)
    for workers, indices in ((1, order[::-1]), (2, order)):
        for index, scored in zip(indices, score_programs([programs[i] for i in indices], workers=workers), strict=True):
            assert (scored.score, list(scored.messages)) == truths[index], programs[index]
            assert not scored.fatal and scored.pragmas == 0


def test_scores_and_messages_are_those_of_the_command(tmp_path):
    check_against_command(PROGRAMS, tmp_path)


def test_the_reference_of_these_tests_is_the_plain_command(tmp_path):
    deep = "x = " + "-" * 90 + "1\n" + "".join("    " * i + "if x:\n" for i in range(90)) + "    " * 90 + "pass\n"
    programs = [POISON, PROGRAMS[10], PROGRAMS[14], deep]
    plain = by_command(programs, tmp_path / "plain", plain=True)
    assert by_command(programs, tmp_path / "forks") == plain
    assert [(q.score, list(q.messages)) for q in score_programs(programs)] == plain


@pytest.mark.data
def test_scores_and_messages_on_programs_of_real_models(tmp_path):
    data = Path(os.environ.get("CPTLAB_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "generations"
    if not data.is_dir():
        pytest.skip(f"no folder {data}")
    programs = []
    for file in sorted(data.glob("*.jsonl.gz")):
        with gzip.open(file, "rt") as lines:
            programs += [json.loads(line)["code"] for line in lines]
    programs = random.Random(0).sample([p for p in programs if "pylint:" not in p], 12)
    check_against_command(programs, tmp_path)


def test_what_does_not_parse_or_is_empty_scores_zero():
    empty, comment, *broken = score_programs(PROGRAMS[:5])
    assert empty.score == comment.score == 0 and empty.statements == 0
    for one in broken:
        assert one.score == 0 and [message.id for message in one.messages] == ["E0001"]


def test_pragmas_are_defused_and_counted(tmp_path):
    for number, (program, pragmas) in enumerate(zip(PRAGMAS, (1, 2), strict=True)):
        defused, count = defuse_pragmas(program)
        assert count == pragmas and len(defused) == len(program)
        (scored,) = score_programs([program])
        assert scored.pragmas == pragmas
        assert [(scored.score, list(scored.messages))] == by_command([defused], tmp_path / str(number))
        assert scored.score < 10


@pytest.mark.parametrize("text", ["x = '# pylint: disable=all'\n", "pylint: int = 3\n", "'''\n# pylint: skip-file'''\n"])
def test_text_that_is_no_comment_is_left_alone(text):
    assert defuse_pragmas(text) == (text, 0)


def test_a_pragma_hidden_by_the_source_encoding_has_no_effect():
    hidden = "# coding: utf-7\nimport os\nx = y\n+ACM pylint: skip-file\n"
    (scored,) = score_programs([hidden])
    assert {message.id for message in scored.messages} >= {"E0602"}


def test_formula():
    assert quality_formula(10) == 10
    assert quality_formula(10, errors=1) == 5
    assert quality_formula(10, warnings=1, refactors=2, conventions=3) == pytest.approx(4)
    assert quality_formula(10, errors=3) == 0
    assert quality_formula(10, fatals=1) == 0
    assert quality_formula(0) == quality_formula(0, errors=1) == 0


def test_extra_disabled_checks_leave_out_their_messages():
    program = "def h(x):\n    return undefined_name + x\n"
    (with_it,), (without,) = score_programs([program]), score_programs([program], extra_disabled=("E0602",))
    assert [m.id for m in with_it.messages] == ["E0602"] and with_it.score == 0
    assert without.messages == () and without.score == 10


def test_equal_programs_are_checked_once_and_progress_counts_all():
    seen = []
    scores = score_programs([POISON, "x = 1\n", POISON, POISON], progress=seen.append)
    assert scores[0] == scores[2] == scores[3] and sum(seen) == 4 and len(seen) == 2
    assert score_programs([]) == []


def test_cache_gives_the_same_and_starts_no_linter(tmp_path, monkeypatch):
    programs = [PROGRAMS[10], PRAGMAS[1], "x = 1\n"]
    first = score_programs(programs, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(quality, "linter_pool", None)
    assert score_programs(programs, cache_dir=tmp_path / "cache") == first
    with pytest.raises(TypeError):  # another list of checks is another score
        score_programs(programs, cache_dir=tmp_path / "cache", extra_disabled=("E0602",))


def test_cache_may_be_shared(tmp_path):
    programs = [f"x = {i}\nprint(x.foo)\n" for i in range(12)]
    results = {}

    def run(name, some):
        results[name] = score_programs(some, workers=1, cache_dir=tmp_path)

    threads = [threading.Thread(target=run, args=job) for job in (("up", programs), ("down", programs[::-1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results["up"] == results["down"][::-1]


def test_a_file_that_takes_too_long_or_crashes_pylint_is_fatal_and_harms_nothing(monkeypatch):
    slow = "x = [" + "[1, 2, 3], " * 20000 + "]\n" + "".join(f"print(x[{i}].y)\n" for i in range(3000))
    monkeypatch.setattr(quality, "CPU_SECONDS", 0.5)
    scored = score_programs([slow, "x = 1\n"], workers=1)
    assert scored[0].fatal and scored[0].score == 0 and scored[0].messages == (TIMEOUT,)
    assert scored[1].score == 10
    assert quality._quality({"failed": "crashed"}, 0).messages == quality._quality(None, 0).messages == (CRASH,)


def test_servers_are_gone_afterwards_and_survive_an_early_stop():
    with linter_pool(2) as pool:
        servers = pool._servers
        answers = pool.answers((i, {"source": f"x = {i}\n"}) for i in range(50))
        next(answers)
        answers.close()
        assert dict(pool.answers([("a", {"source": "x = 1\n"})]))["a"]["statements"] == 1
    assert all(server.poll() is not None for server in servers + pool._servers)
    assert not Path(pool._scratch.name).exists()


def test_judging_imports_neither_torch_nor_lightning_nor_transformers():
    code = (
        "import sys, cptlab.judging.quality, cptlab.judging.correctness, cptlab.judging.summary\n"
        "print({'torch', 'lightning', 'transformers', 'pylint'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
