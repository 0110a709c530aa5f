"""Decoding in slots on a GPU, where each step is a CUDA graph: the CPU's programs, and no wait within a step."""

import pytest
import torch
from test_slots import ENDS, GUIDED, PROMPTS, WARM
from tiny_models import double, random_prefix, tiny_backbone

from cptlab.decoding import generate
from cptlab.decoding.slots.graph import StepGraphs

pytestmark = pytest.mark.gpu


def programs(device, guidance=None, dtype=torch.float64, **options):
    backbone = double("llama_gqa", eos=ENDS) if dtype == torch.float64 else tiny_backbone("llama_gqa")
    backbone.model.to(device, dtype)
    prefix = random_prefix(backbone).to(device, dtype)
    return list(generate(backbone, PROMPTS, 6, WARM, prefix=prefix, guidance=guidance, seed=3, **options))


@pytest.mark.parametrize("guidance", [None, GUIDED])
def test_programs_equal_the_plain_loop_on_a_cpu(guidance):
    """In float64; with a small budget rows are refilled, and at the end there are fewer and fewer."""
    plain = programs("cpu", guidance, slots=False)
    for budget in (800, None):
        assert programs("cuda", guidance, token_budget=budget) == plain


def test_the_same_call_gives_the_same_bits_in_bfloat16():
    first = programs("cuda", GUIDED, torch.bfloat16)
    assert programs("cuda", GUIDED, torch.bfloat16) == first
    assert sum(map(len, first)) == 6 * len(PROMPTS)


def test_a_step_waits_for_nothing(monkeypatch):
    """Run as it is, not as a graph, a step makes no call that waits for the device."""

    def run(self, width):
        self.step.cache.width = width
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            self.step()
        finally:
            torch.cuda.set_sync_debug_mode(before)

    monkeypatch.setattr(StepGraphs, "run", run)
    assert sum(map(len, programs("cuda", GUIDED))) == 6 * len(PROMPTS)
