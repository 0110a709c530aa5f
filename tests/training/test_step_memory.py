"""What a training step holds at most, by counting its tensors: chunks of logits, the fast step, checkpointed layers."""

import pytest
import torch
from live_bytes import LiveBytes
from tiny_models import tiny_backbone

from cptlab.adapters import Prefix
from cptlab.training import CPT, AdapterTraining, StepMethod
from cptlab.training.steps import head
from cptlab.training.steps.batches import collate
from cptlab.training.steps.token_pairs import TokenPair


def pair_of(instruction, common, rest):
    """A pair of programs of `common` and `rest` tokens, which differ in 40 of the latter (in all where there are fewer)."""
    mask = [0] * (common + max(0, rest - 40)) + [1] * min(40, rest)
    programs = [([0] * common + [token] * rest, mask) for token in (1, 2)]
    return TokenPair([0] * instruction, *programs)


LONG, SHORT = pair_of(400, 50, 150), pair_of(4, 4, 8)


def step_bytes(name, pair, checkpointing=False, **config):
    """Return the bytes of a step's tensors: what the backbone's forward pass leaves for the backward pass, and the peak."""
    backbone = tiny_backbone("llama", **config)
    module = AdapterTraining(
        backbone, Prefix(backbone.shape, 3), "comparative", CPT(), method=StepMethod(name, checkpointing=checkpointing)
    )
    batch = collate([pair], backbone.pad_id)
    saved = []
    with LiveBytes() as live:
        backbone.model.base_model.register_forward_hook(
            lambda *_: saved.append(live.now) if torch.is_grad_enabled() else None
        )
        module.training_step([batch], 0).backward()
    (policy,) = saved
    return policy, live.peak


def test_storages_count_once_and_are_let_go():
    own = torch.zeros(1000)
    with LiveBytes() as live:
        first = own[10:].view(-1, 2).t() + 1
        second = first[1:]
        assert live.now == 990 * 4
        del first
        assert live.now == 990 * 4  # the slice holds it
        own.add_(1)
        del second
        assert live.now == 0 and live.peak == 990 * 4


def test_memory_is_flat_in_the_vocabulary():
    """Once a chunk of logits is full: neither rows times vocabulary nor more chunks at a time."""

    def peaks(name, pair):
        return [step_bytes(name, pair, vocab_size=size, hidden_size=16)[1] for size in (1 << 15, 1 << 18)]

    low, high = peaks("fast", LONG)
    assert high == pytest.approx(low, rel=0.02)
    assert low > 2 * 4 * head.CHUNK  # a chunk of the policy's logits and one of the reference's were full
    low, high = peaks("plain", SHORT)
    assert high > 4 * low


@pytest.mark.slow
def test_checkpointing_and_the_fast_step_save_memory():
    config = {"vocab_size": 32000, "hidden_size": 128, "num_hidden_layers": 8, "intermediate_size": 344}
    found = {
        (name, again): step_bytes(name, LONG, again, **config) for name in ("fast", "plain") for again in (False, True)
    }
    assert found["fast", False][1] < found["plain", False][1] / 2
    for name in ("fast", "plain"):
        (saved, peak), (saved_again, peak_again) = found[name, False], found[name, True]
        assert saved_again < saved / 5
        assert peak_again < peak
