"""LiveCodeBench from files in the form of code_generation_lite, made here: no copy of the data set was at hand."""

import base64
import builtins
import json
import pickle
import zlib

import pytest

from cptlab.errors import UserError
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.tasks.livecodebench import livecodebench


def packed(value) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def case(given, printed, kind="stdin"):
    return {"input": given, "output": printed, "testtype": kind}


SCRIPT = {
    "question_title": "Sum", "question_id": "abc301_a", "platform": "atcoder", "contest_id": "abc301",
    "question_content": "Print the sum of two integers.\n\nSample Input 1\n\n1 2\n\nSample Output 1\n\n3",
    "contest_date": "2023-05-13T00:00:00", "starter_code": "", "difficulty": "easy", "metadata": "{}",
    "public_test_cases": json.dumps([case("1 2\n", "3\n")]),
    "private_test_cases": packed(json.dumps([case("4 5", "9"), case("-1 1", "0\n")])),
}  # fmt: skip
METHOD = SCRIPT | {
    "question_id": "2777", "platform": "leetcode", "contest_date": "2024-08-31T19:30:00", "difficulty": "hard",
    "question_content": "Return how often target is in nums.\n\nExample 1:\n\nInput: nums = [1,2,1], target = 1\nOutput: 2",
    "starter_code": "class Solution:\n    def howOften(self, nums: List[int], target: int) -> int:\n        ",
    "metadata": json.dumps({"func_name": "howOften"}),
    "public_test_cases": json.dumps([case("[1,2,1]\n1", "2", "functional")]),
    "private_test_cases": json.dumps([case("[]\n1", "0", "functional")]),  # not packed, as in some rows
}  # fmt: skip


def written(folder, *rows, name="test.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_scripts_and_methods_are_judged_on_public_and_private_tests(tmp_path):
    written(tmp_path / "livecodebench", SCRIPT)
    written(tmp_path / "livecodebench", METHOD, name="test2.jsonl")
    script, method = livecodebench(str(tmp_path)).tasks
    assert [(t.id, t.difficulty, len(t.public_tests), len(t.hidden_tests)) for t in (script, method)] == [
        ("LiveCodeBench/abc301_a", "introductory", 1, 2),
        ("LiveCodeBench/2777", "competition", 1, 1),
    ]
    right = method.prompt.code + "        return Counter(nums)[target]\n"
    programs = [
        ("print(sum(map(int, input().split())))", script),
        ("print(3)", script),
        (right, method),
        (right.replace("Counter(nums)[target]", "2"), method),
    ]
    verdicts = judge_programs(programs)
    assert [(v.passed, v.public_passed, v.hidden_passed) for v in verdicts] == [
        (True, 1, 2), (False, 1, 0), (True, 1, 1), (False, 1, 0),
    ]  # fmt: skip
    for task in (script, method):
        for prompt in (task.prompt, task.question):
            spans = {span.name: prompt.text[span.start : span.end] for span in prompt.spans}
            assert spans["nl"].startswith(("Print the sum", "Return how often")) and "1" in spans["tests"]


def test_a_window_of_days_and_what_is_refused(tmp_path):
    folder = written(tmp_path / "files", SCRIPT, METHOD)

    def ids(**settings):
        return [task.id.rpartition("/")[2] for task in livecodebench(path=str(folder), **settings).tasks]

    assert ids(start_date="2023-05-13", end_date="2024-08-30") == ["abc301_a"]
    assert ids(end_date="2024-08-31") == ["abc301_a", "2777"] and ids(difficulty="competition") == ["2777"]
    for settings, message in (
        ({"start_date": "2025-01-01"}, "No problem of LiveCodeBench is left"),
        ({"end_date": "May 2024"}, "is no day"),
    ):
        with pytest.raises(UserError, match=message):
            ids(**settings)
    for private, message in (
        (packed(builtins.eval), "it names builtins.eval"),  # what would run code names a function
        (packed([1]), "hold a list and no text"),
        ("???", "cannot be read"),
    ):
        written(folder, SCRIPT | {"private_test_cases": private})
        with pytest.raises(UserError, match=message):
            ids()
