"""Attention by sequences over one row of all pairs, on the CPU, against the plain step and against a mask, in float64."""

import inspect

import pytest
import torch
from step_agreement import FLOAT32, assert_agree, exact_norms, pairs, prefixes_of, step_of
from tiny_models import ARCHITECTURES, double, tiny_backbone

from cptlab.backbone import sequence_attention
from cptlab.backbone.sequence_attention import Sequences, attend, by_sequences, why_no_kernel, why_not_by_sequences
from cptlab.training import CPT, StepMethod, choose_step
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.objectives import NLL, SVEN
from cptlab.training.steps.batches import collate
from cptlab.training.steps.map_tensors import to_device

SEQUENCES = StepMethod("fast", by_sequences=True)
ABLE = [name for name in ARCHITECTURES if name not in ("codegen", "mistral", "starcoder2")]


@pytest.mark.parametrize("arch", ABLE)
def test_a_row_of_all_pairs_on_every_architecture(arch):
    backbone = double(arch)
    assert why_not_by_sequences(backbone) is None
    with exact_norms(backbone):
        plain, found = (step_of(backbone, CPT(), pairs(), method) for method in ("plain", SEQUENCES))
    assert_agree(plain, found, 1e-6 if arch in FLOAT32 else 1e-8)
    assert backbone.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("objective", [SVEN(), NLL(), CPT(w_hinge=2.0)], ids=repr)
def test_with_other_objectives_and_checkpointing(objective):
    backbone = double("llama_gqa")
    method = StepMethod("fast", by_sequences=True, checkpointing=True)
    with exact_norms(backbone):
        plain, found = (step_of(backbone, objective, pairs(), one) for one in ("plain", method))
    assert_agree(plain, found, 1e-8)


def test_pairs_of_a_row_do_not_see_each_other():
    """A step of several pairs in one row is the steps of the single pairs."""
    backbone, examples = double("llama_gqa"), pairs()
    with exact_norms(backbone):
        packed, one_by_one = (
            step_of(backbone, CPT(), examples, SEQUENCES, groups=groups)
            for groups in (None, [[i] for i in range(len(examples))])
        )
    for name, value in packed[0]["step"].items():
        assert float(one_by_one[0]["step"][name]) == pytest.approx(float(value), rel=1e-9), name
    for one, other in zip(packed[1], one_by_one[1], strict=True):
        assert (one - other).norm() <= 1e-9 * one.norm()


def test_a_row_holds_no_padding_and_planned_sizes_change_nothing():
    backbone, examples = double("llama_gqa"), pairs()
    batch, planned = collate(examples, 257), collate(examples, 257, planned=True)
    assert batch.one_row.input_ids.shape == (1, sum((row >= 0).sum() for row in batch.packed.segments))
    assert planned.one_row.input_ids.shape[1] % 32 == planned.tokens.shape[1] % 32 == 0
    found = []
    for one in (batch, planned):
        module = AdapterTraining(backbone, prefixes_of(backbone, CPT())[0], method=SEQUENCES)
        loss = module.training_step([one], 0)
        found.append([loss, *torch.autograd.grad(loss, module.trained())])
    for wanted, own in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-10, atol=1e-12)


