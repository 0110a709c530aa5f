"""Feedback and self-debugging: what is asked once more, about which programs, and what it costs."""

import ast
import dataclasses

import pytest

from cptlab.adapters import Policy
from cptlab.backbone import load_backbone
from cptlab.decoding import Sampling
from cptlab.errors import UserError
from cptlab.judging.scorers.ruff import Ruff
from cptlab.records import Message, Prompt, Quality, Span, Task, Test, Verdict
from cptlab.systems import samples
from cptlab.systems.decoding import Decoding
from cptlab.systems.feedback import LinterMessages, SelfDebug
from cptlab.systems.feedback.prompt import with_feedback
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem, check_system
from cptlab.systems.samples import sample_and_judge
from cptlab.tasks.kata import kata
from cptlab.tasks.own_tests import shown_tests
from cptlab.tasks.prompting import ChatFormat, chat_prompt
from cptlab.tasks.template import apply_template

PROMPT = Prompt("# Add.\ndef add(a, b):", "def add(a, b):", (Span("nl", 2, 6), Span("code", 7, 21)))
WRONG, TOLD = "def add(a, b):\n    return a - b\n", "It fails this test:\nassert add(1, 2) == 3\nOutcome: got -1"
TASK = Task("t", "b", "test", "", "call", PROMPT, "add", (Test(3, (1, 2)), Test(5, (2, 3))), (Test(0, (0, 0)),))


def texts(prompt):
    return [prompt.text[span.start : span.end] for span in prompt.spans]


def test_a_base_model_reads_it_as_comments_and_a_chat_model_behind_the_question():
    base = with_feedback(PROMPT, WRONG, TOLD, called="A wrong program", is_chat=False)
    assert base.text.endswith(PROMPT.text) and base.code == PROMPT.code
    assert [ast.unparse(node) for node in ast.parse(base.text + "\n    pass").body] == ["def add(a, b):\n    pass"]
    assert texts(base)[1:] == texts(PROMPT) and WRONG.splitlines()[1] in texts(base)[0] and "got -1" in texts(base)[0]
    assert "got -1" in apply_template(base, "Do: {nl}\n{code}").text
    question = Prompt("Add two numbers.", "", (Span("nl", 0, 16),))
    asked = with_feedback(question, WRONG, TOLD, called="", is_chat=True)
    assert f"```python\n{WRONG}```" in asked.text and texts(asked)[0] == question.text and not asked.code
    assert TOLD in chat_prompt(asked, TASK, ChatFormat("<user>", "<model>")).text.split("<model>")[0]


def test_what_is_told_is_the_first_public_test_that_fails():
    def tell(**verdict):
        return SelfDebug().tell(
            TASK, Quality(10, 2, False), Verdict("failed", hidden_total=1, public_total=2, **verdict)
        )

    assert tell(public_passed=1, reason="public test 2: expected 5, got -1") == (
        "It fails this test:\nassert add(2, 3) == 5\nOutcome: expected 5, got -1"
    )
    assert tell(public_passed=2, reason="hidden test 1: expected 0, got 1") is None


def test_messages_are_told_by_line_and_a_program_without_any_is_kept():
    messages = (Message("W0622", "redefined-builtin", 3), Message("W0612", "unused-variable", 2))
    verdict = Verdict("passed", public_passed=2, public_total=2)

    def tell(*found, **options):
        return LinterMessages(**options).tell(TASK, Quality(5, 3, False, found), verdict)

    assert tell(*messages) == (
        "A linter remarks on it:\nline 2: unused-variable (W0612)\nline 3: redefined-builtin (W0622)"
    )
    assert tell(*messages, most=1) == "A linter remarks on it:\nline 2: unused-variable (W0612)"
    assert tell() is None


