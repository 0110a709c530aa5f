"""Selective Prompt Anchoring: its ten properties, each against a computation without a cache."""

import pytest
import torch
from tiny_models import double, tiny_backbone

from cptlab.adapters import Prefix
from cptlab.decoding import Guidance, Masked, Sampling, generate
from cptlab.decoding.negatives.masked import masked_ids
from cptlab.decoding.rules.linear import Linear, mix
from cptlab.decoding.sampling import choose, uniforms
from cptlab.errors import UserError
from cptlab.records import Prompt, Span

GREEDY = Sampling(temperature=0, max_new_tokens=16, heal=False)
WARM = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=16, heal=False)
ROTARY_AND_ABSOLUTE = pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])


def spa(omega: float, spans=("nl",)) -> Guidance:
    return Guidance(Masked(spans), omega)


def tagged(text: str, *names: str) -> Prompt:
    """A prompt from a text in which «…» marks a span, named 'nl' unless told."""
    spans, plain = [], ""
    for i, part in enumerate(text.replace("»", "«").split("«")):
        if i % 2:
            spans.append(Span(names[len(spans)] if names else "nl", len(plain), len(plain) + len(part)))
        plain += part
    return Prompt(plain, spans=tuple(spans))


PROMPTS = [
    ("a", tagged("«Add the numbers.»\ndef add(a, b):")),
    ("b", tagged("# sum of «sum»\n")),
    ("c", tagged("nothing to anchor here, but rather long")),
    ("d", tagged("«é» and «longer words» count", "nl", "tests")),
]


def masked_by_hand(backbone, prompt, names=("nl",)):
    """One token per byte in the tiny tokenizer: mask the bytes of each span."""
    ids = backbone.encode_prompt(prompt.text)
    for span in prompt.spans:
        if span.name in names:
            first = len(prompt.text[: span.start].encode())
            last = first + len(prompt.text[span.start : span.end].encode())
            ids[first:last] = [backbone.mask_id] * (last - first)
    return ids


def loop(backbone, task_id, prompt, sample, sampling, omega, seed=0, prefix=None, spans=("nl",)):
    """The same sample by recomputing both streams whole at every token: (ids, the mixed logits of each step)."""
    clean, masked = backbone.encode_prompt(prompt.text), masked_by_hand(backbone, prompt, spans)
    numbers = torch.from_numpy(uniforms(seed, task_id, sample, sampling.max_new_tokens))
    new = []
    for position in range(sampling.max_new_tokens):
        rows = torch.tensor([clean + new, masked + new])
        with torch.no_grad():
            both = backbone.logits(rows, torch.ones_like(rows), prefix)[:, -1]
        logits = omega * both[:1] + (1 - omega) * both[1:]
        new.append(int(choose(logits, sampling, numbers[position : position + 1])))
        if new[-1] in backbone.eos_ids:
            break
    return new


def watch(backbone):
    """Record the number of rows of every forward pass."""
    rows, extend, step = [], backbone.extend, backbone.step
    backbone.extend = lambda ids, *rest: (rows.append(len(ids)), extend(ids, *rest))[1]
    backbone.step = lambda tokens, *rest: (rows.append(len(tokens)), step(tokens, *rest))[1]
    return rows


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_1_omega_one_or_no_anchor_is_plain_and_free(arch, sampling):
    backbone = double(arch)
    rows = watch(backbone)
    plain = list(generate(backbone, PROMPTS, 2, sampling))
    cost = rows.copy()
    for guidance in (spa(1.0), spa(2.0, ["shots"])):
        rows.clear()
        assert list(generate(backbone, PROMPTS, 2, sampling, guidance=guidance)) == plain
        assert rows == cost
    rows.clear()
    assert list(generate(backbone, PROMPTS, 2, sampling, guidance=spa(2.0))) != plain
    assert rows[:3] == [4, 3, 8 + 6]  # prompts, what differs in three of them, then all streams in one forward


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_2_omega_zero_is_generation_from_the_masked_prompt(arch, sampling):
    backbone = double(arch)
    found = list(generate(backbone, PROMPTS, 2, sampling, guidance=spa(0.0)))
    masked = {prompt.text: masked_by_hand(backbone, prompt) for _, prompt in PROMPTS}
    backbone.encode_prompt = masked.__getitem__
    assert found == list(generate(backbone, PROMPTS, 2, sampling))


def test_3_affine_in_omega_and_blind_to_constants():
    generator = torch.Generator().manual_seed(0)
    clean, masked = torch.randn(2, 6, 50, generator=generator, dtype=torch.float64)
    at_zero, at_one = mix(clean, masked, 0.0), mix(clean, masked, 1.0)
    assert torch.equal(at_zero, masked) and torch.equal(at_one, clean)
    omegas = torch.tensor([-1.0, 0.0, 0.3, 1.0, 1.28, 4.0])[:, None].double()
    torch.testing.assert_close(mix(clean, masked, omegas), at_zero + omegas * (at_one - at_zero))
    shift = torch.randn(2, 6, 1, generator=generator, dtype=torch.float64)
    shifted = mix(clean + shift[0], masked + shift[1], omegas)
    torch.testing.assert_close(shifted.softmax(-1), mix(clean, masked, omegas).softmax(-1))


@ROTARY_AND_ABSOLUTE
def test_4_only_the_tagged_occurrence_is_masked(arch):
    backbone = double(arch)
    for names in (("nl",), ("tests",), ("nl", "tests")):
        for _, prompt in PROMPTS:
            clean = backbone.encode_prompt(prompt.text)
            expected = masked_by_hand(backbone, prompt, names)
            assert masked_ids(backbone, prompt, names) == (None if expected == clean else expected)
    assert backbone.decode(masked_ids(backbone, PROMPTS[1][1], ["nl"])) == "# sum of \n"


