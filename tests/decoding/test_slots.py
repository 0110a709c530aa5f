"""Decoding in slots against the plain loop; the step as one graph; few sizes in a batch's whole life."""

import contextlib
import dataclasses
import functools
import gc
import sys
import weakref
from pathlib import Path

import pytest
import torch
from tiny_models import SLIDING, double, tiny_backbone

from cptlab.adapters import Prefix
from cptlab.backbone.kv_cache import BufferedCache
from cptlab.backbone.prefix_shape import TESTED
from cptlab.backbone.slot_cache import SlotCache
from cptlab.decoding import Guidance, Masked, Sampling, engine, generate
from cptlab.decoding.gates.entropy import Entropy
from cptlab.decoding.rules.plausible import Plausible
from cptlab.decoding.sampling import choose, choose_among_likeliest, choose_without_looking, probabilities
from cptlab.decoding.slots import batch as slot_batch
from cptlab.decoding.slots import decode as slots_decode
from cptlab.decoding.slots.decode import fits_slots
from cptlab.decoding.slots.graph import StepGraphs
from cptlab.decoding.token_budget import default_token_budget
from cptlab.errors import UserError
from cptlab.records import Prompt, Span

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import overhead  # noqa: E402

TEXTS = ["def add(a, b):", "x", "Sort the list of numbers.\ndef order(items):\n", "for i in range(10):", "été = 1\n"]
PROMPTS = [(f"task/{i}", Prompt(text, spans=(Span("nl", 0, len(text)),) * (i % 3 > 0))) for i, text in enumerate(TEXTS)]
WARM = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=40, stop=("e",))
ENDS = range(0, 6)  # tokens that end a text, so that rows end at all times
GUIDED = [Guidance(Masked(("nl",)), 1.5), Guidance(Masked(("nl",)), 0.7), None, Guidance(Masked(("nl",)), 1.2, Entropy(3.0), Plausible(0.01)), None]  # fmt: skip


@pytest.fixture(params=["looks", "looks ahead", "among the likeliest"])
def ahead(request, monkeypatch):
    """As on a CPU; and as on a GPU: the host looks one time later, and no choice looks at the numbers, or only at the likeliest
    tokens, which are so few here that rows wait for the whole vocabulary now and then."""
    if request.param == "looks":
        return
    decode, likeliest = engine.decode_in_slots, 100 if request.param == "among the likeliest" else None

    def later(*arguments):
        return decode(*arguments, choose_without_looking, True, likeliest)

    monkeypatch.setattr(engine, "decode_in_slots", later)


def both(backbone, **options):
    slots, plain = (list(generate(backbone, PROMPTS, 6, slots=slots, seed=3, **options)) for slots in (True, False))
    return slots, plain


@pytest.mark.parametrize("arch", ["gpt2", "llama_gqa"])
def test_programs_equal_the_plain_loop(arch, ahead):
    check_against_plain(arch)


@pytest.mark.parametrize("arch", sorted(TESTED - {"gpt2", "llama", "mixtral", "qwen2_moe"}))
def test_every_tested_dense_architecture_has_slots(arch):
    check_against_plain(arch)


def check_against_plain(arch):
    backbone = double(arch, eos=ENDS, **SLIDING.get(arch, {}))
    prefix = Prefix(backbone.shape, length=4, seed=2).double()
    prefix.table.data *= 20
    few = 7 * (4 + 45 + 40)  # rows that end are refilled
    slots, plain = both(backbone, sampling=WARM, prefix=prefix, token_budget=few)
    assert slots == plain
    tokens = {completion.tokens for row in plain for completion in row}
    assert len(tokens) > 4 and max(tokens) == WARM.max_new_tokens


