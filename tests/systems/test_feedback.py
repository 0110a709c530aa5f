"""Feedback: what the model reads, and that the second programs are those of a model that is shown that text."""

from dataclasses import replace

import pytest

from cptlab.adapters import Policy
from cptlab.backbone import load_backbone
from cptlab.decoding import Sampling, generate
from cptlab.errors import UserError
from cptlab.judging.scorers.ruff import Ruff
from cptlab.records import Message, Prompt, Span
from cptlab.systems.asked_again import SECOND_SEED
from cptlab.systems.cleaning import cleaned
from cptlab.systems.decoding import Decoding
from cptlab.systems.feedback import Feedback
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.samples import sample_and_judge
from cptlab.tasks.kata import kata

MESSAGES = (Message("W0622", "redefined-builtin", 3), Message("W0612", "unused-variable", 2))
SHORT = Feedback(chat="|{program}|{messages}|", base="{program}\n{messages}\n")


def test_what_the_model_reads():
    chat = SHORT.apply(Prompt("Sum it.", spans=(Span("nl", 0, 7),)), "x = {program}\n", MESSAGES, True)
    assert chat.text == "Sum it.|x = {program}|line 2: unused-variable (W0612)\nline 3: redefined-builtin (W0622)|"
    assert chat.spans == (Span("nl", 0, 7),)
    prompt = Prompt("# Sum it.\ndef f():\n", "def f():\n", (Span("nl", 2, 9),))
    base = SHORT.apply(prompt, "x = '{messages}'", MESSAGES, False)
    before = "x = '{messages}'\n# line 2: unused-variable (W0612)\n# line 3: redefined-builtin (W0622)\n"
    assert base.text == before + prompt.text and base.code == prompt.code
    assert base.text[base.spans[0].start : base.spans[0].end] == "Sum it."
    assert replace(SHORT, most=1).apply(prompt, "x", MESSAGES, False).text.count("# line") == 1
    for text in ("{program}", "{messages}", "{program}{program}{messages}"):
        with pytest.raises(UserError, match="each once"):
            Feedback(chat=text)


@pytest.mark.slow
def test_the_second_program_is_what_the_model_writes_behind_that_text(tmp_path):
    backbone, tasks, n = load_backbone("kata-lm"), kata().split("validation", 4), 3
    sampling = Sampling(max_new_tokens=96)
    plain = LoadedSystem("base", Policy(backbone), Decoding(sampling))
    judge = Judge(tmp_path, Ruff(select=("F841",)))  # which has no message for some programs
    first = sample_and_judge(plain, tasks, n, judge)
    told = replace(plain, name="feedback", feedback=SHORT)
    again = sample_and_judge(told, tasks, n, judge)
    by_id, tokens, asked = {task.id: task for task in tasks}, 0, 0
    for before, quality, after in zip(first.completions, first.qualities, again.completions, strict=True):
        if not quality.messages:
            assert after == before
            continue
        task = by_id[before.task_id]
        lines = [
            f"# line {m.line}: {m.symbol} ({m.id})" for m in sorted(quality.messages, key=lambda m: (m.line, m.id))
        ]
        text = before.program.strip("\n") + "\n" + "\n".join(lines[:10]) + "\n"
        prompt = replace(task.prompt, text=text + task.prompt.text, spans=())
        samples = [[before.sample]]
        ((expected,),) = generate(backbone, [(task.id, prompt)], n, sampling, seed=SECOND_SEED, samples=samples)
        assert after.raw == expected.raw and after == cleaned(expected, task, prompt)
        tokens, asked = tokens + expected.tokens, asked + 1
    assert 0 < asked < len(first.completions)
    assert again.cost.programs == pytest.approx(1 + asked / len(first.completions))
    assert again.cost.tokens == pytest.approx(first.cost.tokens + tokens / len(first.completions))
    assert again == sample_and_judge(told, tasks, n, judge)  # stored