def test_4_tokens_of_several_characters():
    """A merge across the span's edge: the token is masked whole, the others stay as they were."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "<unk>": 4, "<s>": 5}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    backbone = tiny_backbone("llama")
    backbone.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    backbone.mask_id = 4
    assert masked_ids(backbone, tagged("cab«cab»ab"), ["nl"]) == [2, 3, 4, 4, 3]
    assert masked_ids(backbone, tagged("ca«bc»ab"), ["nl"]) == [2, 4, 4, 3]
    assert masked_ids(backbone, tagged("ca«»bc"), ["nl"]) is None


@ROTARY_AND_ABSOLUTE
def test_5_both_cached_streams_equal_an_uncached_recompute(arch, monkeypatch):
    """The very logits that tokens are chosen from, at every step, and hence the tokens."""
    backbone, seen = double(arch), []
    monkeypatch.setattr(Linear, "mix", lambda self, c, m, w: (seen.append((c.clone(), m.clone())), mix(c, m, w))[1])
    task_id, prompt = PROMPTS[0]
    ((completion,),) = generate(backbone, [(task_id, prompt)], 1, WARM, guidance=spa(1.7))
    new = loop(backbone, task_id, prompt, 0, WARM, 1.7)
    del seen[0]  # of the prompt alone, before its row is copied for the sample
    assert completion.raw == backbone.decode(new) and len(seen) == len(new)
    streams = [backbone.encode_prompt(prompt.text) + new, masked_by_hand(backbone, prompt) + new]
    rows = torch.tensor(streams)
    with torch.no_grad():
        whole = backbone.logits(rows, torch.ones_like(rows))[:, -len(new) - 1 : -1]
    for position, (clean, masked) in enumerate(seen):
        torch.testing.assert_close(torch.cat([clean, masked]), whole[:, position], rtol=1e-9, atol=1e-9)


@ROTARY_AND_ABSOLUTE
def test_6_rows_do_not_depend_on_batch_mates(arch):
    """Own anchors, own ω, own length, early stop, guided beside unguided."""
    backbone = double(arch, eos=range(0, 24))  # so many that rows leave the batch while others go on
    guidance = [spa(1.5), spa(-0.5), spa(3.0), spa(2.0, ["nl", "tests"])]
    guidance_of = dict(zip((task_id for task_id, _ in PROMPTS), guidance, strict=True))
    together = list(generate(backbone, PROMPTS, 4, WARM, guidance=guidance))
    assert len({c.tokens for row in together for c in row}) > 1
    for token_budget in (1, 500):
        assert list(generate(backbone, PROMPTS, 4, WARM, guidance=guidance, token_budget=token_budget)) == together
    for prompt, row in zip(PROMPTS, together, strict=True):
        assert list(generate(backbone, [prompt], 4, WARM, guidance=guidance_of[prompt[0]])) == [row]
    mixed = list(generate(backbone, PROMPTS, 4, WARM, guidance=[guidance[0], None, None, guidance[3]]))
    plain = list(generate(backbone, PROMPTS, 4, WARM))
    assert mixed == [together[0], plain[1], plain[2], together[3]]


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("with_prefix", [False, True])
def test_7_and_9_samples_and_prefix_follow_in_both_streams(arch, with_prefix):
    """Every sample of every prompt equals the loop in which both streams carry the prefix and the sample's tokens."""
    backbone = double(arch, eos=range(0, 8))
    prefix = Prefix(backbone.shape, length=4, seed=3).double() if with_prefix else None
    if with_prefix:
        prefix.table.data *= 30
    rows = generate(backbone, PROMPTS, 3, WARM, guidance=spa(1.4), prefix=prefix, seed=2)
    for (task_id, prompt), row in zip(PROMPTS, rows, strict=True):
        for completion in row:
            new = loop(backbone, task_id, prompt, completion.sample, WARM, 1.4, 2, prefix)
            assert (completion.raw, completion.tokens) == (backbone.decode(new), len(new))


@pytest.mark.parametrize("omega", [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_8_banned_tokens_stay_banned(omega):
    clean = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf, 2.0]])
    masked = torch.tensor([[0.0, -torch.inf, -torch.inf, 3.0, 1.0]])
    mixed = mix(clean, masked, omega)
    assert torch.isneginf(mixed[0, 1:4]).all() and torch.isfinite(mixed[0, [0, 4]]).all()


def test_low_precision_is_mixed_in_float32():
    clean, masked = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = 1.28 * clean.float() - 0.28 * masked.float()
    torch.testing.assert_close(mix(clean, masked, 1.28), expected)


def test_10_a_repeated_call_gives_the_same():
    backbone = tiny_backbone("gpt2")
    guidance = spa(1.6)
    first = list(generate(backbone, PROMPTS, 3, WARM, guidance=guidance))
    list(generate(backbone, PROMPTS[:1], 2, WARM, guidance=guidance, seed=8))
    assert list(generate(backbone, PROMPTS, 3, WARM, guidance=guidance)) == first


def test_mistakes_are_explained():
    backbone = double("llama_gqa")
    with pytest.raises(UserError, match="no prompt span 'description'"):
        spa(1.2, ["nl", "description"])
    assert Masked("nl").spans == ("nl",)
    backbone.mask_id = None
    with pytest.raises(UserError, match="no token to mask with"):
        generate(backbone, PROMPTS, 1, GREEDY, guidance=spa(1.2))
    assert len(list(generate(backbone, PROMPTS[2:3], 1, GREEDY, guidance=spa(1.2)))) == 1
