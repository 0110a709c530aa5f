"""Beam search against `transformers` generate: plain, and with scores recomputed from nothing at every step."""

import ast
import dataclasses

import pytest
import torch
from tiny_models import ARCHITECTURES, SLIDING, double
from transformers import LogitsProcessor, LogitsProcessorList

from cptlab.adapters import Prefix
from cptlab.backbone import load_backbone
from cptlab.decoding import Sampling, generate
from cptlab.decoding.guidance import Guidance
from cptlab.decoding.negatives.no_prefix import NoPrefix
from cptlab.decoding.negatives.stream import Stream
from cptlab.decoding.request import Request
from cptlab.decoding.rules.plausible import Plausible
from cptlab.decoding.strategies.beams import Beams
from cptlab.errors import UserError
from cptlab.records import Prompt

TEXT = "def add(a, b):\n"
ENDS = range(0, 24)  # so many that hypotheses end early, at different lengths
GREEDY = Sampling(temperature=0, function_end=False, heal=False)
ROTARY_AND_ABSOLUTE = pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])


def ending(arch, eos=ENDS, **overrides):
    """A tiny backbone in float64 that ends at many tokens, unless told."""
    return double(arch, eos, **overrides)


def search(backbone, beams, n=1, text=TEXT, limit=16, sampling=GREEDY, prefix=None, second=None, guidance=None):
    request = Request(
        0, "task", backbone.encode_prompt(text), second, guidance, limit, stopping=sampling.stopping(Prompt(text))
    )
    return beams.run(backbone, request, n, sampling, prefix)


class Recomputed(LogitsProcessor):
    """The log-probabilities that `recompute` gives for whole rows of new tokens, whatever the model said."""

    def __init__(self, recompute, prompt_length):
        self.recompute, self.prompt_length = recompute, prompt_length

    def __call__(self, input_ids, scores):
        new = input_ids[:, self.prompt_length :]
        return self.recompute(new).float().log_softmax(-1)


def reference(backbone, beams, n=1, text=TEXT, limit=16, recompute=None, **more):
    """The n best programs' ids as transformers finds them; `recompute(new ids [R, t])` gives logits instead of the model."""
    ids = torch.tensor([backbone.encode_prompt(text)])
    processors = [Recomputed(recompute, ids.shape[1])] if recompute else []
    found = backbone.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=beams.width, num_return_sequences=n,
        length_penalty=beams.length_penalty, early_stopping=beams.early_stopping, max_new_tokens=limit,
        eos_token_id=sorted(backbone.eos_ids) or None, pad_token_id=backbone.pad_id,
        logits_processor=LogitsProcessorList(processors), **more,
    )  # fmt: skip
    return [until_eos(row, backbone.eos_ids) for row in found[:, ids.shape[1] :].tolist()]


def until_eos(ids, eos_ids):
    """Padding stands behind shorter hypotheses, and these all end with an end-of-text token."""
    return ids[: next((i + 1 for i, token in enumerate(ids) if token in eos_ids), len(ids))]


def uncached(backbone, ids, prefix=None):
    """A function from new ids [R, t] to the logits [R, V] of what follows `ids` and them, without a cache."""

    def logits(new):
        rows = torch.cat([torch.tensor(ids).expand(len(new), -1), new], dim=1)
        with torch.no_grad():
            return backbone.logits(rows, torch.ones_like(rows), prefix)[:, -1]

    return logits


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_transformers(arch):
    backbone = ending(arch)
    for text in (TEXT, "x", "for i in range(10):"):
        for beams, n in ((Beams(4), 4), (Beams(3, 0.4, True), 2), (Beams(5, 1.8, "never"), 3)):
            assert search(backbone, beams, n, text) == reference(backbone, beams, n, text)


@pytest.mark.parametrize("arch", SLIDING)
def test_equals_transformers_where_attention_slides(arch):
    backbone = ending(arch, **SLIDING[arch])
    assert search(backbone, Beams(4), 4) == reference(backbone, Beams(4), 4)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("width", [2, 3, 6])
def test_equals_transformers_with_every_setting(width, penalty, early_stopping):
    beams = Beams(width, penalty, early_stopping)
    for ends in (ENDS, (32,), (), range(0, 240)):
        backbone = ending("llama_gqa", ends)
        for limit in (1, 2, 20):
            assert search(backbone, beams, width, limit=limit) == reference(backbone, beams, width, limit=limit)


