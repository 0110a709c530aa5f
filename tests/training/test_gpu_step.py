"""On a GPU: the kernel of attention by sequences against the same sequences one by one, and the step that uses it."""

import pytest
import torch
from step_agreement import pairs
from tiny_models import tiny_backbone

from cptlab.adapters import Prefix
from cptlab.backbone.sequence_attention import HALF, _one_by_one, attend, why_no_kernel
from cptlab.training import CPT, AdapterTraining, StepMethod, choose_step
from cptlab.training.loop.datamodule import PairLoader, PairSplit
from cptlab.training.steps.batches import collate
from cptlab.training.steps.fast import FastOutputs

pytestmark = pytest.mark.gpu
ROUNDING = {torch.float16: 4e-3, torch.bfloat16: 3e-2}  # of a result near 1


def half_backbone(dtype):
    """Heads of 16 numbers, four for queries and two for keys."""
    backbone = tiny_backbone("llama_gqa", hidden_size=64, head_dim=16)
    backbone.model.to("cuda", dtype)
    return backbone


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("prefix", [0, 5])
def test_the_kernel_gives_the_sequences_one_by_one(dtype, planned, prefix):
    """Unequal numbers of queries and keys, forward and backward; planned sizes add a sequence of padding."""
    sequences = collate(pairs(), 257, planned=planned).to(torch.device("cuda")).one_row.sequences.behind(prefix)
    generator = torch.Generator("cuda").manual_seed(0)
    count = int(sequences.starts[-1])
    query, key, value, weights = (
        torch.randn(rows, heads, 16, generator=generator, device="cuda", dtype=dtype)
        for rows, heads in ((count, 4), (len(sequences.keys), 2), (len(sequences.keys), 2), (count, 4))
    )
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    found = attend(*inputs, sequences, 0.3)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    wanted = _one_by_one(*exact, sequences, 0.3)
    torch.testing.assert_close(found.double(), wanted, atol=ROUNDING[dtype], rtol=ROUNDING[dtype])
    gradients = torch.autograd.grad((found * weights).sum(), inputs)
    for one, other in zip(torch.autograd.grad((wanted * weights.double()).sum(), exact), gradients, strict=True):
        assert (other.double() - one).norm() <= ROUNDING[dtype] * one.norm()


@pytest.mark.parametrize("dtype", HALF)
def test_the_step_goes_by_sequences_and_agrees_with_the_plain_one(dtype):
    backbone = half_backbone(dtype)
    assert why_no_kernel(backbone, backbone.device) is None
    chosen = choose_step(backbone)
    assert chosen.by_sequences, chosen.facts()
    found = []
    for method in (StepMethod("plain"), chosen, StepMethod("fast")):
        prefix = Prefix(backbone.shape, 5).to("cuda")
        module = AdapterTraining(backbone, prefix, method=method).to("cuda")
        loss = module.training_step([collate(pairs(), 257).to(torch.device("cuda"))], 0)
        (gradient,) = torch.autograd.grad(loss, [prefix.table])
        found.append((loss.detach(), gradient))
    (loss, gradient), *others = found
    for other_loss, other in others:
        torch.testing.assert_close(other_loss, loss, rtol=0.05, atol=0.05)
        assert (other - gradient).norm() <= 0.2 * gradient.norm()


def test_steps_are_read_ahead_into_pinned_memory():
    split = PairSplit(pairs(), 257, 60)
    split.lay_out(StepMethod("fast", by_sequences=True))
    plain = list(PairLoader(split, 2, 7))
    ahead = list(PairLoader(split, 2, 7, ahead=True))
    for step, other in zip(plain, ahead, strict=True):
        for batch, pinned in zip(step, other, strict=True):
            for name in ("tokens", "mask", "code"):
                assert getattr(pinned, name).is_pinned() and torch.equal(getattr(pinned, name), getattr(batch, name))
            assert pinned.one_row.input_ids.is_pinned() and pinned.one_row.sequences.keys.is_pinned()
            assert torch.equal(pinned.to(torch.device("cuda")).one_row.input_ids.cpu(), batch.one_row.input_ids)


def test_the_host_never_waits_in_a_step():
    backbone = half_backbone(torch.bfloat16)
    method = StepMethod("fast", by_sequences=True)
    device = torch.device("cuda")
    batch = collate(pairs(), 257).to(device)
    batch = batch.with_reference(FastOutputs(backbone, batch, []).reference_rows())
    batch.one_row  # noqa: B018 (laid out beforehand, as the data module does)
    prefix = Prefix(backbone.shape, 5).to(device)
    module = AdapterTraining(backbone, prefix, objective=CPT(w_hinge=1.0), method=method).to(device)
    module.training_step([batch], 0).backward()  # libraries wait while they start
    torch.cuda.set_sync_debug_mode("error")
    try:
        module.training_step([batch], 0).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert prefix.table.grad.norm() > 0