def by_hand(query, key, value, sequences, scale):
    """Every query by itself, in a loop: softmax over the keys of its sequence up to itself, both aligned at the end."""
    found = torch.zeros_like(query)
    group, places = query.shape[1] // key.shape[1], zip(sequences.starts.tolist(), sequences.key_starts.tolist())
    places = list(places)
    for (start, first), (end, last) in zip(places, places[1:]):
        for number in range(end - start):
            stop = last - (end - start) + number + 1
            for head in range(query.shape[1]):
                weights = (scale * key[first:stop, head // group] @ query[start + number, head]).softmax(0)
                found[start + number, head] = weights @ value[first:stop, head // group]
    return found


def random_sequences():
    """Grouped heads, a sequence with no more keys than queries, one with a single query."""
    lengths = ((4, 4), (3, 9), (1, 6), (5, 7))
    starts, key_starts = (torch.tensor([0, *column]).cumsum(0).int() for column in zip(*lengths))
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(count, heads, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for count, heads in ((13, 6), (26, 2), (26, 2))
    )
    return query, key, value, Sequences(torch.arange(26), starts, key_starts, lengths, (5, 9))


@pytest.mark.parametrize("compiled", [False, True])
def test_attention_of_unequal_queries_and_keys(compiled, monkeypatch):
    query, key, value, sequences = random_sequences()
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: compiled)
    wanted, found = by_hand(query, key, value, sequences, 0.3), attend(query, key, value, sequences, 0.3)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn(wanted.shape, dtype=torch.float64)
    for one, other in zip(
        *(torch.autograd.grad((out * weights).sum(), [query, key, value]) for out in (wanted, found))
    ):
        torch.testing.assert_close(other, one)


def kernel_of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert is_causal and (max_q, max_k) == (5, 9)
    sequences = Sequences(torch.arange(len(key)), cu_seq_q, cu_seq_k, (), (max_q, max_k))
    return by_hand(query, key, value, sequences, query.shape[-1] ** -0.5)


def kernel_of_torch_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert enable_gqa and window_size == (-1, 0) and (max_q, max_k) == (5, 9)
    return by_hand(query, key, value, Sequences(torch.arange(len(key)), cu_seq_q, cu_seq_k, (), (0, 0)), scale)


@pytest.mark.parametrize("kernel", [kernel_of_torch_2_10, kernel_of_torch_2_13])
def test_the_kernel_is_called_as_its_version_wants_it(kernel, monkeypatch):
    query, key, value, sequences = random_sequences()
    monkeypatch.setattr(sequence_attention, "varlen_attn", kernel)
    monkeypatch.setattr(sequence_attention, "KERNEL_OPTIONS", frozenset(inspect.signature(kernel).parameters))
    found = sequence_attention._by_kernel(query, key, value, sequences, 0.3)
    torch.testing.assert_close(found, by_hand(query, key, value, sequences, 0.3))


@pytest.mark.skipif(sequence_attention.varlen_attn is None, reason="torch has no variable-length attention")
def test_the_kernel_of_this_torch_takes_what_it_is_given():
    """Its shapes alone, on torch's meta device, forward and backward: there is no such kernel on a CPU."""
    shapes = (13, 6, 16), (26, 2, 16), (26, 2, 16)
    inputs = [torch.empty(*shape, device="meta", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    sequences = to_device(random_sequences()[3], torch.device("meta"))
    found = sequence_attention._by_kernel(*inputs, sequences, 0.3)
    gradients = torch.autograd.grad(found.sum(), inputs)
    assert [found.shape, *(gradient.shape for gradient in gradients)] == [shapes[0], *shapes]


def test_keys_behind_a_prefix():
    """Each sequence gets the prefix before its own keys, which then lie behind it."""
    sequences = collate(pairs(), 257).one_row.sequences
    found = sequences.behind(3)
    for number, (queries, keys) in enumerate(sequences.lengths):
        before = sequences.keys[sequences.key_starts[number] : sequences.key_starts[number + 1]].tolist()
        after = found.keys[found.key_starts[number] : found.key_starts[number + 1]].tolist()
        assert after == [0, 1, 2, *(key + 3 for key in before)]
        assert len(before) == keys
        own = range(sequences.starts[number], sequences.starts[number + 1])
        assert before[-queries:] == list(own)
    assert found.longest == (sequences.longest[0], sequences.longest[1] + 3)


def test_what_has_no_attention_by_sequences():
    assert "sliding window" in why_not_by_sequences(tiny_backbone("mistral"))
    assert "no choice of attention" in why_not_by_sequences(tiny_backbone("codegen"))
    backbone = tiny_backbone("llama")
    assert why_no_kernel(backbone, backbone.device) == "there is no kernel for it on a cpu device"
    method = StepMethod("fast", mask_reason="no kernel")
    assert method.facts() == {"step": "fast", "step_attention": "mask", "step_attention_reason": "no kernel"}
    assert SEQUENCES.facts() == {"step": "fast", "step_attention": "by sequences"}


def test_the_step_is_chosen_for_the_device_that_trains():
    """A backbone whose layers go to GPUs one by one, shared out over them, is still on the CPU when the step is chosen."""
    backbone = tiny_backbone("llama_gqa")
    gpu = torch.device("cuda", 0)
    assert "not float32" in choose_step(backbone, device=gpu).mask_reason
    backbone.model.to(torch.bfloat16)
    assert choose_step(backbone, device=gpu) == SEQUENCES
    assert choose_step(backbone) == StepMethod("fast")


def test_an_attention_that_asks_for_more_is_refused():
    backbone = tiny_backbone("llama")
    ids = torch.tensor([[1, 2, 3]])
    with by_sequences(backbone.model), pytest.raises(NotImplementedError, match="not by sequences alone"):
        backbone.model.base_model(input_ids=ids)
    backbone.model.base_model(input_ids=ids)
