"""Scorers against the command lines of their tools, against plain loops, and against linters that misbehave."""

import ast
import gzip
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from cptlab.errors import UserError
from cptlab.judging.lint.pylint_score import CRASH, TIMEOUT, score_programs
from cptlab.judging.scorers import limited_process, needed, tool
from cptlab.judging.scorers.all_of import AllOf, log_sigmoid
from cptlab.judging.scorers.bandit import Bandit
from cptlab.judging.scorers.command import Command
from cptlab.judging.scorers.limited_process import Finished
from cptlab.judging.scorers.pylint import Pylint
from cptlab.judging.scorers.radon import Radon
from cptlab.judging.scorers.ruff import Ruff
from cptlab.judging.scorers.scorer import score_all
from cptlab.judging.scorers.source import count_statements, without_pragmas
from cptlab.judging.scorers.weighted import Weighted
from cptlab.records import Completion, Message
from cptlab.storage.jsonl import from_json, to_json, write_jsonl
from cptlab.tasks.kata import kata

RUFF = f"{sys.executable} -m ruff"  # of this environment, whose programs need not be on the path
BAD = '''import os, subprocess


def run(command, items=[]):
    """Run it."""
    try:
        assert command
        password = "hunter2"
        unused = 1
        if command:
            return subprocess.call(command, shell=True)
        else:
            return os.popen(command)
    except:
        pass
    finally:
        l = 1
'''
SCRIPT = "n = int(input())\nif n > 1 and n < 5:\n    print(n)\nelif n:\n    print(0)\n"
PROGRAMS = [
    BAD,
    SCRIPT,
    "",
    "# a comment\n",
    "def f(:\n",
    "x = 1\n",
    "x = '\ud800'\n",
    "match 1:\n    case 1:\n        y = 2\n",
]
LINTER = """import json, sys
rows = []
for file in sys.argv[2:]:
    for number, line in enumerate(open(file), 1):
        if "sleep" in line:
            while True: pass
        if "crash" in line:
            sys.exit(3)
        if "TODO" in line:
            rows.append((file, number))
if sys.argv[1] == "json":
    print(json.dumps([{"where": {"file": f, "row": n}, "rule": "T1", "level": "High"} for f, n in rows]))
elif sys.argv[1] == "lines":
    for f, n in rows:
        print(json.dumps({"where": {"file": f, "row": n}, "rule": "T1", "level": "High"}))
else:
    place = lambda f, n: {"physicalLocation": {"artifactLocation": {"uri": "file:///" + f}, "region": {"startLine": n}}}
    results = [{"ruleId": "T1", "ruleIndex": 0, "level": "error", "locations": [place(f, n)]} for f, n in rows]
    rules = [{"id": "T1", "name": "todo"}]
    print(json.dumps({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "t", "rules": rules}}, "results": results}]}))
"""
FIELDS = {"file": "where.file", "id": "rule", "name": "rule", "line": "where.row", "severity": "level"}


@pytest.fixture(scope="module")
def programs():
    """Some real ones: kata's canonical solutions, and those made to get messages."""
    solutions = [task.canonical_solution for task in kata().split("test", 12)]
    return [*PROGRAMS, *solutions]


def command_line(arguments, programs, folder):
    """Run a tool as a user would, on one file, and give back its JSON."""
    for i, program in enumerate(programs):
        file = folder / f"own_{i}.py"
        file.write_bytes(program.encode("utf-8", "surrogatepass"))
        done = subprocess.run([sys.executable, "-m", *arguments, file], capture_output=True, text=True)
        yield json.loads(done.stdout)


def whole(programs):
    return [p for p in programs if isinstance(count_statements(p), int) and count_statements(p)]


USUAL = {"F6": 5, "F7": 5, "F81": 5, "F82": 5}  # what pylint calls errors, of the rules below


def check_ruff(programs, folder, given=None):
    some, weights = whole(programs), given or USUAL
    scorer = Ruff(select=("F", "B", "E7", "RET", "SIM"), ignore=("B904",), weights=given)
    arguments = "ruff check --isolated --no-cache --select F,B,E7,RET,SIM --ignore B904 --output-format=json -q".split()
    for program, found, rows in zip(some, score_all(scorer, some), command_line(arguments, some, folder), strict=True):
        codes = [row["code"] for row in rows]
        weighted = sum(
            max(((len(k), w) for k, w in weights.items() if c.startswith(k)), default=(0, 1))[1] for c in codes
        )
        statements = count_statements(program)
        assert found.score == max(0.0, 10 - weighted / statements * 10), program
        assert sorted((m.id, m.line) for m in found.messages) == sorted((r["code"], r["location"]["row"]) for r in rows)


