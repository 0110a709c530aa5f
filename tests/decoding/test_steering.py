"""Attention steering against eager attention whose weights are scaled and divided by their new sum, without a cache."""

from contextlib import contextmanager

import pytest
import torch
from test_guidance import WARM, some_prefix
from test_spa import PROMPTS
from tiny_models import MIXED, double

from cptlab.decoding import Beams, Guidance, Sampling, Steering, generate
from cptlab.decoding.sampling import choose, uniforms
from cptlab.errors import UserError
from cptlab.records import Prompt

HEADS = {1: [0, 3]}


@contextmanager
def scaled_attention(backbone, scaled, alpha, heads):
    """Eager attention that multiplies the weights of the keys `scaled` by alpha, then divides by the sum (PASTA eq. 2)."""
    plain, calls, before = torch.nn.functional.softmax, [], backbone.config._attn_implementation

    def softmax(scores, *arguments, **options):
        if scores.dim() != 4:
            return plain(scores, *arguments, **options)
        weights, layer = plain(scores.double(), dim=-1), len(calls)
        calls.append(layer)
        for head in range(weights.shape[1]) if heads is None else heads.get(layer, ()):
            weights[:, head, :, scaled] *= alpha
        return weights / weights.sum(-1, keepdim=True)

    backbone.model.set_attn_implementation("eager")
    torch.nn.functional.softmax = softmax
    try:
        yield
        assert len(calls) == backbone.shape.num_layers
    finally:
        torch.nn.functional.softmax = plain
        backbone.model.set_attn_implementation(before)


def loop(backbone, task_id, prompt: Prompt, alpha, heads, prefix, sample):
    """One sample, every token with all before it read anew. A byte is a token here."""
    ids = backbone.encode_prompt(prompt.text)
    characters = [i for i, letter in enumerate(prompt.text) for _ in letter.encode()]
    spans = [span for span in prompt.spans if span.name == "nl"]
    inside = [any(span.start <= at < span.end for span in spans) for at in characters]
    behind = 0 if prefix is None else prefix.length
    scaled = [behind + i for i, anchored in enumerate(inside) if spans and not anchored]
    numbers = torch.from_numpy(uniforms(0, task_id, sample, WARM.max_new_tokens))
    new: list[int] = []
    while len(new) < WARM.max_new_tokens and not (new and new[-1] in backbone.eos_ids):
        rows = torch.tensor([ids + new])
        with torch.no_grad(), scaled_attention(backbone, scaled, alpha, heads):
            logits = backbone.logits(rows, torch.ones_like(rows), prefix)[:, -1]
        new.append(int(choose(logits, WARM, numbers[len(new) : len(new) + 1])))
    return new


CASES = [
    ("llama_gqa", None, False, {}),
    ("llama_gqa", HEADS, True, {}),
    ("gpt2", HEADS, True, {}),
    ("qwen2", HEADS, True, MIXED),
    ("qwen2", None, True, MIXED),
    *[pytest.param(arch, HEADS, True, {}, marks=pytest.mark.slow)
      for arch in ("codegen", "gpt_bigcode", "gpt_neox", "phi", "starcoder2", "qwen3", "mixtral")],
]  # fmt: skip


@pytest.mark.parametrize(("arch", "heads", "with_prefix", "overrides"), CASES)
def test_steering_scales_and_renormalises_attention(arch, heads, with_prefix, overrides):
    backbone = double(arch, eos=range(0, 8), **overrides)
    prefix = some_prefix(backbone) if with_prefix else None
    steering = Steering(alpha=0.05, heads=heads)
    rows = list(generate(backbone, PROMPTS, 2, WARM, prefix=prefix, steering=steering, token_budget=150))
    plain = list(generate(backbone, PROMPTS, 2, WARM, prefix=prefix))
    for (task_id, prompt), row in zip(PROMPTS, rows, strict=True):
        for completion in row:
            new = loop(backbone, task_id, prompt, 0.05, heads, prefix, completion.sample)
            assert completion.raw == backbone.decode(new)
    assert rows[2] == plain[2] and rows != plain  # the third prompt has no anchor
    assert list(generate(backbone, PROMPTS, 2, WARM, prefix=prefix, steering=Steering(alpha=1, heads=heads))) == plain


def test_steering_reaches_strategies_and_refuses_what_makes_no_sense():
    backbone = double("llama_gqa")
    greedy = Sampling(temperature=0, max_new_tokens=8)
    steering = Steering(["nl", "tests"], alpha=0.1)
    (beams,) = generate(backbone, PROMPTS[3:], 1, greedy, strategy=Beams(1), steering=steering)
    assert [beams] == list(generate(backbone, PROMPTS[3:], 1, greedy, steering=steering))
    with pytest.raises(UserError, match="mixes two"):
        generate(backbone, PROMPTS, 1, WARM, steering=steering, guidance=Guidance())
    with pytest.raises(UserError, match="2 layers of 4 heads"):
        generate(backbone, PROMPTS, 1, WARM, steering=Steering(heads={2: [0]}))
    for wrong in ({}, {1: []}, {"a": [1]}, {1: 3}):
        with pytest.raises(UserError, match="heads"):
            Steering(heads=wrong)
    with pytest.raises(UserError, match="above 0"):
        Steering(alpha=0)
