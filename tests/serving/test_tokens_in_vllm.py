"""Greedy tokens of an unmodified vLLM with our connector equal those of cptlab's engine. `make test-serving` runs this."""

import os

import pytest
from tiny_models import tiny_backbone
from vllm_models import NEEDS_VLLM, TOKENS, model_on_disk, ours, prefixes_on_disk, start, stop

from cptlab.errors import UserError
from cptlab.serving.served_prefix import load_served

pytestmark = NEEDS_VLLM
BLOCK = 32  # positions of a block of vLLM's CPU build
# shorter than a block, longer than one, a whole one, and two prefixes side by side
CASES = {
    "llama_gqa": {"a": 5, "b": 12},
    "qwen2": {"a": 40, "b": 12},
    "starcoder2": {"a": 32, "b": 64},
    "gpt2": {"a": 7, "b": 33},
    "kata-lm": {"a": 16, "b": 12},
}
TEXTS = [f"def f{'x' * number}(n):\n    # {'abc ' * number}{number}\n    return" for number in range(12)]


@pytest.fixture(scope="module", params=sorted(CASES))
def engines(request, tmp_path_factory):
    """(backbone, prefixes, what cptlab's engine writes, vLLM), with 14 blocks in all, while a request takes up to 6.

    cptlab's engine comes first, because vLLM changes the classes of transformers for models that it runs through these.
    """
    directory = tmp_path_factory.mktemp(request.param)
    backbone = model_on_disk(request.param, directory / "model")
    directories = prefixes_on_disk(backbone, directory, CASES[request.param])
    served = load_served(directories)
    expected = {one and one.name: ours(backbone, TEXTS, one and one.prefix) for one in (None, *served)}
    llm = start(backbone, directories, block_size=BLOCK, num_gpu_blocks_override=14)
    yield backbone, served, expected, llm
    stop(llm)


def prompt_of(backbone, text, served):
    ids = backbone.encode_prompt(text)
    if served is None:
        return {"prompt_token_ids": ids}
    return {"prompt_token_ids": [0] * served.length + ids, "cache_salt": served.salt}


def run(llm, prompts, **options):
    from vllm import SamplingParams

    return llm.generate(prompts, SamplingParams(**({"temperature": 0, "max_tokens": TOKENS} | options)), use_tqdm=False)


def text(backbone, output) -> str:
    """What an output's tokens say; vLLM's own text lacks the bytes of a character that the last token leaves unfinished."""
    return backbone.decode(output.outputs[0].token_ids)


def preemptions(llm) -> int:
    return sum(metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


def test_greedy_tokens_equal_ours_with_preemption_and_two_prefixes_at_once(engines):
    backbone, served, expected, llm = engines
    assert len({tuple(texts) for texts in expected.values()}) == 3  # each prefix changes what is written
    before = preemptions(llm)
    for _ in range(2):
        prompts = [(number, one) for number in range(len(TEXTS)) for one in (None, *served)]
        outputs = run(llm, [prompt_of(backbone, TEXTS[number], one) for number, one in prompts])
        found = [text(backbone, output) for output in outputs]
        assert found == [expected[one and one.name][number] for number, one in prompts]
    assert preemptions(llm) > before


def test_blocks_of_an_earlier_request_hold_its_prefix_and_no_other(engines):
    backbone, served, expected, llm = engines
    llm.reset_prefix_cache()
    for one, hit in ((served[0], False), (served[0], True), (served[1], False), (None, False), (served[0], True)):
        (output,) = run(llm, [prompt_of(backbone, TEXTS[-1], one)])
        filled = one.length if one else 0
        assert (output.num_cached_tokens > filled) == hit
        assert text(backbone, output) == expected[one and one.name][-1]


def test_a_request_that_cannot_have_its_prefix_fails_instead_of_going_without(engines):
    backbone, served, expected, llm = engines
    llm.reset_prefix_cache()
    unknown = {"prompt_token_ids": [0] * 9 + [40], "cache_salt": "cptlab-prefix-0"}
    short = {"prompt_token_ids": [0, 0, 40], "cache_salt": served[0].salt}
    outputs = run(llm, [unknown, prompt_of(backbone, TEXTS[1], served[1]), short])
    assert [output.outputs[0].finish_reason for output in outputs][::2] == ["error", "error"]
    assert text(backbone, outputs[1]) == expected[served[1].name][1]
    # vLLM would compute the whole prompt anew
    (scored,) = run(llm, [prompt_of(backbone, TEXTS[0], served[0])], prompt_logprobs=1)
    assert scored.outputs[0].finish_reason == "error"


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need a core each")
def test_two_processes_of_tensor_parallelism_write_their_own_heads(tmp_path):
    backbone = model_on_disk("llama_gqa", tmp_path / "model")
    directories = prefixes_on_disk(backbone, tmp_path, {"a": 40})
    (one,) = load_served(directories)
    expected = ours(backbone, TEXTS[:4], one.prefix)
    two = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    llm = start(backbone, directories, block_size=BLOCK, **two)
    try:
        outputs = run(llm, [prompt_of(backbone, some, one) for some in TEXTS[:4]])
        assert [text(backbone, output) for output in outputs] == expected
    finally:
        stop(llm)


def test_a_model_that_would_lose_the_prefix_is_refused(tmp_path):
    made = tiny_backbone("mistral", hidden_size=128, sliding_window=64)
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    made.path = str(tmp_path / "model")
    directories = prefixes_on_disk(made, tmp_path, {"a": 5})
    with pytest.raises(UserError, match="max_model_len=64"):
        start(made, directories, block_size=BLOCK, num_gpu_blocks_override=14)