def check_bandit(programs, folder):
    some = whole(programs)
    rows = command_line("bandit -q -f json".split(), some, folder)
    for found, answer in zip(score_all(Bandit(), some), rows, strict=True):
        weighted = sum({"LOW": 1, "MEDIUM": 2.5, "HIGH": 5}[row["issue_severity"]] for row in answer["results"])
        assert found.score == 10 / (1 + weighted)
        assert {(m.id, m.line) for m in found.messages} == {(r["test_id"], r["line_number"]) for r in answer["results"]}


def check_radon(programs, folder):
    some = whole(programs)
    scores = score_all(Radon(), some), score_all(Radon(measure="complexity", complex_from=2), some)
    tools = command_line("radon mi -j".split(), some, folder), command_line("radon cc -j".split(), some, folder)
    for index, complexity, mi, cc in zip(*scores, *tools, strict=True):
        (found,), blocks = mi.values(), next(iter(cc.values()), [])  # a script has no blocks
        assert index.score == pytest.approx(found["mi"] / 10, abs=0, rel=1e-12)
        if blocks and max(block["complexity"] for block in blocks) >= 2:
            most = max(block["complexity"] for block in blocks)
            assert complexity.score == max(0, 11 - most)
            said = {message.line for message in complexity.messages}
            assert {block["lineno"] for block in blocks if block["complexity"] >= 2} <= said | {1}


def test_scores_are_those_of_the_command_lines(programs, tmp_path):
    some = [BAD, SCRIPT, *programs[-4:]]
    check_ruff(some, tmp_path)
    check_bandit(some[:3], tmp_path)
    check_radon(some[:3], tmp_path)


@pytest.mark.slow
def test_scores_are_those_of_the_command_lines_on_many_programs(programs, data_dir, tmp_path):
    with gzip.open(data_dir / "generations/mbpp.jsonl.gz", "rt") as file:
        real = [json.loads(line)["code"] for line, _ in zip(file, range(40))]
    for check in (check_ruff, check_bandit, check_radon):
        check([*programs, *real], tmp_path)
    check_ruff([*programs, *real], tmp_path, {"F8": 2, "F82": 3})
    statements = [count_statements(program) for program in whole(real)]
    assert statements == [quality.statements for quality in score_programs(whole(real))]


def test_statements_are_counted_as_pylint_counts_them(programs):
    for program, quality in zip(programs, score_programs(programs, workers=1), strict=True):
        counted = count_statements(program)
        assert (0 if isinstance(counted, SyntaxError) else counted) == quality.statements, program


def test_what_does_not_parse_or_is_empty_scores_0():
    for scorer in (Ruff(), Radon()):
        found = score_all(scorer, PROGRAMS, workers=1)
        assert [quality.score for quality in found[2:5]] == [0, 0, 0] and found[5].score > 0
        assert [quality.fatal for quality in found[:6]] == [False, False, False, False, True, False]
        assert all(quality.scorer == scorer.name and 0 <= quality.score <= 10 for quality in found)


def test_pragmas_do_not_choose_the_score():
    hidden = {
        "l = 1  # noqa: E741\n": "l = 1\n",
        "# ruff: noqa\nl = 1\n": "\nl = 1\n",
        "# flake8: noqa\nl = 1\n": "\nl = 1\n",
        "assert x  # nosec B101 noqa\n": "assert x\n",
        "s = '# noqa'\n": None,
    }
    for program, plain in hidden.items():
        text, count = without_pragmas(program)
        assert count == ("'" not in program) + ("nosec" in program) + ("ruff: noqa" in program) + ("flake8" in program)
        assert list(map(len, text.split("\n"))) == list(map(len, program.split("\n")))
        assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(program))
        if plain is not None:
            for scorer in (Ruff(select=("E7", "S")), *([Bandit()] if "nosec" in program else [])):
                one, other = score_all(scorer, [program, plain], workers=1)
                assert one.score == other.score < 10 and one.pragmas == count


def test_half_a_program_keeps_its_comments_in_place():
    text, count = without_pragmas("def f(a):  # noqa\n    return (a,  # nosec\n")
    assert count == 2 and "noqa" not in text and "nosec" not in text and text.count("\n") == 2
    assert without_pragmas("x = 1\r\ny = 2  # noqa\r\n") == ("x = 1\r\ny = 2  # noq_\r\n", 1)


@pytest.fixture
def linter(tmp_path):
    path = tmp_path / "linter.py"
    path.write_text(LINTER)
    return path


