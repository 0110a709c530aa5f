"""The estimate of a run: the cost model by hand, and every count against the real thing."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cptlab.estimate.calibration import Calibration, calibrate, one_pair_step
from cptlab.estimate.costs import (
    VARIANTS,
    ModelSize,
    naive_flops,
    nll_flops,
    plain_flops,
    step_flops,
)
from cptlab.estimate.footprint import MOMENTS, Ledger, Shapes, footprint, formula, shape_backbone, shape_pair
from tiny_models import ARCHITECTURES, tiny_backbone
from transformers import AutoConfig, LlamaConfig

from cptlab.adapters.prefix import Prefix
from cptlab.estimate import estimate as module
from cptlab.estimate.estimate import ASSUMED, duration, estimate, largest_batch, median_lengths, readable
from cptlab.training.objectives import CPT, DPO, DPOP, NLL, ORPO, SVEN, SimPO
from cptlab.training.steps.batches import collate
from cptlab.training.steps.choice import StepMethod
from cptlab.training.steps.compute import Compute
from cptlab.training.steps.packing import packed_length
from cptlab.training.steps.token_pairs import Lengths, TokenPair

ROOT = Path(__file__).resolve().parents[2]
SMALL = ModelSize(parameters=1000, hidden=10, vocabulary=100, layers=2, heads=2, head_dim=5)


def fast_flops(size, lengths, prefix):
    return step_flops(size, lengths, prefix, **VARIANTS["all"])


def predicted_ratio(size, lengths, prefix):
    return naive_flops(size, lengths, prefix).total / fast_flops(size, lengths, prefix).total


PAIR = Lengths(instruction=4, common=3, rest_a=2, rest_b=2, masked_a=1, masked_b=1)
UNEQUAL = [Lengths(40, 5, 15, 12, 4, 3), Lengths(30, 0, 9, 20, 9, 1)]
CODE_LLAMA_7B = LlamaConfig(
    vocab_size=32016, hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, max_position_embeddings=16384
)
MIDDLE = LlamaConfig(
    vocab_size=32000, hidden_size=512, num_hidden_layers=8, intermediate_size=1376, num_attention_heads=8
)


# Operations


def test_naive_and_fast_step_by_hand():
    naive, fast = naive_flops(SMALL, PAIR, prefix=1), fast_flops(SMALL, PAIR, prefix=1)
    assert naive.backbone + naive.head == 6 * 9 * (2 * 1000 + 2 * 10 * 100) == 216_000
    # 3 passes of 2 rows, 9 queries x 10 keys; a causal forward of 2 rows, 45 queries and keys
    assert naive.attention == 6 * 4 * 9 * 10 * 20 + 2 * 4 * 45 * 20 == 50_400
    assert fast.backbone == 2 * 2 * 1000 * (4 + 3 + 2 * 2) == 44_000
    assert fast.head == 2 * 10 * 100 * (4 * 1 + 3 * (3 + 2 * (2 - 1))) == 38_000
    assert fast.attention == 3 * 4 * 11 * 12 * 20 == 31_680
    assert predicted_ratio(SMALL, PAIR, 1) == 266_400 / 113_680


def test_each_trick_by_hand():
    def parts(**tricks):
        flops = step_flops(SMALL, PAIR, 1, **tricks)
        return flops.backbone, flops.head, flops.attention

    assert parts(cached=True) == (4 * 9 * 2000, (4 * 9 + 2 * 5) * 2000, 6 * 4 * 9 * 10 * 20)
    assert parts(shared=True) == (3 * 11 * 2000, 3 * 11 * 2000, 3 * 4 * 11 * 12 * 20 + 4 * 11 * 11 * 20)
    # of 10 code tokens 2 are masked, which the reference is not asked about
    assert parts(needed=True) == (6 * 9 * 2000, (2 * 10 + 8) * 2000, naive_flops(SMALL, PAIR, 1).attention)
    assert set(VARIANTS) == {
        "naive",
        "reference cached",
        "instruction and common code shared",
        "head where needed",
        "all",
    }


def test_plain_step_is_padded_to_the_longer_program():
    assert plain_flops(SMALL, PAIR, 1) == naive_flops(SMALL, PAIR, 1)
    longer = Lengths(4, 3, 2, 6, 1, 1)
    plain = plain_flops(SMALL, longer, 1)
    assert plain.backbone + plain.head == 6 * 13 * 4000
    assert plain.attention == 6 * 4 * 13 * 14 * 20 + 2 * 4 * 13 * 13 * 20  # a dense mask without prefix too
    second = nll_flops(SMALL, longer, 1)
    assert (second.backbone, second.head, second.attention) == (2 * 9 * 2000, 2 * 5 * 2000, 3 * 4 * 9 * 10 * 20)


@pytest.mark.parametrize(
    "config, wanted",
    [
        (CODE_LLAMA_7B, 2.4),
        (
            AutoConfig.for_model(
                "qwen2", vocab_size=151936, hidden_size=896, num_hidden_layers=24, intermediate_size=4864,
                num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
            ),
            2.6,
        ),
    ],
    ids=["code_llama_7b", "qwen2_5_0_5b"],
)  # fmt: skip
def test_ratios_that_peers_name(config, wanted):
    size = ModelSize.of(shape_backbone(config, torch.bfloat16, Shapes()).model)
    assert abs(predicted_ratio(size, ASSUMED, 12) - wanted) < 0.1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_size_of_a_model(arch):
    model = tiny_backbone(arch).model
    size = ModelSize.of(model)
    tables = {
        p.data_ptr(): p.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()
    }
    tables |= {p.data_ptr(): p.numel() for p in model.get_output_embeddings().parameters()}
    unused = sum(p.numel() / 2 for n, p in model.named_parameters() if ".experts." in n)  # two of four
    assert size.parameters == sum(p.numel() for p in model.parameters()) - sum(tables.values()) - unused
    assert (size.hidden, size.vocabulary, size.layers, size.heads, size.head_dim) == (32, 259, 2, 4, 8)


def test_lengths_of_examples_and_of_their_rows():
    def example(better, worse, instruction=3):
        return TokenPair([9] * instruction, (better, [0] * len(better)), (worse, [0] * len(worse)))

    pairs = [example([1, 2, 3, 4], [1, 2, 5]), example([1, 2], [1, 2, 3]), example([1], [2]), example([1, 2], [1, 2]),
             example([], [1, 2]), example([], []), shape_pair(ASSUMED)]  # fmt: skip
    assert [Lengths.of(pair).common for pair in pairs] == [2, 2, 0, 2, 0, 0, 50]
    assert Lengths.of(pairs[0]) == Lengths(3, 2, 2, 1, 0, 0)
    assert Lengths.of(shape_pair(UNEQUAL[0])) == UNEQUAL[0]
    assert [Lengths.of(pair).packed_row for pair in pairs] == [packed_length(pair) for pair in pairs]


# Memory of a step


def counted(backbone, objective, method, lengths, prefix=12, **options):
    """From the config alone."""
    shapes = Shapes()
    empty = shape_backbone(backbone.config, backbone.dtype, shapes)
    with shapes:
        return footprint(empty, prefix, objective, method, [shape_pair(pair) for pair in lengths], **options)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_count_without_data_is_that_with_data(arch):
    backbone = tiny_backbone(arch)
    examples = [shape_pair(pair) for pair in UNEQUAL]
    every = arch in ("llama_gqa", "qwen2_moe")
    for name in ("fast", "plain") if every else ("fast",):
        for moment in MOMENTS if every else ("step",):
            for checkpointing in (False, True):
                method = StepMethod(name, checkpointing=checkpointing)
                real = footprint(backbone, 12, CPT(), method, examples, moment=moment)
                found = counted(backbone, CPT(), method, UNEQUAL, moment=moment)
                assert found == real
                assert (found.saved > 0) == (moment != "validation")


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", ["fast", "plain"])
def test_saved_bytes_are_what_autograd_saves(arch, name):
    """By another way of counting: the storages that the backbone's forward hands to autograd."""
    backbone = tiny_backbone(arch)
    prefix = Prefix(backbone.shape, 12)
    weights = {
        t.untyped_storage().data_ptr() for t in (*backbone.model.parameters(), *backbone.model.buffers(), prefix.table)
    }
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept, so that no other takes its address
        return tensor

    batch = collate([shape_pair(pair) for pair in UNEQUAL], 0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if name == "fast":
            packed = batch.packed
            backbone.hidden_states(packed.input_ids, packed.positions, packed.segments, prefix)
        else:
            backbone.model.base_model(
                input_ids=batch.padded.input_ids,
                **backbone._options(*_plain_inputs(backbone, batch.padded, prefix)),
            )
    found = counted(backbone, CPT(), StepMethod(name), UNEQUAL)
    kept = sum(size for size, _ in saved.values())
    rows, width = (2, 70) if name == "fast" else (4, 60)
    mask = 4 * rows * width * (width + 12)  # alive until the forward is over, also where autograd does not keep it
    assert kept <= found.saved <= 1.05 * kept + (mask if arch == "codegen" else 0)


def _plain_inputs(backbone, padded, prefix):
    from cptlab.backbone.attention_mask import token_positions
    from cptlab.backbone.model import _with_prefix_keys

    cache, length = backbone._constant_cache(prefix, len(padded.input_ids))
    positions = token_positions(padded.attention_mask, length)
    real, keys = _with_prefix_keys(padded.attention_mask.bool(), positions, length)
    return positions, keys, real, True, cache


@pytest.mark.parametrize("objective", [CPT(w_hinge=1.0), SVEN(), DPO(), DPOP(), SimPO(), ORPO(), NLL()],
                         ids=lambda objective: type(objective).__name__)  # fmt: skip
def test_every_objective_is_counted_as_it_is(objective):
    backbone = tiny_backbone("llama_gqa")
    examples = [shape_pair(pair) for pair in UNEQUAL]
    for method in (StepMethod("fast"), StepMethod("plain")):
        for disk in (True, False):
            real = footprint(backbone, 5, objective, method, examples, reference_on_disk=disk)
            assert counted(backbone, objective, method, UNEQUAL, 5, reference_on_disk=disk) == real


def test_attention_is_counted_as_the_fused_kernel():
    """The weights of eager attention are [rows, heads, queries, keys]; the fused kernel keeps none."""

    def saved(attention, factor):
        shapes, row = Shapes(), Lengths(200 * factor, 0, 10, 10, 3, 3)
        backbone = shape_backbone(MIDDLE, torch.float32, shapes, attn_implementation=attention)
        with shapes:
            return footprint(backbone, 12, CPT(), StepMethod(), [shape_pair(row)]).saved, row.packed_row

    (eager, tokens), (fused, _) = saved("eager", 1), saved("sdpa", 1)
    weights, outputs = 8 * 8 * tokens * (tokens + 12) * 4, 8 * tokens * 512 * 4  # the fused kernel keeps its outputs
    assert eager - fused == pytest.approx(weights - outputs, rel=0.1)
    # linear in tokens, but for the one mask of [queries, keys]
    (twice, longer) = saved("sdpa", 2)
    mask = 4 * (longer * (longer + 12) - 2 * tokens * (tokens + 12))
    assert (twice - mask) / fused == pytest.approx(longer / tokens, rel=0.02)


def test_checkpointing_and_the_fast_engine_save_memory():
    found = {
        (name, again): counted_middle(StepMethod(name, checkpointing=again))
        for name in ("fast", "plain")
        for again in (False, True)
    }
    assert found["fast", False].peak < found["plain", False].peak / 2
    for name in ("fast", "plain"):
        assert found[name, True].saved < found[name, False].saved / 5
        assert found[name, True].peak < found[name, False].peak


def counted_middle(method, **options):
    shapes = Shapes()
    backbone = shape_backbone(MIDDLE, torch.float32, shapes)
    with shapes:
        return footprint(backbone, 12, CPT(), method, [shape_pair(ASSUMED)], **options)


def test_ledger_counts_storages_once_and_lets_go():
    own = torch.zeros(1000)
    with Ledger([own], vocabulary=7) as ledger:
        view = own[10:].view(-1, 2).t()
        first = view + 1
        second = first[1:]
        assert ledger.live == {"activations": 0, "logits": 0, "work": 990 * 4}
        del first
        assert sum(ledger.live.values()) == 990 * 4  # the slice holds it
        logits = torch.zeros(3, 7)
        assert ledger.live["logits"] == 3 * 7 * 4
        del second, logits
        assert sum(ledger.live.values()) == 0
        assert ledger.peak == {"activations": 0, "logits": 84, "work": 990 * 4}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's account of a process")
def test_peak_is_that_of_a_real_process():
    """A step of a random Llama (8 layers, 512 hidden, a vocabulary of 32,000) on T = 600, as the operating system sees it."""
    command = [sys.executable, ROOT / "benchmarks" / "estimate_memory.py", "--child", json.dumps(["fast", False])]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert int(run.stdout) == pytest.approx(counted_middle(StepMethod()).peak, rel=0.1)


# The whole estimate


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_parameters_and_weights_are_the_models(arch):
    backbone = tiny_backbone(arch)
    found = estimate(backbone.config, UNEQUAL, compare=False)
    tensors = [*backbone.model.parameters(), *backbone.model.buffers()]
    assert found.parameters == sum(parameter.numel() for parameter in backbone.model.parameters())
    assert found.weight_bytes == sum(tensor.nbytes for tensor in tensors)
    assert found.memory == "counted"


def test_code_llama_7b_takes_seconds_and_no_memory():
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = estimate(CODE_LLAMA_7B, [ASSUMED] * 360, dtype=torch.bfloat16, assumed=True, compare=False)
    assert time.process_time() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024  # KiB
    assert found.parameters == 6_738_546_688
    assert found.prefix_numbers == found.trained_numbers == 3_145_728
    assert found.prefix_bytes == 5 * 4 * 3_145_728
    assert found.weight_bytes == pytest.approx(2 * found.parameters, rel=1e-6)
    # per pair: states of 349 predicting places in two bytes, and the scores of twice 200 tokens in four
    assert found.reference_bytes == 360 * (349 * 4096 * 2 + 400 * 4)
    assert found.peak_bytes == found.weight_bytes + found.prefix_bytes + max(m.peak for m in found.moments.values())
    assert found.flops_per_pair == pytest.approx(2.058e13, rel=1e-3)
    assert found.seconds is None


@pytest.mark.parametrize("kind, each", [("8bit", 1.0), ("4bit", 0.5)])
def test_quantized_weights(kind, each):
    whole, found = (estimate(MIDDLE, [ASSUMED], quantization=q, compare=False) for q in (None, kind))
    linear, rows = 8 * (4 * 512 * 512 + 3 * 512 * 1376), 8 * (4 * 512 + 2 * 1376 + 512)
    floats = found.weight_bytes - (whole.weight_bytes - linear * 4) - linear * each
    assert found.memory == "counted" and found.parameters == whole.parameters
    if kind == "8bit":
        assert floats == rows * 4  # one scale
    else:
        assert linear / 64 * 4 <= floats <= linear / 32 * 4  # one for 64 weights (bitsandbytes) or 32 (torchao)
    assert found.moments["step"].saved == whole.moments["step"].saved  # the products keep nothing of their own
    words = LlamaConfig(**(MIDDLE.to_dict() | {"vocab_size": 500}))  # with few tokens: weights, not activations
    short = [estimate(words, [Lengths(8, 2, 4, 4, 1, 1)], quantization=q, compare=False) for q in (None, kind)]
    more = short[1].moments["step"].peak - short[0].moments["step"].peak
    assert more > 512 * 1376 * 4 / 2  # but they make floats of one layer's weights at a time
    assert more < 8 * 512 * 1376 * 4


def test_a_prefix_of_factors_and_two_prefixes():
    width = 2 * 8 * 512
    found = estimate(MIDDLE, [ASSUMED], prefix_rank=64, compare=False)
    assert found.prefix_numbers == 12 * width
    assert found.trained_numbers == 12 * 64 + 64 * width
    assert found.prefix_bytes == 4 * (4 * found.trained_numbers + 2 * 12 * width)
    assert estimate(MIDDLE, [ASSUMED], objective=SVEN(), compare=False).prefix_numbers == 2 * 12 * width


def test_reference_on_disk_follows_the_settings():
    def stored(**settings):
        found = estimate(tiny_backbone("llama").config, UNEQUAL, UNEQUAL[:1], compare=False, **settings)
        return found.reference, found.reference_bytes

    kept, size = stored()
    places, scores = (5 + 15 + 12 - 1) * 2 + (0 + 9 + 20 - 1), (20 + 17) * 2 + 29
    assert (kept, size) == ("disk", places * 32 * 4 + scores * 4)
    assert stored(compute=Compute(reference_precision="half")) == ("disk", places * 32 * 2 + scores * 4)
    held_out, its_scores = (5 + 15 + 12 - 1) * 32 * 4, (20 + 17) * 4
    assert stored(objective=DPO()) == ("disk", scores * 4 + held_out)
    assert stored(objective=SimPO()) == stored(epochs=(0, 1)) == ("disk", held_out + its_scores)
    assert stored(compute=Compute(reference="recompute")) == ("recompute", 0)
    assert stored(method=StepMethod("plain")) == ("recompute", 0)


def test_memory_is_flat_in_the_vocabulary():
    """Once a chunk of logits is full: neither rows times vocabulary nor two chunks at a time."""

    def peaks(method):
        configs = (LlamaConfig(**(MIDDLE.to_dict() | {"vocab_size": size})) for size in (32_000, 256_000))
        return [estimate(config, [ASSUMED], method=method, compare=False).moments["step"].peak for config in configs]

    low, high = peaks(StepMethod("fast"))
    assert high == pytest.approx(low, rel=0.02)
    low, high = peaks(StepMethod("plain"))
    assert high > 4 * low


def test_largest_batch():
    def rows(*lengths):
        return [Lengths(n - 1, 0, 1, 1, 0, 0) for n in lengths]  # a packed row of n - 1

    def sizes(batch):
        return [pair.instruction + 1 for pair in batch]

    assert sizes(largest_batch(rows(50, 61, 20), pairs=1, token_budget=1000)) == [61]
    assert sizes(largest_batch(rows(50, 61, 20), pairs=8, token_budget=1000)) == [61, 50, 20]
    assert sizes(largest_batch(rows(50, 61, 49, 20), pairs=8, token_budget=100)) == [50, 49]
    assert sizes(largest_batch(rows(500, 61), pairs=8, token_budget=100)) == [500]  # alone, though beyond the budget


def test_time_is_measured_near_the_median_and_scaled_by_operations():
    lengths = [Lengths(10 * n, 2, 5, 5, 1, 1) for n in (9, 1, 2, 8, 3, 7, 4)]
    seen = []

    def step(example):
        seen.append(len(example.instruction))
        time.sleep(0.02)

    calibration = calibrate(step, [shape_pair(pair) for pair in lengths])
    assert seen == [40, 30, 40, 70]  # one to warm up
    assert [pair.instruction for pair in calibration.lengths] == [30, 40, 70]
    assert all(0.02 <= seconds < 1 for seconds in calibration.seconds)
    assert len(calibrate(step, [shape_pair(lengths[0])]).lengths) == 1

    config = tiny_backbone("llama").config
    same = Calibration((UNEQUAL[0],), (2.0,))
    found = estimate(config, [UNEQUAL[0]] * 10, calibration=same, epochs=(3, 2), compare=False)
    assert found.seconds["first_epoch"] == pytest.approx(20)
    assert 0 < found.seconds["second_epoch"] < 20
    total = found.seconds["reference"] + 3 * found.seconds["first_epoch"] + 2 * found.seconds["second_epoch"]
    assert found.seconds["training"] == pytest.approx(total)
    halved = estimate(config, [UNEQUAL[0]] * 10, calibration=same, processes=2, compare=False)
    assert halved.seconds["first_epoch"] == pytest.approx(10)


@pytest.mark.parametrize("name", ["fast", "plain"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_the_step_that_is_timed_runs_the_engine(name, on_disk):
    backbone = tiny_backbone("llama")
    passes = []
    backbone.model.base_model.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    step = one_pair_step(backbone, 12, CPT(), StepMethod(name), reference_on_disk=on_disk)
    step(shape_pair(UNEQUAL[0]))
    assert sorted(passes) == ([True] if (name, on_disk) == ("fast", True) else [False, True])
    found = calibrate(step, [shape_pair(pair) for pair in UNEQUAL])
    assert len(found.seconds) == 2 and min(found.seconds) > 0
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


@pytest.mark.parametrize("name", ["fast", "plain"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_formula_is_named_and_near_the_count(name, checkpointing, monkeypatch):
    method = StepMethod(name, checkpointing=checkpointing)
    size = ModelSize.of(shape_backbone(MIDDLE, torch.float32, Shapes()).model)
    found = formula(size, MIDDLE, torch.float32, method, [ASSUMED], "step")
    real = counted_middle(method)
    assert found.saved == pytest.approx(real.saved, rel=0.25)
    assert found.peak == pytest.approx(real.peak, rel=0.4)

    def refuses(*_, **__):
        raise RuntimeError("data-dependent")

    monkeypatch.setattr(module, "footprint", refuses)
    whole = estimate(MIDDLE, [ASSUMED], method=method, compare=False)
    assert whole.memory == "a formula for Llama's layers"
    assert whole.moments["step"] == found
    assert sum("a formula" in line for line in whole.lines()) >= 3


def test_table_says_how_each_number_is_known():
    config = tiny_backbone("llama").config
    found = estimate(config, UNEQUAL, UNEQUAL, calibration=Calibration((UNEQUAL[0],), (0.5,)))
    text = "\n".join(found.lines())
    assert f"{found.parameters:,} parameters" in text
    pairs, tokens = found.batches[found.peak_moment]
    assert "measured on 1 pair" in text and f"counted on {pairs} pair(s) of up to {tokens} packed tokens" in text
    assert "assumed" not in text
    for name in ("fast", "fast, checkpointing", "plain", "plain, checkpointing"):
        assert f"A step, {name} " in text
    assert text.count("this run") == 1
    assert 2 <= len(found.short()) <= 4 and found.short()[0].startswith("Estimate: ")
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["peak_bytes"] == found.peak_bytes and plain["moments"]["step"]["saved"] == found.moments["step"].saved
    unknown = estimate(config, [ASSUMED] * 3, assumed=True, compare=False)
    assert "assumed: there are no pairs yet" in "\n".join(unknown.lines())
    assert "not known" in "\n".join(unknown.lines())
    assert len(unknown.short()) == 2


def test_units():
    assert readable(3 * 2**20) == "3.0 MiB" and readable(1.5 * 2**30) == "1.50 GiB"
    assert (duration(12), duration(600), duration(3 * 3600)) == ("12.0 s", "10.0 min", "3.0 h")
    assert median_lengths(UNEQUAL + [Lengths(1, 1, 1, 1, 1, 1)]) == Lengths(30, 1, 9, 12, 4, 1)
