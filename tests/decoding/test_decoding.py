"""The engine against `transformers` generate, PEFT and a plain loop without a cache; independence; how programs end."""

import dataclasses

import pytest
import torch
from peft import PeftModel
from tiny_models import double, tiny_backbone, tiny_model

from cptlab.adapters import Prefix, save_prefix
from cptlab.decoding import Sampling, engine, generate, waiting_queue
from cptlab.decoding.sampling import choose, uniforms
from cptlab.errors import UserError
from cptlab.records import Prompt

TEXTS = ["def add(a, b):", "x", "Sort the list of numbers.\ndef order(items):\n", "for i in range(10):", "été = 1\n"]
PROMPTS = [(f"task/{i}", Prompt(text)) for i, text in enumerate(TEXTS)]
GREEDY = Sampling(temperature=0, max_new_tokens=24)
WARM = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=24)
ROTARY_AND_ABSOLUTE = pytest.mark.parametrize("arch", ["llama_gqa", "gpt2"])


def loop(backbone, task_id, prompt, sample, sampling, seed=0, prefix=None):
    """The same sample by recomputing everything at every token, one row, no padding: (ids, ended by itself)."""
    ids, new = backbone.encode_prompt(prompt.text), []
    numbers = torch.from_numpy(uniforms(seed, task_id, sample, sampling.max_new_tokens))
    for position in range(sampling.max_new_tokens):
        row = torch.tensor([ids + new])
        with torch.no_grad():
            logits = backbone.logits(row, torch.ones_like(row), prefix)[:, -1]
        new.append(int(choose(logits, sampling, numbers[position : position + 1])))
        if new[-1] in backbone.eos_ids:
            return new, True
    return new, False


def test_task_order_and_fields():
    backbone = double("llama_gqa")
    prompts = [("a", Prompt("Say.\ndef f():", code="def f():")), ("b", Prompt("x"))]
    rows = list(generate(backbone, prompts, 3, WARM))
    assert [[(c.task_id, c.sample) for c in row] for row in rows] == [[(t, s) for s in range(3)] for t in "ab"]
    for (_, prompt), row in zip(prompts, rows, strict=True):
        for completion in row:
            assert completion.program == prompt.code + completion.raw
            assert completion.tokens == WARM.max_new_tokens and not completion.finished


@ROTARY_AND_ABSOLUTE
def test_greedy_equals_transformers(arch):
    backbone = double(arch)
    for (_, prompt), (completion,) in zip(PROMPTS, generate(backbone, PROMPTS, 1, GREEDY), strict=True):
        ids = torch.tensor([backbone.encode_prompt(prompt.text)])
        expected = backbone.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, eos_token_id=None,
            pad_token_id=backbone.pad_id,
        )  # fmt: skip
        assert completion.raw == backbone.decode(expected[0, ids.shape[1] :])


@ROTARY_AND_ABSOLUTE
def test_greedy_with_prefix_equals_peft(arch, tmp_path):
    backbone = tiny_backbone(arch)
    backbone.eos_ids = frozenset()
    prefix = Prefix(backbone.shape, length=5, seed=1)
    prefix.table.data *= 50
    save_prefix(prefix, tmp_path, backbone)
    peft_model = PeftModel.from_pretrained(tiny_model(arch), tmp_path).eval()
    plain = [c.raw for (c,) in generate(backbone, PROMPTS, 1, GREEDY)]
    tuned = [c.raw for (c,) in generate(backbone, PROMPTS, 1, GREEDY, prefix=prefix)]
    assert plain != tuned
    for (_, prompt), raw in zip(PROMPTS, tuned, strict=True):
        ids = torch.tensor([backbone.encode_prompt(prompt.text)])
        expected = peft_model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, eos_token_id=None,
            pad_token_id=backbone.pad_id,
        )  # fmt: skip
        assert raw == backbone.decode(expected[0, ids.shape[1] :])