@pytest.mark.parametrize("form", ["json", "lines", "sarif"])
def test_any_linter_that_prints_json_or_sarif(linter, form):
    how = {"fields": FIELDS} if form != "sarif" else {"format": "sarif"}
    weights = {"high": 3, "error": 3}
    scorer = Command(f"{sys.executable} {linter} {form} FILES", label="todo", weights=weights, **how)
    scorer.check()
    found = score_all(scorer, ["x = 1  # TODO\ny = 2\nz = 3  # TODO\n" + "a = 1\n" * 7, "x = 1\n"], workers=1)
    assert [quality.score for quality in found] == [pytest.approx(10 - 10 * 6 / 10), 10]
    severity, name = ("error", "todo") if form == "sarif" else ("high", "T1")
    assert found[0].messages == (Message("T1", name, 1, severity), Message("T1", name, 3, severity))
    decayed = Command(f"{sys.executable} {linter} {form} FILES", weights=weights, formula="decay", **how)
    assert score_all(decayed, ["x = 1  # TODO\n"])[0].score == 10 / 4


def test_messages_without_a_line_or_a_file(linter):
    """Some are about the whole file, and some about none."""
    nowhere = {"ruleId": "T2", "message": {"text": "about the run"}}
    whole = {"ruleId": "T1", "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.py"}}}]}
    runs = {"runs": [{"tool": {"driver": {}}, "results": [nowhere, {**nowhere, "locations": []}, whole]}]}
    scorer = Command(f"{sys.executable} {linter} sarif FILES", format="sarif")
    found = scorer.read(Finished(0, json.dumps(runs), "", False))
    assert {file: reading.messages for file, reading in found.items()} == {"a.py": [Message("T1", "T1", 1, "warning")]}
    row = {"path": "a.py", "message-id": "T1", "symbol": "todo", "line": None, "type": "x"}
    found = Command(f"{sys.executable} {linter} json FILES").read(Finished(0, json.dumps([row]), "", False))
    assert found["a.py"].messages == [Message("T1", "todo", 1, "x")]


def test_one_program_costs_no_other_its_score(linter, tmp_path, monkeypatch):
    monkeypatch.setattr(limited_process, "CPU_SECONDS", 1)
    scorer = Command(f"{sys.executable} {linter} json FILES", fields=FIELDS)
    programs = ["a = 1\n", "sleep = 1\n", "b = 1  # TODO\n", "crash = 2\n"]
    found = score_all(scorer, programs, workers=1, cache=tmp_path)
    assert [quality.score for quality in found] == [10, 0, 0, 0] and [q.fatal for q in found] == [0, 1, 0, 1]
    assert [q.messages[:1] for q in found] == [(), (TIMEOUT,), (Message("T1", "T1", 1, "high"),), (CRASH,)]
    monkeypatch.setattr(tool, "run_limited", lambda *_: pytest.fail("it was scored again"))
    again = score_all(scorer, [programs[0], programs[2]], workers=1, cache=tmp_path)
    assert again == [found[0], found[2]]


def test_other_settings_are_other_scores_in_the_cache(linter, tmp_path):
    for weights, score in ((None, 5.0), ({"T": 2}, 0.0), (None, 5.0)):
        scorer = Command(f"{sys.executable} {linter} json FILES", fields=FIELDS, weights=weights)
        assert score_all(scorer, ["x = 1  # TODO\ny = 1\n"], workers=1, cache=tmp_path)[0].score == score
    before = scorer.identity()
    linter.write_text(LINTER.replace("TODO", "FIXME"))
    assert scorer.identity() != before
    assert score_all(scorer, ["x = 1  # TODO\ny = 1\n"], workers=1, cache=tmp_path)[0].score == 10


def test_all_of_is_the_sum_of_log_sigmoids(tmp_path):
    parts = {"radon": Radon(), "ruff": Ruff()}
    programs = [BAD, SCRIPT, "x = 1\n"]
    base = [Completion("t", i, text, text, 1, True) for i, text in enumerate([BAD, SCRIPT, "l = 1\nx = l\n"])]
    write_jsonl(tmp_path / "base/completions.jsonl", base)
    scorer = AllOf(parts, base=str(tmp_path / "base"), quantile=0.25)
    scores = {name: [one.score for one in score_all(part, programs, workers=1)] for name, part in parts.items()}
    drawn = {
        name: [one.score for one in score_all(part, [c.program for c in base], workers=1)]
        for name, part in parts.items()
    }
    references = {name: float(np.quantile(drawn[name], 0.25)) for name in parts}
    for i, found in enumerate(score_all(scorer, programs, workers=1)):
        utility = 0.0
        for name in parts:
            utility += math.log(1 / (1 + math.exp(-(scores[name][i] - references[name]))))
        assert found.score == pytest.approx(10 * math.exp(utility / 2), rel=1e-12)
        assert found.scorer == "all_of"
    assert scorer.identity() != AllOf(parts, base=str(tmp_path / "base")).identity()
    assert log_sigmoid(-1000) == -1000 and log_sigmoid(1000) == 0
    fixed = AllOf(parts, references=references)
    assert score_all(fixed, programs, workers=1) == score_all(scorer, programs, workers=1)


