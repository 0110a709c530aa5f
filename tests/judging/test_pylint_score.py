"""Quality scores against the `pylint` command itself, one process per program."""

import gzip
import hashlib
import itertools
import json
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cptlab.errors import UserError
from cptlab.judging.lint import pylint_checks, pylint_score
from cptlab.judging.lint.pylint_checks import pylint_flags
from cptlab.judging.lint.pylint_score import (
    CRASH,
    TIMEOUT,
    linter_pool,
    quality_formula,
    quality_of,
    score_programs,
    score_stream,
)
from cptlab.judging.scorers.pylint import Pylint
from cptlab.judging.workers.server_pool import ServerPool
from cptlab.records import Message

ROOT = Path(__file__).resolve().parents[2]
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
    "\ufeffx = y\n\x0c\nz = 'a\x0cb'\rw = x.foo\n",
    "x = '\udc80'\n",  # no UTF-8: F0010
    "# coding: latin-1\nx = 'é'.nope\n",
    "# coding: nonsense\nx = 1\n",
    "import sys\nsys.modules['math'] = None\nimport math\nprint(math.nope)\n",
    "from collections import OrderedDict\nOrderedDict.foo = 3\nOrderedDict().foo()\nOrderedDict().bar()\n",
    "from collections import OrderedDict\nOrderedDict().foo()\n",
    "import re\nfrom enum import Enum\n\n\nclass C(Enum):\n    A = re.compile('').nope\n\n\nprint(C.B, C.A.value.x)\n",
    "import struct, resource\ntry:\n    struct.pack()\nexcept struct.error as e:\n    print(e.nope)\n"
    "except resource.error:\n    raise struct.Struct\n",
    "class M(type):\n    def __call__(cls):\n        return cls.__init__.foo\n\n\nclass A(metaclass=M):\n    pass\n\n\n"
    "try:\n    A().m()\nexcept (TypeError, OSError) as e:\n    print(e.__cause__.foo, e.filename.x, e.nope)\n",
]
PRAGMAS = [  # program and number of comments that the command would obey
    ("# pylint: skip-file\nimport os\nx = undefined\n", 1),
    ("def f(list):  # pylint: disable=all\n    y = 1 # pylint:disable=unused-variable\n    return 'pylint: text'\n", 2),
    ("#pylint:disable=all\nx = y\n", 1),
    ("x = y  # why not  pylint:   disable = undefined-variable ; because\n", 1),
    ("# a # pylint: enable=all # b # pylint: disable=E0602\nx = y\n", 1),
    ("# PYLINT: disable=all\n# pylint : disable=all\n# xpylint: disable=all\nx = y\n", 0),
    ("x = '# pylint: disable=all'\npylint: int = y\n'''\n# pylint: skip-file'''\n", 0),
    (
        "x = (y,  # pylint: disable-next=all\n     # pylint: disable-msg=E0602\n     z)\nw = \\\n    y  # pylint: disable=E0602\n",
        3,
    ),
    ("\ufeff# pylint: disable=all\r\nx = y\r\n", 1),
    ("# coding: utf-7\nimport os\nx = y\n+ACM pylint: skip-file\n", 1),  # hidden by the encoding
    ("# pylint: disable=all\nx = (y\n", 1),  # does not parse
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
        name.write_bytes(program.encode("utf-8", "surrogatepass"))
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
            assert scored.pragmas == 0


def test_scores_and_messages_are_those_of_the_command(tmp_path):
    check_against_command(PROGRAMS, tmp_path)


def test_the_reference_of_these_tests_is_the_plain_command(tmp_path):
    deep = "x = " + "-" * 90 + "1\n" + "".join("    " * i + "if x:\n" for i in range(90)) + "    " * 90 + "pass\n"
    programs = [POISON, PROGRAMS[10], PROGRAMS[14], deep]
    plain = by_command(programs, tmp_path / "plain", plain=True)
    assert by_command(programs, tmp_path / "forks") == plain
    assert [(q.score, list(q.messages)) for q in score_programs(programs)] == plain


COMMAND_MODULES = """
import sys
from pylint import run_pylint
from pylint.lint import PyLinter
PyLinter._lint_files = lambda *arguments: print(*sys.modules, file=sys.stderr)
run_pylint()
"""
OURS = {"cptlab.judging.lint.linter_server", "cptlab.judging.lint.stopped_linter"}
SERVER_MODULES = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cptlab.judging.lint.linter_server import main
main(json.loads(sys.argv[2]))
print(*sys.modules, file=sys.stderr)
"""


def test_the_linter_has_loaded_the_modules_that_the_command_has_loaded(tmp_path):
    def loaded(*command):
        done = subprocess.run([sys.executable, "-P", "-c", *command], stdin=subprocess.DEVNULL, capture_output=True)
        return set(done.stderr.decode().split())

    (tmp_path / "program.py").write_text("x = 1\n")
    arguments = {"flags": pylint_flags(), "scratch": str(tmp_path), "cpu_seconds": 1, "memory_mb": 4096}
    command = loaded(COMMAND_MODULES, *pylint_flags(), str(tmp_path / "program.py"))
    server = loaded(SERVER_MODULES, str(ROOT), json.dumps(arguments))
    assert len(command) > 300 and command - server == set()
    assert server - command == {"cptlab", "cptlab.judging", "cptlab.judging.lint", *OURS}


@pytest.mark.slow
@pytest.mark.data
def test_scores_and_messages_on_programs_of_real_models(tmp_path, data_dir):
    programs = set()
    for file in sorted((data_dir / "generations").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            programs |= {json.loads(line)["code"] for line in lines}
    check_against_command(random.Random(0).sample(sorted(programs), 12), tmp_path)


def test_what_does_not_parse_or_is_empty_scores_zero():
    empty, comment, *broken = score_programs(PROGRAMS[:5])
    assert empty.score == comment.score == 0 and empty.statements == 0
    for one in broken:
        assert one.score == 0 and [message.id for message in one.messages] == ["E0001"]


def test_pragmas_are_counted_and_not_obeyed(tmp_path):
    """The score is the command's without them; left alone, each changes what the command says."""
    plain = [program.replace("pylint:", "pylint;") if pragmas else program for program, pragmas in PRAGMAS]
    obeyed = [program for program, pragmas in PRAGMAS if pragmas][:-1]  # the last does not parse
    truths = by_command(plain + obeyed, tmp_path / "truth")
    scores = score_programs([program for program, _ in PRAGMAS])
    for (program, pragmas), scored, truth in zip(PRAGMAS, scores, truths, strict=False):
        assert (scored.score, list(scored.messages)) == truth, program
        assert scored.pragmas == pragmas and scored.messages, program
    said = {program: list(scored.messages) for (program, _), scored in zip(PRAGMAS, scores, strict=True)}
    for program, (_, messages) in zip(obeyed, truths[len(PRAGMAS) :], strict=True):
        assert messages != said[program], program


def test_the_list_of_checks_is_frozen_and_documented():
    """Whoever changes the list raises CHECKS_VERSION, or old cached scores would mix with new ones."""
    digest = hashlib.sha256(" ".join(pylint_checks.DISABLED_CHECKS).encode()).hexdigest()[:12]
    assert (pylint_checks.CHECKS_VERSION, digest) == ("1", "b1d3db66565d")
    page = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    table = page.split("## The list")[1].split("W0621")[0]
    assert sorted(re.findall(r"\b([CRWEF]\d{4}) [a-z]", table)) == sorted(pylint_checks.DISABLED_CHECKS)
    assert f"Version {pylint_checks.CHECKS_VERSION}, checked with pylint {pylint_checks.PYLINT_VERSION}" in page


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


@pytest.mark.parametrize("name", ["W9999", "all", "W", "nope"])
def test_extra_disabled_checks_are_those_of_pylint(name):  # an unknown one would be charged to every program, as W0012
    with pytest.raises(UserError, match=f"extra_disabled has {name}, and pylint has no such message"):
        Pylint(["E0602", name]).check()
    Pylint(["E0602", "unused-variable"]).check()


def test_equal_programs_are_checked_once_and_progress_counts_all():
    seen = []
    scores = score_programs([POISON, "x = 1\n", POISON, POISON], progress=seen.append)
    assert scores[0] == scores[2] == scores[3] and sum(seen) == 4 and len(seen) == 2
    assert score_programs([]) == []


def test_stream_gives_each_key_once_and_pulls_as_needed():
    pulled = 0

    def items():
        nonlocal pulled
        for number in range(40):
            pulled += 1
            yield f"key {number}", f"x = {number}\nprint(y{number % 3})\n"

    keys = set()
    for done, (key, scored) in enumerate(score_stream(items(), workers=2), 1):
        assert pulled <= done + 4
        assert [message.id for message in scored.messages] == ["E0602"]
        keys.add(key)
    assert keys == {f"key {number}" for number in range(40)} and pulled == 40


def test_stream_hands_out_what_is_cached_as_it_goes(tmp_path):
    programs = ["x = 1\n", "print(x)\n"]
    score_programs(programs, cache_dir=tmp_path, workers=1)
    pulled = []

    def endless():
        for number in itertools.count():
            pulled.append(number)
            yield number, "x = 2\n" if number == 700 else programs[number % 2]

    stream = score_stream(endless(), cache_dir=tmp_path, workers=1)
    for done, (number, scored) in enumerate(itertools.islice(stream, 2000), 1):
        assert len(pulled) <= done + 260
        assert scored.score == (10 if number % 2 == 0 else 0)
    stream.close()


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    code = (
        "import sys\nfrom cptlab.judging.lint.pylint_score import score_stream\n"
        "items = ((i, f'x = {i}\\nprint(x.foo)\\n') for i in range(200))\n"
        "for key, _ in score_stream(items, workers=2, cache_dir=sys.argv[1]): print(key, flush=True)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "cache"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    told = [int(run.stdout.readline()) for _ in range(15)]
    run.kill()
    told += [int(line) for line in run.stdout if line.endswith("\n")]
    run.wait()
    linted = []
    answers = ServerPool.answers
    monkeypatch.setattr(ServerPool, "answers", lambda self, requests: (
        linted.append(found[0][1]) or found for found in answers(self, requests)))  # fmt: skip
    programs = [f"x = {i}\nprint(x.foo)\n" for i in range(200)]
    scores = score_programs(programs, cache_dir=tmp_path / "cache")
    assert len(scores) == 200 and len(set(linted)) == len(linted)
    assert not {programs[i] for i in told} & set(linted) and len(linted) >= 150
    assert scores == score_programs(programs, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import re, math\nx = 1\nimport typing\n", ("re",)),
        ("# text\n\n  # more\nfrom typing import (\n    List)\nimport re\n", ("typing",)),
        ("import math\nimport typing as t, re as r  # x\n", ("math", "typing", "re")),
        ("import numpy\nimport re\n", ()),
        ("'''\nimport re\n'''\n", ()),
        ("if 1:\n    import re\n", ()),
        ("import os.path\nimport re\n", ()),
    ],
)
def test_opening_is_what_is_imported_before_anything_else(program, expected):
    from cptlab.judging.lint.linter_forks import opening  # pylint comes with it

    assert opening(program) == expected


def test_cache_gives_the_same_and_starts_no_linter(tmp_path, monkeypatch):
    programs = [PROGRAMS[10], PRAGMAS[1][0], "x = 1\n"]
    first = score_programs(programs, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(pylint_score, "linter_pool", None)
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
    monkeypatch.setattr(pylint_score, "CPU_SECONDS", 0.5)
    scored = score_programs([slow, "x = 1\n"], workers=1)
    assert scored[0].fatal and scored[0].score == 0 and scored[0].messages == (TIMEOUT,)
    assert scored[1].score == 10
    assert quality_of({"failed": "crashed"}).messages == quality_of(None).messages == (CRASH,)


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
        "import sys, cptlab.judging.lint.pylint_score, cptlab.judging.verdicts.judge, cptlab.metrics.summary\n"
        "print({'torch', 'lightning', 'transformers', 'pylint'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
