"""`decoding.engine=vllm` makes the programs that cptlab's engine makes, with the same ends. `make test-serving` runs this."""

from dataclasses import replace

import pytest
from vllm_models import NEEDS_VLLM, vllm_settings

from cptlab.adapters import Prefix
from cptlab.backbone import load_backbone
from cptlab.decoding import Sampling, generate
from cptlab.errors import UserError
from cptlab.records import Prompt
from cptlab.serving.sampling import generate_with_vllm
from cptlab.tasks.kata import kata

pytestmark = NEEDS_VLLM
GREEDY = Sampling(temperature=0, heal=False, max_new_tokens=120)


@pytest.fixture(scope="module")
def backbone():
    vllm_settings()
    return load_backbone("kata-lm")


@pytest.fixture(scope="module")
def prompts():
    tasks = kata().split("test", 6)
    return [(task.id, replace(task.prompt, stops=(*task.prompt.stops, "\nprint("))) for task in tasks]


def with_vllm(backbone, prompts, sampling, prefix, n=1, seed=0):
    found = []
    generate_with_vllm(
        backbone, prompts, sampling, prefix=prefix, seed=seed, samples=[range(n)] * len(prompts), ended=found.append
    )
    places = {task_id: number for number, (task_id, _) in enumerate(prompts)}
    return sorted(found, key=lambda one: (places[one.task_id], one.sample))


@pytest.mark.parametrize("length", [None, 12])
def test_greedy_completions_equal_ours_in_every_field(backbone, prompts, length):
    prefix = None if length is None else Prefix(backbone, length, seed=3)
    if prefix is not None:
        prefix.table.data.mul_(50)
    wanted = [one for some in generate(backbone, prompts, 1, GREEDY, prefix=prefix) for one in some]
    assert with_vllm(backbone, prompts, GREEDY, prefix) == wanted
    assert length or {one.finished for one in wanted} == {True}  # ends were found in the text


def test_samples_differ_and_come_back_with_their_seed(backbone, prompts):
    hot = replace(GREEDY, temperature=1.0)
    first = with_vllm(backbone, prompts[:2], hot, None, n=4)
    assert [one.sample for one in first] == [0, 1, 2, 3] * 2
    assert len({one.raw for one in first}) > 4
    assert with_vllm(backbone, prompts[:2], hot, None, n=4) == first
    assert with_vllm(backbone, prompts[:2], hot, None, n=4, seed=1) != first


def test_a_prompt_that_needs_healing_is_refused(backbone):
    with pytest.raises(UserError, match="decoding.sampling.heal=false"):
        with_vllm(backbone, [("task", Prompt("def f(x):\n    ret"))], replace(GREEDY, heal=True), None)