def test_weighted_adds_up_severities():
    (found,) = score_all(Weighted({"pylint": Pylint(), "bandit": Bandit()}), [BAD], workers=1)
    weights = {"info": 0.5, "low": 1, "medium": 2.5, "high": 5, "critical": 10}
    pylint, bandit = (score_all(one, [BAD], workers=1)[0] for one in (Pylint(), Bandit()))
    of_pylint = {"C": "info", "R": "low", "W": "medium", "E": "high", "F": "critical"}
    total = sum(weights[of_pylint[m.id[0]]] for m in pylint.messages) + sum(
        weights[m.severity] for m in bandit.messages
    )
    assert total > 0 and found.score == 10 / (1 + total)
    assert len(found.messages) == len(pylint.messages) + len(bandit.messages)


def test_a_mistake_is_one_sentence(linter, monkeypatch):
    mistakes = [
        (lambda: Ruff(select=("QQQ",)).check(), "QQQ"),
        (lambda: Command("no-such-linter FILES").check(), "There is no command no-such-linter"),
        (lambda: Command("ruff check"), "FILES once"),
        (lambda: Command(f"{sys.executable} {linter} json FILES", fields={"row": "x"}), "no part of a message"),
        (lambda: Command(f"{sys.executable} -c 1 FILES --x", format="sarif").check(), "command does not run"),
        (
            lambda: Command(f"{sys.executable} -c 'print(1, 2)' FILES").check(),
            r"what its linter prints cannot be read \(1 2\)",
        ),
        # these say nothing of a clean program
        (
            lambda: Command(f"{RUFF} check -q --isolated --select F82 FILES").check(),
            r"what its linter prints cannot be read \(.*F821",
        ),
        (
            lambda: Command(f"{RUFF} check --isolated --output-format=json FILES", fields={"line": "row"}).check(),
            r"what its linter prints cannot be read .*scorer\.fields",
        ),
        (lambda: Command("mylint FILES", label="pylint"), "the name of a scorer of cptlab"),
        (lambda: AllOf({"pylint": Pylint()}), "one of the two"),
        (lambda: AllOf({"pylint": Pylint()}, base="no/such").check(), "no/such"),
        (lambda: AllOf({"pylint": Pylint()}, references={"ruff": 1}), "each scorer its number"),
        (lambda: Weighted({}), "is empty"),
        (lambda: Ruff(weights={"F": -1}), "from 0 up"),
    ]
    for make, said in mistakes:
        with pytest.raises(UserError, match=said):
            make()
    monkeypatch.setattr(needed, "find_spec", lambda _: None)
    for scorer in (Bandit(), Radon()):
        with pytest.raises(UserError, match=r"pip install 'cptlab\[scorers\]'"):
            scorer.check()


@pytest.mark.parametrize("form", ["--config=own.toml", "--config own.toml"])
def test_a_file_that_the_command_line_names_is_found_and_is_part_of_the_identity(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.toml"
    own.write_text('lint.select = ["F"]')
    scorer = Command(f"ruff check {form} FILES")
    assert str(own) in " ".join(scorer.command(["a.py"]))
    before = scorer.identity()
    own.write_text('lint.select = ["E"]')
    assert scorer.identity() != before


def test_a_command_may_be_a_file_named_from_here_and_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mylint").write_text(f"#!/bin/sh\nexec {RUFF} check --isolated --select F --output-format=json $*\n")
    (tmp_path / "mylint").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "mylint")
    fields = {"file": "filename", "id": "code", "line": "location.row"}
    for name in ("mylint", "link"):
        scorer = Command(f"./{name} FILES", fields=fields)
        assert scorer.command(["a.py"]) == [str(tmp_path / name), "a.py"]
        scorer.check()
        (found,) = score_all(scorer, ["import os\nx = 1\n"], workers=1)
        assert found.score == 5 and found.messages[0].id == "F401"


def test_given_weights_of_rules_take_the_place_of_the_usual_ones():
    program = ["def f():\n    return missing\n"]
    (usual,), (own,) = (
        score_all(Ruff(select=("F",)), program),
        score_all(Ruff(select=("F",), weights={"F": 1}), program),
    )
    assert (usual.score, own.score) == (0.0, 5.0) and usual.messages[0].id == own.messages[0].id == "F821"


def test_records_of_pylint_are_stored_as_ever():
    plain, other = score_all(Pylint(), [BAD], workers=1)[0], score_all(Bandit(), [BAD])[0]
    assert set(json.loads(to_json(plain))) == {"score", "statements", "fatal", "messages", "pragmas"}
    assert json.loads(to_json(other))["scorer"] == "bandit"
    assert [from_json(type(one), to_json(one)) for one in (plain, other)] == [plain, other]