@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2", "starcoder2"])
def test_samples_equal_an_uncached_loop(arch, with_prefix):
    """Batched, padded, repeated, compacted: still the tokens of one row recomputed from nothing."""
    backbone = double(arch, eos=range(0, 12), **({"sliding_window": 16} if arch == "starcoder2" else {}))
    prefix = Prefix(backbone.shape, length=4, seed=2).double() if with_prefix else None
    ended = []
    rows = generate(backbone, PROMPTS, 4, WARM, prefix=prefix, seed=9)
    for (task_id, prompt), row in zip(PROMPTS, rows, strict=True):
        for completion in row:
            ids, finished = loop(backbone, task_id, prompt, completion.sample, WARM, 9, prefix)
            assert (completion.raw, completion.tokens) == (backbone.decode(ids), len(ids))
            assert completion.finished == finished
            ended.append(finished)
    assert 0 < sum(ended) < len(ended)


@ROTARY_AND_ABSOLUTE
def test_programs_do_not_depend_on_batch_mates(arch):
    backbone = double(arch, eos=range(0, 12))
    together = list(generate(backbone, PROMPTS, 5, WARM, seed=4))
    for token_budget in (1, 700):
        assert list(generate(backbone, PROMPTS, 5, WARM, seed=4, token_budget=token_budget)) == together
    assert list(generate(backbone, PROMPTS[::-1], 5, WARM, seed=4)) == together[::-1]
    alone = [row for prompt in PROMPTS for row in generate(backbone, [prompt], 2, WARM, seed=4)]
    assert alone == [row[:2] for row in together]
    assert list(generate(backbone, PROMPTS, 5, WARM, seed=5)) != together


def test_rows_are_filled_from_the_next_window(monkeypatch):
    """All rows run as long as a program waits, although prompts are sorted by length in windows."""
    backbone = double("llama_gqa", eos=range(0, 12))
    budget = 4 * max(len(backbone.encode_prompt(prompt.text)) + WARM.max_new_tokens for _, prompt in PROMPTS)
    together = list(generate(backbone, PROMPTS, 3, WARM, seed=4))
    monkeypatch.setattr(waiting_queue, "WINDOW", 1)
    queues, running, step = [], [], backbone.step

    class Queue(waiting_queue.WaitingQueue):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            queues.append(self)

    monkeypatch.setattr(engine, "WaitingQueue", Queue)
    backbone.step = lambda tokens, *rest: (running.append((bool(queues[0]), len(tokens))), step(tokens, *rest))[1]
    assert list(generate(backbone, PROMPTS, 3, WARM, seed=4, token_budget=budget)) == together
    assert len(queues) == 1 and {rows for waiting, rows in running if waiting} == {4}
    lengths = [len(request.ids) for request in queues[0].requests]
    assert lengths != sorted(lengths, reverse=True)  # there was more than one window


def test_the_same_call_gives_the_same_bits():
    """In float32, where only the composition of the batches makes it so."""
    backbone = tiny_backbone("llama_gqa")
    first = list(generate(backbone, PROMPTS, 6, WARM, token_budget=1200))
    assert list(generate(backbone, PROMPTS, 6, WARM, token_budget=1200)) == first


def test_first_tokens_follow_the_softmax():
    backbone = double("llama_gqa", vocab_size=259)
    sampling = Sampling(temperature=1.5, top_p=0.9, max_new_tokens=1)
    draws = 6000
    ((*completions,),) = generate(backbone, [("t", Prompt("xy"))], draws, sampling)
    ids = torch.tensor([backbone.encode_prompt("xy")])
    with torch.no_grad():
        probs = (backbone.logits(ids, torch.ones_like(ids))[0, -1] / 1.5).softmax(-1)
    order = probs.argsort(descending=True)
    nucleus = order[(probs[order].cumsum(-1) - probs[order]) < 0.9]
    texts = [backbone.decode([token]) for token in nucleus]
    groups: dict[str, float] = {}  # lone bytes decode alike
    for text, token in zip(texts, nucleus, strict=True):
        groups[text] = groups.get(text, 0) + float(probs[token] / probs[nucleus].sum()) * draws
    seen = {text: sum(c.raw == text for c in completions) for text in groups}
    assert sum(seen.values()) == draws
    common = [text for text, expected in groups.items() if expected >= 5]
    statistic = sum((seen[text] - groups[text]) ** 2 / groups[text] for text in common)
    assert statistic < len(common) + 4 * (2 * len(common)) ** 0.5