@pytest.mark.slow
def test_programs_with_messages_are_asked_about_whatever_their_verdict(tmp_path):
    """The second answers are what the model writes for that prompt; the scorer that the judge has decides."""
    backbone, tasks, n = load_backbone("kata-lm"), kata().split("validation", 4), 3
    plain = LoadedSystem("base", Policy(backbone), Decoding(Sampling(max_new_tokens=96)))
    judge = Judge(tmp_path, Ruff(select=("F841",)))  # which has no message for some programs
    system = dataclasses.replace(plain, name="feedback", feedback=LinterMessages())
    first, again = sample_and_judge(plain, tasks, n, judge), sample_and_judge(system, tasks, n, judge)
    by_id, asked = {task.id: task for task in tasks}, 0
    for before, quality, verdict, after in zip(
        first.completions, first.qualities, first.verdicts, again.completions, strict=True
    ):
        told = LinterMessages().tell(by_id[before.task_id], quality, verdict)
        if told is None:
            assert after == before
            continue
        asked += 1
        prompt = system.shown_prompt(by_id[before.task_id], about=(before.program, told))
        samples_ = [[before.sample]]
        ((expected,),) = samples.generate(
            backbone, [(before.task_id, prompt)], n, plain.decoding.sampling, seed=samples.FRESH_SEED, samples=samples_
        )
        assert after.raw == expected.raw
    assert 0 < asked < len(first.completions)
    assert again.cost.programs == pytest.approx(1 + asked / len(first.completions))


@pytest.mark.slow
@pytest.mark.parametrize("uncounted", ["", "public"])
def test_failed_programs_are_asked_about_each_with_a_prompt_of_its_own(uncounted, tmp_path, monkeypatch):
    backbone = load_backbone("kata-lm")
    tasks = [dataclasses.replace(task, uncounted=uncounted) for task in kata().split("validation", 4)]
    system = LoadedSystem("self_debug", Policy(backbone), Decoding(Sampling()), feedback=SelfDebug())
    plain = dataclasses.replace(system, feedback=None)
    asked = []
    generate = samples.generate

    def watched(backbone, prompts, n, *arguments, **options):
        asked.extend((task_id, prompt.text, list(some)) for (task_id, prompt), some in zip(prompts, options["samples"]))
        return generate(backbone, prompts, n, *arguments, **options)

    first = sample_and_judge(plain, tasks, 3, Judge(tmp_path))
    monkeypatch.setattr(samples, "generate", watched)
    again = sample_and_judge(system, tasks, 3, Judge(tmp_path))
    rows = list(zip(first.completions, first.verdicts, again.completions, strict=True))
    failed = {(one.task_id, one.sample) for one, verdict, _ in rows if verdict.public_passed < verdict.public_total}
    assert 0 < len(failed) < len(rows) and again.cost.programs == (len(rows) + len(failed)) / len(rows)
    assert {(task_id, *some) for task_id, _, some in asked} == failed and len(asked) == len(failed)
    by_id = {task.id: task for task in tasks}
    programs = {(one.task_id, one.sample): one.program for one in first.completions}
    fitting = 0
    for task_id, text, (sample,) in asked:
        task = by_id[task_id]
        assert text.endswith(task.prompt.text)
        if text != task.prompt.text:  # it fits
            fitting += 1
            shown = [shown_tests([test], task.entry_point).strip() for test in task.public_tests]
            assert all(f"# {line}".rstrip() in text for line in programs[task_id, sample].rstrip().splitlines())
            assert any(f"# {test}" in text for test in shown) and "# Outcome: " in text
    assert fitting
    for before, _, after in rows:
        assert (before.task_id, before.sample) in failed or after == before
    assert sample_and_judge(system, tasks, 3, Judge(tmp_path)) == again  # from disk, cost and all
    with pytest.raises(UserError, match="once more as well"):
        check_system(dataclasses.replace(system, decoding=Decoding(Sampling(), second_try=True)), tasks, 3)


def test_the_lines_that_are_told_are_those_of_the_program_as_it_is_shown():
    program = "\n\ndef f(x):\n    y = 1\n    return x\n"
    shown = with_feedback(Prompt("Do it."), program, "line 4: unused-variable (W0612)", called="", is_chat=True).text
    assert shown.split("```python\n")[1].splitlines()[3] == "    y = 1"


def test_a_program_that_passes_when_it_runs_again_for_the_reason_is_kept():
    assert SelfDebug().tell(TASK, Quality(10, 2, False), Verdict("passed", public_passed=0, public_total=1)) is None