def test_the_settings_matter_and_hypotheses_end_early():
    """Else the comparisons above would show little."""
    backbone = ending("llama_gqa", range(0, 64))
    found = {}
    for penalty in (-1.0, 0.0, 1.0, 2.0):
        for early in (True, False, "never"):
            found[penalty, early] = search(backbone, Beams(4, penalty, early), 4, limit=20)
    lengths = {len(ids) for programs in found.values() for ids in programs}
    assert len(lengths) > 3 and min(lengths) < 5
    assert found[1.0, True] != found[1.0, False] and found[0.0, False] != found[2.0, False]
    assert found[1.0, False] != found[1.0, "never"]
    widths = {tuple(search(backbone, Beams(width), limit=20)[0]) for width in (1, 2, 3, 4, 8)}
    assert len(widths) > 2


@ROTARY_AND_ABSOLUTE
def test_width_one_is_greedy(arch):
    backbone = ending(arch, eos=range(0, 12))
    assert search(backbone, Beams(1), limit=30) == reference(backbone, Beams(1), limit=30)


@ROTARY_AND_ABSOLUTE
def test_n_programs_are_the_first_of_more(arch):
    backbone = ending(arch)
    everything = search(backbone, Beams(5), 5)
    assert len({tuple(ids) for ids in everything}) == 5
    for n in range(1, 5):
        assert search(backbone, Beams(5), n) == everything[:n]


@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2", "starcoder2", "qwen2"])
def test_with_a_prefix_equals_an_uncached_recompute(arch):
    backbone = ending(arch, **SLIDING.get(arch, {}))
    prefix = Prefix(backbone.shape, length=4, seed=2).double()
    prefix.table.data *= 50
    recompute = uncached(backbone, backbone.encode_prompt(TEXT), prefix)
    for beams in (Beams(4), Beams(3, 2.0, "never")):
        found = search(backbone, beams, 3, prefix=prefix)
        assert found == reference(backbone, beams, 3, recompute=recompute)
        assert found != search(backbone, beams, 3)


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("omega", [0.0, 1.6, -0.5])
def test_the_second_stream_follows_its_hypothesis(arch, with_prefix, omega):
    """SPA: beams over mixed log-probabilities, both streams recomputed whole for every hypothesis at every step."""
    backbone = ending(arch)
    prefix = Prefix(backbone.shape, length=4, seed=3).double() if with_prefix else None
    if with_prefix:
        prefix.table.data *= 30
    clean = backbone.encode_prompt(TEXT)
    masked = clean[:4] + [backbone.mask_id] * 3 + clean[7:]
    first, second = uncached(backbone, clean, prefix), uncached(backbone, masked, prefix)
    recompute = lambda new: omega * first(new) + (1 - omega) * second(new)  # noqa: E731
    for beams in (Beams(4), Beams(3, 0.3, True)):
        found = search(backbone, beams, 3, prefix=prefix, second=Stream(masked), guidance=Guidance(omega=omega))
        assert found == reference(backbone, beams, 3, recompute=recompute)
        assert found != search(backbone, beams, 3, prefix=prefix)


@ROTARY_AND_ABSOLUTE
def test_a_second_stream_of_other_length_without_the_prefix(arch):
    backbone = ending(arch)
    prefix = Prefix(backbone.shape, length=4, seed=3).double()
    prefix.table.data *= 30
    ids, shorter = backbone.encode_prompt(TEXT), backbone.encode_prompt("add(")
    first, second = uncached(backbone, ids, prefix), uncached(backbone, shorter)
    recompute = lambda new: 1.5 * first(new) - 0.5 * second(new)  # noqa: E731
    guidance = Guidance(NoPrefix(), 1.5)
    found = search(backbone, Beams(4), 4, prefix=prefix, second=Stream(shorter, False), guidance=guidance)
    assert found == reference(backbone, Beams(4), 4, recompute=recompute)


def test_where_a_rule_leaves_one_program_it_is_given_n_times():
    """Most tokens are banned (−inf), so that there are fewer programs than beams: no empty ones, nothing that is banned."""
    backbone = ending("llama_gqa", ())
    second = Stream(backbone.encode_prompt("# sum"))
    for penalty in (-1.0, 0.0, 1.0):
        guidance = Guidance(omega=1.5, rule=Plausible(1.0))
        found = search(backbone, Beams(3, penalty), 3, second=second, guidance=guidance)
        assert found == search(backbone, Beams(1)) * 3  # the first stream's likeliest token is all that is plausible
    some = Guidance(omega=1.5, rule=Plausible(0.2))
    programs = search(backbone, Beams(4), 4, second=second, guidance=some)
    first = uncached(backbone, backbone.encode_prompt(TEXT))
    for ids in programs:
        for at, token in enumerate(ids):
            probs = first(torch.tensor([ids[:at]], dtype=torch.long))[0].softmax(-1)
            assert probs[token] >= 0.2 * probs.max()


