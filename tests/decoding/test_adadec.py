"""AdaDec against a loop without a cache, and against greedy decoding."""

import dataclasses
import math

import pytest
import torch
from tiny_models import ARCHITECTURES, double

from cptlab.adapters import Prefix
from cptlab.decoding import Sampling, generate
from cptlab.decoding.guidance import Guidance
from cptlab.decoding.negatives.no_prefix import NoPrefix
from cptlab.decoding.negatives.stream import Stream
from cptlab.decoding.request import Request
from cptlab.decoding.rules.plausible import Plausible
from cptlab.decoding.strategies.adadec import AdaDec
from cptlab.errors import UserError
from cptlab.records import Prompt

TEXTS = ["def add(a, b):\n", "x", "for i in range(10):", "Sort the list of numbers.\ndef order(items):\n"]
ENDS = range(0, 16)
GREEDY = Sampling(temperature=0, function_end=False, heal=False)
OFTEN = 4.4  # nats; exceeded at about every second position of the tiny models
ROTARY_AND_ABSOLUTE = pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])


def ending(arch, eos=ENDS, **overrides):
    """A tiny backbone in float64 that ends at many tokens, unless told."""
    return double(arch, eos, **overrides)


def decode(backbone, adadec, text=TEXTS[0], limit=24, sampling=GREEDY, prefix=None, second=None, guidance=None):
    request = Request(
        0, "task", backbone.encode_prompt(text), second, guidance, limit, stopping=sampling.stopping(Prompt(text))
    )
    (ids,) = adadec.run(backbone, request, 1, sampling, prefix)
    return ids


def uncached(backbone, ids, prefix=None):
    """A function from new ids to the log-probabilities [V] of what follows `ids` and them, recomputed whole."""

    def logits(new):
        row = torch.tensor([ids + new])
        with torch.no_grad():
            return backbone.logits(row, torch.ones_like(row), prefix)[0, -1]

    return logits


def naive(backbone, adadec, logits, limit=24, room=math.inf):
    """The same program with no cache and no cleverness: (ids, the positions where it looked ahead, greedy tokens not
    taken there). `logits(new)` gives those of what follows."""
    new, unsure, changed = [], [], []
    while len(new) < limit:
        log_probs = logits(new).log_softmax(-1)
        entropy = float(torch.special.entr(log_probs.exp()).sum())
        choice = int(log_probs.argmax())
        if entropy > adadec.threshold:
            unsure.append(len(new))
            best = -math.inf
            for candidate in log_probs.topk(adadec.candidates).indices.tolist():
                scores, path = [float(log_probs[candidate])], [*new, candidate]
                for _ in range(adadec.lookahead):
                    if path[-1] in backbone.eos_ids or len(path) >= room:
                        break
                    following = logits(path).log_softmax(-1)
                    path.append(int(following.argmax()))
                    scores.append(float(following[path[-1]]))
                if sum(scores) / len(scores) > best:
                    best, choice = sum(scores) / len(scores), candidate
            if choice != int(log_probs.argmax()):
                changed.append(len(new))
        new.append(choice)
        if choice in backbone.eos_ids:
            break
    return new, unsure, changed


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_a_naive_loop(arch):
    backbone, triggered, changes = ending(arch), 0, 0
    for text in TEXTS[:2]:
        adadec = AdaDec(OFTEN)
        expected, unsure, changed = naive(backbone, adadec, uncached(backbone, backbone.encode_prompt(text)), 16)
        assert decode(backbone, adadec, text, 16) == expected
        triggered, changes = triggered + len(unsure), changes + len(changed)
    assert changes > 0 and triggered > changes


@pytest.mark.parametrize("candidates", [1, 2, 6])
@pytest.mark.parametrize("lookahead", [1, 2, 9])
@pytest.mark.parametrize("threshold", [0.0, OFTEN])
def test_equals_a_naive_loop_with_every_setting(threshold, lookahead, candidates):
    backbone, adadec = ending("llama_gqa"), AdaDec(threshold, candidates, lookahead)
    for text in TEXTS[:2]:
        expected, *_ = naive(backbone, adadec, uncached(backbone, backbone.encode_prompt(text)), 10)
        assert decode(backbone, adadec, text, 10) == expected


