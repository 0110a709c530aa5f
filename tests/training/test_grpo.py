"""GRPO through TRL: what it learns from is our own sampling and judging, it learns what is rewarded, and it resumes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cptlab.adapters.lora import LoRA
from cptlab.backbone import load_backbone
from cptlab.decoding import Sampling, generate
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.records import Completion, Prompt
from cptlab.systems.cleaning import cleaned
from cptlab.systems.decoding import Decoding
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.tasks.kata import kata
from cptlab.training.grpo import GRPO, Rollouts, token_ids, train_grpo

pytest.importorskip("trl")
DECODING = Decoding(Sampling(temperature=1.0, top_p=1.0))
SHORT = GRPO(steps=4, tasks_per_step=2, n=4, learning_rate=1e-3, save_every=1)


@pytest.fixture(scope="module")
def tasks():
    return kata().split("train", 6)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("kata-lm")


def test_a_group_is_drawn_cleaned_and_judged_as_everywhere_else(backbone, tasks, tmp_path):
    lora = LoRA(backbone)
    system = LoadedSystem("grpo", lora.policy(backbone), DECODING)
    rollouts = Rollouts(system, tasks, Judge(tmp_path), seed=3)
    two = [tasks[1], tasks[0]]
    found = rollouts([task.id for task in two for _ in range(3)], SimpleNamespace(state=SimpleNamespace(global_step=0)))
    expected = [
        cleaned(one, task, system.shown_prompt(task))
        for task in two
        for one in next(iter(generate(backbone, [(task.id, system.shown_prompt(task))], 3, DECODING.sampling, seed=3)))
    ]
    written, end = found["completion_ids"], backbone.tokenizer.eos_token_id
    assert [backbone.decode([id for id in ids if id != end]) for ids in written] == [one.raw for one in expected]
    # kata-lm ends its programs by itself: the end counts among the tokens of the program, and is learnt
    assert [ids[-1] == end for ids in written] == [one.finished for one in expected]
    assert [len(ids) for ids in written] == [one.tokens for one in expected]
    assert any(one.finished for one in expected)
    programs = [one.program for one in expected]
    assert found["quality"] == [one.score / 10 for one in score_programs(programs)]
    verdicts = judge_programs([(program, two[i // 3]) for i, program in enumerate(programs)])
    assert found["passed"] == [float(verdict.passed) for verdict in verdicts]
    assert {tuple(ids) for ids in found["prompt_ids"]} == {
        tuple(backbone.encode_prompt(system.shown_prompt(task).text)) for task in two
    }
    later = rollouts([two[0].id] * 3, SimpleNamespace(state=SimpleNamespace(global_step=1)))
    assert later["completion_ids"] != found["completion_ids"][:3]


def test_a_program_that_its_text_ends_is_learnt_without_an_end_token(backbone):
    end, sampling = backbone.tokenizer.eos_token_id, Sampling(function_end=True)
    prompt = Prompt("def f(x):\n", "def f(x):\n", stops=("\nprint",))
    whole = "    return x\n"
    for raw, finished, by_token in (
        (whole, True, True),
        (whole, False, False),
        (whole + "\nprint(", True, False),
        (whole + "\nf(1)", True, False),
    ):
        ids = token_ids(backbone, Completion("t", 0, raw, prompt.code + whole, 9, finished), prompt, sampling)
        assert backbone.decode([id for id in ids if id != end]) == raw
        assert (ids[-1] == end) == by_token
    assert token_ids(backbone, Completion("t", 0, "", prompt.code, 1, True), prompt, sampling) == [end]


@torch.no_grad()
def mean_log_probability(model, prompt, completion):
    ids = torch.tensor([prompt + completion])
    return float(
        model.logits(ids, torch.ones_like(ids))
        .log_softmax(-1)[0, len(prompt) - 1 : -1]
        .gather(-1, ids[0, len(prompt) :, None])
        .mean()
    )


@pytest.mark.slow
def test_programs_above_the_mean_of_their_group_become_likelier(backbone, tasks, tmp_path):
    """One step on one group; the difference between its best and its worst programs grows."""
    lora = LoRA(backbone)
    policy = lora.policy(backbone).backbone
    rollouts = Rollouts(LoadedSystem("grpo", lora.policy(backbone), DECODING), tasks, Judge(tmp_path), seed=0)
    first = tasks[0]
    drawn = rollouts([first.id] * 8, SimpleNamespace(state=SimpleNamespace(global_step=0)))
    order = sorted(range(8), key=lambda i: drawn["quality"][i])
    assert drawn["quality"][order[0]] < drawn["quality"][order[-1]]

    def gap():
        values = [mean_log_probability(policy, drawn["prompt_ids"][i], drawn["completion_ids"][i]) for i in order]
        return values[-1] - values[0]

    before = gap()
    options = GRPO(steps=1, tasks_per_step=1, n=8, learning_rate=1e-3, passed=0.0)
    train_grpo(
        lora,
        LoadedSystem("grpo", lora.policy(backbone), DECODING),
        [first],
        Judge(tmp_path),
        options,
        directory=tmp_path / "run",
    )
    assert gap() > before + 0.01


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(backbone, tasks, tmp_path):
    judge = Judge(tmp_path / "cache")

    def trained(directory, options=SHORT, report=lambda metrics, step: None):
        lora = LoRA(backbone, seed=1)
        system = LoadedSystem("grpo", lora.policy(backbone), DECODING)
        history = train_grpo(lora, system, tasks, judge, options, directory=tmp_path / directory, seed=1, report=report)
        return lora, [row["reward"] for row in history]

    def killed(metrics, step):
        if step == 3:
            raise KeyboardInterrupt

    whole, rewards = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("killed", report=killed)
    again, rewards_again = trained("killed")
    assert rewards_again == pytest.approx(rewards)
    for name, weight in whole.weights.items():
        torch.testing.assert_close(again.weights[name], weight)
    other, _ = trained("other", replace(SHORT, quality=0.0))
    assert any(not torch.allclose(other.weights[name], weight) for name, weight in whole.weights.items())
