"""The declared metrics against plain formulas, and what a further one takes."""

from __future__ import annotations

import statistics

import pytest

from cptlab.errors import UserError
from cptlab.metrics import definitions
from cptlab.metrics.definitions import METRICS, QUALITY, Metric, find_metric, metrics_for
from cptlab.metrics.programs import JudgedProgram, count_answers, judged_program, lines_of_code
from cptlab.metrics.summary import flat_names, summarise
from cptlab.records import Completion, Message, Prompt, Quality, Task, Test, Verdict

SCORES = (2.0, 9.0, 4.0, 4.0)
CODES = (["E0602", "E0602", "W0612"], [], ["R1705", "C0200", "C0201"], ["E0001"])  # the last does not parse
PROGRAMS = [
    JudgedProgram(
        Quality(score, statements, False, tuple(Message(code, "", 1) for code in codes)),
        Verdict(status, by_rule={"lenient": "passed"}),
        lines,
        tokens,
        text_hash=text_hash,
    )
    for score, statements, codes, status, lines, tokens, text_hash in zip(
        SCORES,
        (5, 2, 8, 0),
        CODES,
        ("failed", "passed", "passed", "error"),
        (6, 3, 9, 4),
        (60, 20, 90, 256),
        (11, 12, 11, 13),
        strict=True,
    )
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pylint_mean", statistics.mean(SCORES)),
        ("pylint_max", 9.0),
        ("pylint_min", 2.0),
        ("pass@1", 0.5),
        ("pass@2", 1 - 1 / 6),  # one of the six pairs has neither of the two that pass
        ("lenient_pass@1", 1.0),
        ("statements", (5 + 2 + 8) / 3),  # of the programs that parse
        ("lines", 22 / 4),
        ("tokens", 426 / 4),
        ("distinct", 75),  # the first and the third are equal
        ("pylint_errors", 100 * 2 / 4),  # E0001 is no message of a program that parses
        ("pylint_warnings", 25),
        ("pylint_refactors", 25),
        ("pylint_conventions", 50),
        ("not_parsed", 25),
    ],
)
def test_a_metric_of_one_task(name, expected):
    metric = find_metric(name)
    assert metric.name == name and metric.of_task(PROGRAMS) == pytest.approx(expected)


def test_names_and_order():
    names = [metric.name for metric in metrics_for([1, 5], ["official"])]
    assert names == [*(metric.name for metric in METRICS), "pass@1", "pass@5", "official_pass@1", "official_pass@5"]
    assert [find_metric(name).samples for name in names[-4:]] == [1, 5, 1, 5]
    assert find_metric("some_rule_pass@7").heading == "some rule P@7"
    for wrong in ("accuracy", "pass@0", "pass@", "pass@x", "_pass@1", ""):
        with pytest.raises(UserError, match="There is no metric"):
            find_metric(wrong)


def test_a_further_metric_is_a_line(monkeypatch):
    median = Metric("pylint_median", "Median", "median pylint score", QUALITY,
                    lambda programs: statistics.median(program.quality.score for program in programs))  # fmt: skip
    monkeypatch.setattr(definitions, "METRICS", (*METRICS, median))
    task = Task("a", "kata", "test", "", "call", Prompt("p"), "f", (Test(1),))
    found = summarise([task], {"a": PROGRAMS})["all"]
    assert found["pylint_median"] == 4.0 and found["pylint_median_ci"] == [4.0, 4.0]
    assert flat_names([task], ["x"], [], 2)[-2] == "x/all/pylint_median"


def test_what_cannot_be_measured_is_none():
    fatal = JudgedProgram(Quality(0.0, 0, True), Verdict("passed"), 3)
    found = {
        name: find_metric(name).of_task([fatal, fatal]) for name in ("statements", "lines", "tokens", "not_parsed")
    }
    assert found == {"statements": None, "lines": 3, "tokens": None, "not_parsed": 100}


def test_lines_of_code():
    text = '# a comment\n\nimport os\n\n\ndef f(x):\n    """Doc."""\n    # why\n    return x  # so\n   \n'
    assert lines_of_code(text) == 4 and lines_of_code("") == lines_of_code("\n \n#") == 0
    assert lines_of_code("a = 1\r\nb = 2\r\n") == 2


def test_how_answers_ended():
    def answer(status, program="x = 1", finished=True, cleaned=False):
        return judged_program(
            Completion("a", 0, program, program, 5, finished, cleaned), Quality(5.0, 1, False), Verdict(status)
        )

    programs = [
        answer("passed"),
        answer("failed", cleaned=True),
        answer("not_parsed"),
        answer("not_parsed", finished=False),
        answer("failed", finished=False),
        answer("error", program="\n# nothing\n"),
    ]
    assert count_answers(programs) == {"programs": 6, "cut_off": 2, "not_parsed": 2, "no_program": 2, "cleaned": 1}


def test_a_single_program_says_nothing_about_variety_and_texts_are_compared_without_their_ends():
    distinct = find_metric("distinct")
    assert distinct.of_task(PROGRAMS[:1]) is None and distinct.samples == 2
    texts = ["x = 1", "x = 1\n", "x = 2", "\nx = 1"]
    judged = [
        judged_program(Completion("t", i, text, text, 1, True), Quality(5.0, 1, False), Verdict("passed"))
        for i, text in enumerate(texts)
    ]
    assert distinct.of_task(judged) == 50


def test_pylint_has_no_metric_of_all_messages():
    with pytest.raises(UserError, match="There is no metric 'pylint_messages'"):
        find_metric("pylint_messages")