@ROTARY_AND_ABSOLUTE
def test_greedy_where_it_never_looks_ahead_or_sees_nothing(arch):
    backbone = ending(arch)
    looking = []
    for text in TEXTS:
        ids = torch.tensor([backbone.encode_prompt(text)])
        expected = backbone.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24,
            eos_token_id=sorted(backbone.eos_ids), pad_token_id=backbone.pad_id,
        )  # fmt: skip
        greedy = expected[0, ids.shape[1] :].tolist()
        for adadec in (AdaDec(1e9), AdaDec(0, lookahead=0), AdaDec(0, candidates=1)):
            assert decode(backbone, adadec, text) == greedy
        looking.append(decode(backbone, AdaDec(0), text) != greedy)
    assert any(looking)


@ROTARY_AND_ABSOLUTE
def test_with_a_prefix_and_a_second_stream(arch):
    """Entropy, candidates and scores are those of the mixture, with both streams recomputed whole."""
    backbone = ending(arch)
    prefix = Prefix(backbone.shape, length=4, seed=3).double()
    prefix.table.data *= 30
    clean = backbone.encode_prompt(TEXTS[0])
    masked = clean[:4] + [backbone.mask_id] * 3 + clean[7:]
    shorter = backbone.encode_prompt("add(")
    adadec, found = AdaDec(2.0), []  # a large ω makes the mixture surer
    cases = [
        (prefix, None, None, lambda new: uncached(backbone, clean, prefix)(new)),
        (None, Stream(masked), Guidance(omega=1.6),
         lambda new: 1.6 * uncached(backbone, clean)(new) - 0.6 * uncached(backbone, masked)(new)),
        (prefix, Stream(masked), Guidance(omega=2.0),
         lambda new: 2.0 * uncached(backbone, clean, prefix)(new) - 1.0 * uncached(backbone, masked, prefix)(new)),
        (prefix, Stream(shorter, False), Guidance(NoPrefix(), 0.5),
         lambda new: 0.5 * uncached(backbone, clean, prefix)(new) + 0.5 * uncached(backbone, shorter)(new)),
    ]  # fmt: skip
    for prefix_of_first, second, guidance, logits in cases:
        ids = decode(backbone, adadec, limit=12, prefix=prefix_of_first, second=second, guidance=guidance)
        expected, unsure, _ = naive(backbone, adadec, logits, 12)
        assert ids == expected and unsure
        found.append(tuple(ids))
    assert len({*found, tuple(decode(backbone, adadec, limit=12))}) == 5


def test_banned_tokens_are_no_candidates():
    """With a rule that leaves one token (−inf elsewhere) nothing is unsure; with one that leaves few, only these count."""
    backbone = ending("llama_gqa", ())
    clean, other = (uncached(backbone, backbone.encode_prompt(text)) for text in (TEXTS[0], "# sum"))
    second = Stream(backbone.encode_prompt("# sum"))
    rows = count_rows(backbone)

    def plausible(floor):
        def logits(new):
            first = clean(new)
            mixed = 1.5 * first - 0.5 * other(new)
            return mixed.masked_fill(first < first.max() + math.log(floor), -math.inf)

        return logits

    for floor in (1.0, 0.5):
        adadec, guidance = AdaDec(0), Guidance(omega=1.5, rule=Plausible(floor))
        # where fewer than three are left, the naive loop's banned candidates score −inf
        expected, unsure, _ = naive(backbone, adadec, plausible(floor), 12)
        rows.clear()
        assert decode(backbone, adadec, limit=12, second=second, guidance=guidance) == expected
        assert bool(unsure) == (floor < 1)
        possible = [int(plausible(floor)(expected[:at]).isfinite().sum()) for at in unsure]
        for candidates, times in (
            (2, sum(count == 2 for count in possible)),
            (3, sum(count > 2 for count in possible)),
        ):
            assert rows.count(2 * candidates) == 5 * times and (times or floor == 1)  # two streams, no banned candidate


def count_rows(backbone):
    """Record the number of rows of every forward pass."""
    rows, prefill, step = [], backbone.prefill, backbone.step
    backbone.prefill = lambda ids, *rest: (rows.append(len(ids)), prefill(ids, *rest))[1]
    backbone.step = lambda tokens, *rest: (rows.append(len(tokens)), step(tokens, *rest))[1]
    return rows