@pytest.mark.parametrize("stop", [("e",), ("\n", "a"), ("ab", "xyz", "(", "1")])
def test_stop_texts_cut_the_program(stop):
    """The program is the unstopped one up to the first stop text; the model ends with the token that completed it."""
    backbone = double("llama_gqa")
    long = dataclasses.replace(WARM, max_new_tokens=60)
    stopped_at_some = 0
    free = generate(backbone, PROMPTS, 10, long)
    for free_row, row in zip(free, generate(backbone, PROMPTS, 10, dataclasses.replace(long, stop=stop)), strict=True):
        for whole, completion in zip(free_row, row, strict=True):
            ends = [(whole.raw.find(text), text) for text in stop if text in whole.raw]
            assert completion.finished == bool(ends)
            if not ends:
                assert completion == whole
                continue
            stopped_at_some += 1
            at = min(end for end, _ in ends)
            assert completion.program == whole.raw[:at]
            assert whole.raw.startswith(completion.raw)
            assert len(completion.raw) == min(end + len(text) for end, text in ends)
            assert completion.tokens < 60 or completion.raw == whole.raw
    assert stopped_at_some > 3


def test_generation_ends_where_the_context_does():
    """Prompts of unequal length on a model with learned positions: none steps outside its table."""
    backbone = double("gpt2", n_positions=40)
    prompts = [("long", Prompt("y" * 36)), ("short", Prompt("z")), ("full", Prompt("y" * 39))]
    sampling = dataclasses.replace(WARM, max_new_tokens=100)
    # many short prompts, so that the few that are full do not leave merely because a large share has ended
    rows = list(generate(backbone, prompts + [(f"short {i}", Prompt("z")) for i in range(10)], 3, sampling))
    assert [{c.tokens for c in row} for row in rows] == [{4}, {39}, {1}] + [{39}] * 10
    assert not any(c.finished for row in rows for c in row)
    prefix = Prefix(backbone.shape, length=3).double()
    assert [c.tokens for (c,) in generate(backbone, prompts[:2], 1, sampling, prefix=prefix)] == [1, 36]


def test_a_prompt_too_long_is_refused_before_anything_runs():
    backbone = double("llama_gqa", max_position_embeddings=50)
    prompts = [("fine", Prompt("x")), ("kata/long", Prompt("y" * 47))]
    assert len(list(generate(backbone, prompts, 1, GREEDY))) == 2
    backbone.prefill = None  # any forward would fail
    with pytest.raises(UserError, match="kata/long has 47 tokens behind a prefix of 3 .* 50"):
        generate(backbone, prompts, 1, GREEDY, prefix=Prefix(backbone.shape, length=3))
    with pytest.raises(UserError, match="no tokens"):
        generate(backbone, [("empty", Prompt(""))], 1, GREEDY)
    with pytest.raises(UserError, match="must be at least 1, got n=0"):
        generate(backbone, prompts, 0, GREEDY)


def test_logits_that_are_not_numbers_are_reported():
    backbone = double("llama_gqa")
    prefix = Prefix(backbone.shape, length=3).double()
    prefix.table.data.fill_(float("nan"))
    with pytest.raises(UserError, match="diverged"):
        list(generate(backbone, PROMPTS, 1, GREEDY, prefix=prefix))


def test_prompts_are_read_once_and_ended_rows_are_refilled():
    backbone = double("llama_gqa", eos=range(0, 32))
    read, stepped, extend, step = [], [], backbone.extend, backbone.step
    backbone.extend = lambda ids, *rest: (read.append(len(ids)), extend(ids, *rest))[1]
    backbone.step = lambda tokens, *rest: (stepped.append(len(tokens)), step(tokens, *rest))[1]
    ended = []
    budget = 12 * max(len(backbone.encode_prompt(prompt.text)) + WARM.max_new_tokens for _, prompt in PROMPTS)
    completions = list(generate(backbone, PROMPTS, 10, WARM, token_budget=budget, ended=ended.append))
    tokens = [c.tokens for row in completions for c in row]
    assert sum(read) == len(PROMPTS)  # each prompt once, whatever n
    assert max(stepped) == 12 and stepped[: len(stepped) // 2] == [12] * (len(stepped) // 2)  # full while programs wait
    # a program of t tokens needs t - 1 steps; the rest is what has ended when nothing waits any more
    assert sum(tokens) - 50 <= sum(stepped) <= 1.15 * (sum(tokens) - 50)
    assert len(ended) == 50 and max(tokens) > 2 * min(tokens)


def test_nothing_to_do():
    assert list(generate(double("llama_gqa"), [], 3, GREEDY)) == []
