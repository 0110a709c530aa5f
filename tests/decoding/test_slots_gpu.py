"""Decoding in slots on a GPU, where each step is a CUDA graph: the CPU's programs, and no wait within a step."""

import contextlib

import pytest
import torch
from test_slots import ENDS, GUIDED, PROMPTS, WARM
from tiny_models import double, random_prefix, tiny_backbone

from cptlab.decoding import generate
from cptlab.decoding.slots import decode as slots_decode
from cptlab.decoding.slots.batch import SlotBatch
from cptlab.decoding.slots.graph import StepGraphs

pytestmark = pytest.mark.gpu


@contextlib.contextmanager
def no_waits():
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def programs(device, guidance=None, dtype=torch.float64, **options):
    backbone = double("llama_gqa", eos=ENDS) if dtype == torch.float64 else tiny_backbone("llama_gqa")
    backbone.model.to(device, dtype)
    prefix = random_prefix(backbone).to(device, dtype)
    return list(generate(backbone, PROMPTS, 6, WARM, prefix=prefix, guidance=guidance, seed=3, **options))


@pytest.mark.parametrize("likeliest", [100, slots_decode.LIKELIEST])
@pytest.mark.parametrize("guidance", [None, GUIDED])
def test_programs_equal_the_plain_loop_on_a_cpu(guidance, likeliest, monkeypatch):
    """In float64; with a small budget rows are refilled, and at the end there are fewer and fewer. With 100 likeliest tokens, rows
    wait for the whole vocabulary now and then."""
    monkeypatch.setattr(slots_decode, "LIKELIEST", likeliest)
    plain = programs("cpu", guidance, slots=False)
    for budget in (800, None):
        assert programs("cuda", guidance, token_budget=budget) == plain


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU at most")
def test_the_model_need_not_be_on_the_current_gpu():
    assert torch.cuda.current_device() == 0
    assert programs("cuda:1", GUIDED) == programs("cpu", GUIDED, slots=False)


def test_the_memory_is_free_once_the_programs_are_there():
    """So that the next call has as much. In the first one, libraries make what they keep."""
    backbone, held = tiny_backbone("llama_gqa"), []
    backbone.model.to("cuda")
    for _ in range(3):
        for _ in generate(backbone, PROMPTS, 6, WARM, guidance=GUIDED):
            pass
        held.append(torch.cuda.memory_allocated())
    assert held[2] == held[1]


def test_the_same_call_gives_the_same_bits_in_bfloat16():
    first = programs("cuda", GUIDED, torch.bfloat16)
    assert programs("cuda", GUIDED, torch.bfloat16) == first
    assert sum(map(len, first)) == 6 * len(PROMPTS)


def test_a_step_waits_for_nothing(monkeypatch):
    """Run as it is, not as a graph, a step makes no call that waits for the device."""

    def run(self, width, whole):
        self.step.cache.width = width
        with no_waits():
            self.step(whole)

    monkeypatch.setattr(StepGraphs, "run", run)
    assert sum(map(len, programs("cuda", GUIDED))) == 6 * len(PROMPTS)


def test_a_look_waits_for_nothing_but_what_it_looks_at(monkeypatch):
    look, ended = SlotBatch.look, []

    def waiting_for_nothing(self, at):
        with no_waits():
            found = list(look(self, at))
        ended.extend(found)
        return iter(found)

    monkeypatch.setattr(SlotBatch, "look", waiting_for_nothing)
    assert sum(map(len, programs("cuda", GUIDED))) == 6 * len(PROMPTS)
    limit = WARM.max_new_tokens
    assert any(len(ids) < limit and ids[-1] not in ENDS for _, _, ids in ended)  # a stop text, seen by a look