@pytest.mark.parametrize("with_prefix", [False, True])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_guided_rows_equal_the_plain_loop(with_prefix, temperature, ahead):
    """Some rows have a second stream, with one or another gate and rule, and some have none."""
    backbone = double("llama_gqa", eos=ENDS)
    prefix = Prefix(backbone.shape, length=3, seed=2).double() if with_prefix else None
    sampling = dataclasses.replace(WARM, temperature=temperature)
    slots, plain = both(backbone, sampling=sampling, prefix=prefix, guidance=GUIDED, token_budget=500)
    assert slots == plain
    assert slots != both(backbone, sampling=sampling, prefix=prefix)[0]


def test_context_ends_in_slots_as_well(ahead):
    backbone = double("gpt2", n_positions=40)
    prompts = [("long", Prompt("y" * 36)), ("short", Prompt("z")), ("full", Prompt("y" * 39))]
    sampling = Sampling(temperature=1.0, max_new_tokens=100)
    rows = list(generate(backbone, prompts, 3, sampling, slots=True))
    assert [{c.tokens for c in row} for row in rows] == [{4}, {39}, {1}]


def test_a_token_budget_fits_into_the_memory():
    """Keys and values of the programs, a quarter of them twice, and 48 bytes for each logit of each program."""
    backbone = tiny_backbone("llama_gqa")
    assert default_token_budget(backbone, [10]) == 65536  # on a CPU
    for free, cost in ((10**9, 500), (10**7, 90), (10**4, 90)):
        budget = default_token_budget(backbone, [cost // 2, cost], free)
        rows = budget / cost
        taken = 1.25 * budget * backbone.shape.width * 4 + 48 * rows * backbone.vocab_size
        assert budget == 1 or 0.75 * free < taken <= 0.8 * free


@pytest.mark.parametrize("guided", [False, True])
def test_the_slots_fit_into_the_token_budget(guided, monkeypatch):
    """Also where the longest prompt has one stream and a short one has two: all rows of a batch have as many slots."""
    tokens, make = [], slot_batch.SlotBatch

    def noted(*arguments):
        batch = make(*arguments)
        count, _, columns, _ = batch.step.cache.layers[0].keys.shape
        tokens.append(count * columns)
        return batch

    monkeypatch.setattr(slots_decode, "SlotBatch", noted)
    prompts = [("long", Prompt("y" * 150)), ("short", Prompt("x" * 9, spans=(Span("nl", 0, 5),)))]
    guidance, budget = Guidance(Masked(("nl",)), 1.5) if guided else None, 2000
    sampling = Sampling(max_new_tokens=20)
    rows = list(generate(double("llama"), prompts, 20, sampling, slots=True, guidance=guidance, token_budget=budget))
    assert sum(map(len, rows)) == 40
    assert len(tokens) == 1 and budget / 2 < tokens[0] <= budget


@pytest.mark.parametrize("slots", [False, True])
def test_the_cache_is_freed_with_the_last_program(slots, monkeypatch):
    """At once, as the next call takes the memory that is free, and Python may look for rings of objects long after."""
    caches = []
    for kind in (SlotCache, BufferedCache):

        def made(self, *arguments, make=kind.__init__):
            make(self, *arguments)
            caches.append(weakref.ref(self))

        monkeypatch.setattr(kind, "__init__", made)
    gc.collect()
    gc.disable()
    try:
        for _ in generate(tiny_backbone("llama_gqa"), PROMPTS, 3, WARM, slots=slots, guidance=GUIDED):
            pass
        assert len(caches) > 2 and not [cache for cache in caches if cache() is not None]
    finally:
        gc.enable()


def test_changing_frequencies_run_in_the_plain_loop():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert fits_slots(tiny_backbone("llama"), None)
    assert not fits_slots(tiny_backbone("llama", rope_parameters=rope), None)


def test_tokens_are_the_same_without_looking():
    torch.manual_seed(0)
    logits, uniform = 3 * torch.randn(200, 1000), torch.rand(200, dtype=torch.float64)
    logits[::2] /= 10  # nuclei of nearly all tokens
    for sampling in (WARM, Sampling(top_k=5), Sampling(0.7, 1.0), Sampling(0)):
        found = choose_without_looking(logits, sampling, uniform)
        assert torch.equal(found, choose(logits, sampling, uniform))


def test_among_the_likeliest_a_token_is_the_same_or_not_sure():
    torch.manual_seed(0)
    logits, uniform = 3 * torch.randn(200, 1000), torch.rand(200, dtype=torch.float64)
    logits[::2] /= 10
    logits[1::4] = logits[1::4].round()  # ties
    wanted = choose_without_looking(logits, WARM, uniform)
    for size in (1, 10, 100, 300, 1000):
        found, sure = choose_among_likeliest(logits, WARM, uniform, size)
        assert torch.equal(found[sure], wanted[sure])
        sizes = (probabilities(logits, WARM) > 0).sum(-1)
        assert torch.equal(sure, sizes < size), "not sure only where the nucleus does not end among them"


def test_rows_wait_for_the_whole_vocabulary(monkeypatch):
    """And the others go on meanwhile: few steps look at all of it."""
    backbone, steps = double("llama_gqa", eos=ENDS), []
    run = StepGraphs.run

    def noted(self, width, whole):
        steps.append(whole)
        unsure.append(bool(self.step.unsure.any()))
        run(self, width, whole)

    unsure: list[bool] = []
    monkeypatch.setattr(StepGraphs, "run", noted)
    decode = engine.decode_in_slots
    for size in (100, 257):
        steps.clear()
        unsure.clear()
        monkeypatch.setattr(
            engine, "decode_in_slots", lambda *a, size=size: decode(*a, choose_without_looking, True, size)
        )
        slots, plain = both(backbone, sampling=WARM)
        assert slots == plain
        assert any(steps) and any(unsure) if size == 100 else not any(unsure)
        assert sum(steps) <= len(steps) / 8


class Run(StepGraphs):
    """Compile the step for each width, as one graph, where a GPU captures it. `made` counts graphs of all batches."""

    made: list = []
    sizes: list = []

    def run(self, width, whole):
        self.step.cache.width = width
        key = (self.step.rows, width, whole)
        if key not in self.graphs:
            Run.sizes.append(key)
            self.graphs[key] = torch.compile(self.step.__call__, fullgraph=True, dynamic=False, backend=counting)
        self.graphs[key](whole)


def counting(graph, examples):
    Run.made.append(len(graph.graph.nodes))
    return graph


class Stream:
    """Stands for a stream of a GPU."""

    def __init__(self, *_):
        pass

    def wait_stream(self, other):
        pass


class Recorded(StepGraphs):
    """Goes the way of a GPU: a step runs once, is taken back, is recorded, which runs nothing, and is run as recorded."""

    def run(self, width, whole):
        self.step.cache.width, self.whole = width, whole
        if (width, whole) not in self.graphs:
            self.graphs[width, whole] = self._captured(whole)
        self.graphs[width, whole].replay()

    @contextlib.contextmanager
    def recording(self, graph, pool, stream):
        tensors = [*vars(self.step).values(), *vars(self.step.cache).values()]
        tensors += [tensor for layer in self.step.cache.layers for tensor in (layer.keys, layer.values)]
        kept = [(tensor, tensor.clone()) for tensor in tensors if isinstance(tensor, torch.Tensor)]
        yield
        for tensor, before in kept:
            tensor.copy_(before)
        graph.replay, graph.pool = functools.partial(self.step, self.whole), lambda: (0, 1)


def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", type("Graph", (), {}))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())


@pytest.mark.parametrize(
    "inside, at_the_end, expected",
    [
        (
            RuntimeError("operation not permitted when stream is capturing\nmore"),
            None,
            "capturing[)]. Set decoding.slots",
        ),
        (
            RuntimeError("not permitted"),
            RuntimeError("failed due to a previous error"),
            "permitted[)]. Set decoding.slots",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), None, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("the recording failed"), "CUDA out of memory"),
        (None, RuntimeError("CUDA error: out of memory\nmore"), "out of memory$"),
    ],
)
def test_a_step_that_cannot_be_recorded(inside, at_the_end, expected, monkeypatch):
    """What cannot be recorded runs in the plain loop, if the user says so; for want of memory that would not help."""

    @contextlib.contextmanager
    def recording(graph, pool, stream):
        try:
            if inside is not None:
                raise inside
            yield
        finally:
            if at_the_end is not None:
                raise at_the_end

    def graphs(step):
        monkeypatch.setattr(torch.cuda, "graph", recording)
        return Recorded(step)

    monkeypatch.setattr(slot_batch, "StepGraphs", graphs)
    as_on_a_gpu(monkeypatch)
    wanted = UserError if "slots" in expected else torch.OutOfMemoryError
    with pytest.raises(wanted, match=expected):
        list(generate(tiny_backbone("llama"), PROMPTS, 1, WARM, slots=True))


@pytest.mark.parametrize("guidance", [None, GUIDED])
def test_a_recorded_step_changes_nothing_but_when_it_runs(guidance, ahead, monkeypatch):
    made = []

    def graphs(step):
        made.append(Recorded(step))
        monkeypatch.setattr(torch.cuda, "graph", made[-1].recording)
        return made[-1]

    monkeypatch.setattr(slot_batch, "StepGraphs", graphs)
    as_on_a_gpu(monkeypatch)
    slots, plain = both(double("llama_gqa", eos=ENDS), sampling=WARM, guidance=guidance, token_budget=900)
    assert slots == plain and len(made) == 1 and made[0].graphs


@pytest.mark.slow
@pytest.mark.parametrize("guided", [False, True])
def test_a_batch_has_few_graphs_in_its_life(guided, ahead, monkeypatch):
    """Rows end, are refilled, and become fewer: one graph without a break for each planned size, and none twice."""
    rows = compiled_run(guided, monkeypatch)
    assert sum(map(len, rows)) == 30
    sizes = 4 * 3 * 2  # 8, 4, 2 or 1 rows; 32, 64 or 96 columns; the likeliest tokens or all
    assert 3 <= len(Run.sizes) <= sizes and len(set(Run.sizes)) == len(Run.sizes) == len(Run.made)


def test_a_step_is_one_graph(monkeypatch):
    """It compiles without a break, and not again when rows end."""
    compiled_run(True, monkeypatch, PROMPTS[1:2], dataclasses.replace(WARM, max_new_tokens=15))
    assert len(Run.sizes) == len(Run.made) == 1


def compiled_run(guided, monkeypatch, prompts=PROMPTS, sampling=WARM):
    backbone = tiny_backbone("llama_gqa")
    backbone.eos_ids = frozenset(ENDS)
    monkeypatch.setattr(slot_batch, "StepGraphs", Run)
    monkeypatch.setattr(slot_batch, "WIDTH", 32)
    monkeypatch.setattr(slots_decode, "look_and_choose", choose_without_looking)
    Run.made, Run.sizes = [], []
    guidance = GUIDED[: len(prompts)] if guided else None
    budget = 8 * 2**guided * 90
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=100):  # each size is a version of the one step
        return list(generate(backbone, prompts, 6, sampling, slots=True, guidance=guidance, token_budget=budget))


@pytest.mark.parametrize("guided", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_step_costs_little_beside_the_model(guided):
    """At most 1.3 times the bare model's operator calls, and Python has no more to do when there are more rows."""
    backbone, steps = overhead.tiny_llama(16), overhead.LONG - overhead.SHORT

    def per_step(count, run):
        return (count(run, overhead.LONG) - count(run, overhead.SHORT)) / steps

    few, many = (overhead.our_run(backbone, rows, guided, slots=True) for rows in (40, 100))
    bare = per_step(overhead.operators_of, overhead.bare_run(backbone, 40))
    assert bare < per_step(overhead.operators_of, few) == per_step(overhead.operators_of, many) <= 1.3 * bare
    calls = [per_step(overhead.calls_of, run) for run in (few, many)]
    assert calls[1] - calls[0] < 0.5 * 60  # the looks, every few steps