def test_it_costs_only_where_it_is_unsure():
    """What the winner's lookahead has read is read again only where it was unsure itself."""
    backbone, limit = ending("gpt2", ()), 20
    logits = uncached(backbone, backbone.encode_prompt(TEXTS[0]))
    rows = count_rows(backbone)
    seen, confirmed = [], 0
    for threshold in (1e9, 4.5, 4.2, 0):
        _, unsure, _ = naive(backbone, AdaDec(threshold), logits, limit)
        seen.append(len(unsure))
        expected, position = [1], 0  # the prompt
        while position < limit:
            if position in unsure:
                expected += [3] * 5
                following = min([other for other in unsure if other > position], default=math.inf)
                sure = following - position > 5
                position, steps = (position + 6, 1) if sure else (following, following - position)
                confirmed += sure and position < limit
            else:
                position, steps = position + 1, 1
            if position < limit:
                expected += [1] * steps
        rows.clear()
        decode(backbone, AdaDec(threshold), limit=limit)
        assert rows == expected
    assert confirmed and seen[0] == 0 and seen[-1] == limit and 0 < seen[1] < seen[2] < limit


def test_candidates_that_end_leave_the_lookahead():
    backbone = ending("llama_gqa", range(0, 120))
    rows = count_rows(backbone)
    seen = []
    for text in TEXTS:
        rows.clear()
        decode(backbone, AdaDec(0), text)
        seen += rows
    assert {1, 2, 3} == set(seen)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20])
def test_a_limit_only_cuts_the_program(limit):
    backbone = ending("llama_gqa", ())
    whole = decode(backbone, AdaDec(OFTEN), limit=40)
    assert decode(backbone, AdaDec(OFTEN), limit=limit) == whole[:limit]


@ROTARY_AND_ABSOLUTE
@pytest.mark.parametrize("length", [4, 0])
def test_a_lookahead_stays_within_the_context(arch, length):
    backbone = ending(arch, (), **{"n_positions" if arch == "gpt2" else "max_position_embeddings": 40})
    prefix = Prefix(backbone.shape, length=length, seed=2).double() if length else None
    prompt = backbone.encode_prompt(TEXTS[0])
    room = 40 - len(prompt) - length
    adadec = AdaDec(0)
    expected, *_ = naive(backbone, adadec, uncached(backbone, prompt, prefix), room, room)
    assert decode(backbone, adadec, limit=room, prefix=prefix) == expected
    longer = Stream(prompt + prompt[:8])
    ids = decode(backbone, adadec, limit=room - 8, prefix=prefix, second=longer, guidance=Guidance(omega=1.2))
    assert len(ids) == room - 8


def test_a_stop_text_ends_the_program():
    backbone = ending("llama_gqa", ())
    whole = decode(backbone, AdaDec(OFTEN))
    text = backbone.decode(whole)
    stop = text[len(text) // 3]
    rows = count_rows(backbone)
    ids = decode(backbone, AdaDec(OFTEN), sampling=dataclasses.replace(GREEDY, stop=(stop,)))
    assert len(ids) < len(whole) and ids == whole[: len(ids)] and stop in backbone.decode(ids)
    cost = len(rows)
    rows.clear()
    decode(backbone, AdaDec(OFTEN))
    assert cost < len(rows)


def test_through_the_engine():
    backbone = ending("llama_gqa", ())
    prompts = [("a", Prompt(TEXTS[0], code=TEXTS[0])), ("b", Prompt("x"))]
    sampling = dataclasses.replace(GREEDY, max_new_tokens=12)
    rows = list(generate(backbone, prompts, 1, sampling, strategy=AdaDec(OFTEN)))
    for (task_id, prompt), (completion,) in zip(prompts, rows, strict=True):
        ids = decode(backbone, AdaDec(OFTEN), prompt.text, 12)
        assert (completion.task_id, completion.sample, completion.tokens) == (task_id, 0, 12)
        assert completion.program == prompt.code + backbone.decode(ids) and not completion.finished
    backbone.prefill = None  # any forward would fail
    with pytest.raises(UserError, match="n is 2"):
        generate(backbone, prompts, 2, sampling, strategy=AdaDec(OFTEN))


def test_mistakes_are_explained():
    AdaDec(1.0).check(1, GREEDY, None)
    with pytest.raises(UserError, match="n is 3"):
        AdaDec(1.0).check(3, GREEDY, None)
    with pytest.raises(UserError, match="temperature is 0.4"):
        AdaDec(1.0).check(1, Sampling(), None)
    for threshold in (-0.1, math.nan):
        with pytest.raises(UserError, match="AdaDec: threshold="):
            AdaDec(threshold)
    for wrong in ({"candidates": 0}, {"lookahead": -1}):
        with pytest.raises(UserError, match="it must be a whole number from"):
            AdaDec(1.0, **wrong)