@ROTARY_AND_ABSOLUTE
def test_the_search_stays_within_its_limit(arch):
    """The context of 40 is full after 25 new tokens: a model with learned positions cannot step further."""
    backbone = ending(arch, (), **({"n_positions": 40} if arch == "gpt2" else {}))
    assert [len(ids) for ids in search(backbone, Beams(3), 3, limit=25)] == [25] * 3
    assert [len(ids) for ids in search(backbone, Beams(3), 3, limit=1)] == [1] * 3


def test_forward_passes_end_with_the_search():
    """The prompt is read as one row, and no step is made after the last token is chosen."""
    backbone = ending("llama_gqa", ())
    rows, prefill, step = [], backbone.prefill, backbone.step
    backbone.prefill = lambda ids, *rest: (rows.append(len(ids)), prefill(ids, *rest))[1]
    backbone.step = lambda tokens, *rest: (rows.append(len(tokens)), step(tokens, *rest))[1]
    search(backbone, Beams(4), limit=10)
    assert rows == [1] + [4] * 9
    rows.clear()
    search(backbone, Beams(4), limit=10, second=Stream(backbone.encode_prompt("abc")), guidance=Guidance())
    assert rows[-9:] == [8] * 9  # both streams in one pass


@pytest.mark.parametrize("stop", [("@",), ("]", "t"), ("xyz", "*t")])
def test_stop_texts_end_hypotheses_as_in_transformers(stop):
    backbone = ending("llama_gqa", ())
    sampling = dataclasses.replace(GREEDY, stop=stop)
    expected = reference(backbone, Beams(4), 4, limit=24, stop_strings=list(stop), tokenizer=backbone.tokenizer)
    found = search(backbone, Beams(4), 4, limit=24, sampling=sampling)
    assert found == [[token for token in ids if token != -1] for ids in expected]  # −1 pads where nothing ends a text
    assert found != search(backbone, Beams(4), 4, limit=24)


def test_through_the_engine():
    backbone = ending("llama_gqa", ())
    prompts = [("a", Prompt(TEXT, code=TEXT)), ("b", Prompt("x"))]
    sampling = dataclasses.replace(GREEDY, max_new_tokens=12)
    rows = list(generate(backbone, prompts, 3, sampling, strategy=Beams(4)))
    for (task_id, prompt), row in zip(prompts, rows, strict=True):
        assert [(c.task_id, c.sample) for c in row] == [(task_id, 0), (task_id, 1), (task_id, 2)]
        found = search(backbone, Beams(4), 3, prompt.text, 12)
        assert [c.program for c in row] == [prompt.code + backbone.decode(ids) for ids in found]
    backbone.prefill = None  # any forward would fail
    with pytest.raises(UserError, match="n is 5"):
        generate(backbone, prompts, 5, sampling, strategy=Beams(4))


def test_a_healed_prompt_and_the_end_of_its_function():
    """kata-lm, which no end-of-text stops here; its tokenizer merges the prompt's last newline with the indent."""
    backbone = load_backbone("kata-lm")
    backbone.eos_ids = frozenset()
    code = "def total(numbers):\n"
    prompt = Prompt('"""Return the sum of the numbers."""\n' + code, code=code)
    whole = Sampling(temperature=0, max_new_tokens=120)
    ((*programs,),) = generate(backbone, [("t", prompt)], 3, whole, strategy=Beams(3))
    for completion in programs:
        assert completion.finished and completion.tokens < 120
        (function,) = ast.parse(completion.program).body
        assert function.name == "total"


def test_mistakes_are_explained():
    Beams(4).check(4, GREEDY, None)
    with pytest.raises(UserError, match="n is 5, but a beam search of width 4"):
        Beams(4).check(5, GREEDY, None)
    with pytest.raises(UserError, match="temperature is 0.4"):
        Beams(4).check(1, Sampling(), None)
    with pytest.raises(UserError, match="Beams: width=0 cannot be: it must be a whole number from 1 up"):
        Beams(0)
    with pytest.raises(UserError, match="early_stopping=sometimes cannot be: it must be true or false or never"):
        Beams(early_stopping="sometimes")
