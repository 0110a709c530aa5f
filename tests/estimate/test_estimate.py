"""The estimate of a run: exact numbers against real tensors, operations by hand, measured memory against a process."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from live_bytes import LiveBytes
from omegaconf import OmegaConf
from tiny_models import ARCHITECTURES, tiny_backbone
from training_runs import TRAIN, VALIDATION, write_file
from transformers import LlamaConfig

from cptlab.adapters import Prefix
from cptlab.adapters.full import FullFineTuning
from cptlab.adapters.lora import LoRA
from cptlab.commands.shared.estimate import say_estimate
from cptlab.errors import UserError
from cptlab.estimate import trial as module
from cptlab.estimate.estimate import ASSUMED, duration, estimate
from cptlab.estimate.sizes import empty_backbone, parameter_count, weight_bytes
from cptlab.estimate.trial import count_flops, run_trial
from cptlab.training import CPT, AdapterTraining, Compute, PairDataModule, Stages, StepMethod
from cptlab.training.loop.datamodule import PairSplit
from cptlab.training.objectives import DPO, DPOP, NLL, ORPO, SVEN, SimPO
from cptlab.training.steps.token_pairs import Lengths, TokenPair

ROOT = Path(__file__).resolve().parents[2]
CODE_LLAMA_7B = LlamaConfig(vocab_size=32016, intermediate_size=11008, max_position_embeddings=16384)
OBJECTIVES = [CPT(w_hinge=1.0), SVEN(), DPO(), DPOP(), SimPO(), ORPO(), NLL()]
ADAPTERS = {
    "prefix": lambda backbone, seed: Prefix(backbone, 3, rank=2, seed=seed),
    "lora": lambda backbone, seed: LoRA(backbone, r=2, dropout=0.1, seed=seed),
    "full": lambda backbone, seed: FullFineTuning(backbone, seed=seed),
}


def pair_of(instruction, common, rest_a, rest_b, masked_a=1, masked_b=1):
    def program(token, rest, masked):
        length = common + rest
        return [0] * common + [token] * rest, [0] * (length - masked) + [1] * masked

    return TokenPair([0] * instruction, program(1, rest_a, masked_a), program(2, rest_b, masked_b))


def run(backbone, directory, objective=None, *, adapters=None, compute=None, method=None, epochs=(3, 1), **options):
    """Estimate a run on the pairs of `training_runs`, or on none where `directory` is None."""
    objective, compute = objective or CPT(), compute or Compute()
    adapters = adapters or [Prefix(backbone.shape, 3, seed=seed) for seed in range(objective.policies)]
    data = directory and PairDataModule(write_file(directory), backbone)
    options |= {"stages": Stages(*epochs), "method": method or StepMethod(), "compute": compute}
    return estimate(backbone, adapters, data, objective, **options)


# Exact numbers


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sizes_from_the_config_are_those_of_the_loaded_model(arch):
    backbone = tiny_backbone(arch)
    empty = empty_backbone(backbone.config, backbone.dtype)
    assert empty.device.type == "meta"
    tensors = [*backbone.model.parameters(), *backbone.model.buffers()]
    for model in (empty.model, backbone.model):
        assert parameter_count(model) == sum(parameter.numel() for parameter in backbone.model.parameters())
        assert weight_bytes(model) == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_code_llama_7b_from_its_config_alone():
    backbone = empty_backbone(CODE_LLAMA_7B, torch.bfloat16)
    found = run(backbone, None, adapters=[Prefix(backbone.shape, 12)], unknown="the weights are elsewhere")
    assert found.parameters == 6_738_546_688
    assert found.weight_bytes == pytest.approx(2 * found.parameters, rel=1e-6)
    assert found.adapter_numbers == found.trained_numbers == 3_145_728
    assert found.state_bytes == 4 * 4 * 3_145_728
    # states of 349 predicting places in two bytes, and the scores of twice 200 tokens in four
    assert found.reference_bytes == 349 * 4096 * 2 + 400 * 4
    assert found.trial is None and found.peak_bytes is None and found.seconds == {}
    table = "\n".join(found.lines())
    assert "3,145,728 numbers" in table and "6,738,546,688 parameters" in table and "per pair" in table
    assert table.count("unknown") == 3 and table.count("the weights are elsewhere") == 2


def test_quantized_weights_from_the_config_are_the_rounded_layers():
    config = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    model = empty_backbone(config, torch.float32).model
    linear = 2 * (4 * 64 * 64 + 3 * 64 * 96)
    for kind, each in (("8bit", 1.0), ("4bit", 0.5)):
        assert weight_bytes(model) - weight_bytes(model, kind) == linear * (4 - each)


def test_a_prefix_of_factors_and_two_prefixes(tmp_path):
    backbone = tiny_backbone("llama_gqa")
    width = backbone.shape.width
    found = run(backbone, tmp_path, adapters=[Prefix(backbone.shape, 12, rank=5)], unknown="not tried")
    assert (found.adapter_numbers, found.trained_numbers) == (12 * width, 12 * 5 + 5 * width)
    assert found.state_bytes == 4 * 4 * found.trained_numbers
    two = run(backbone, tmp_path, SVEN(), unknown="not tried")
    assert two.adapter_numbers == two.trained_numbers == 2 * 3 * width


def test_reference_on_disk_is_what_a_run_writes(tmp_path):
    backbone = tiny_backbone("llama_gqa")
    for number, (objective, options) in enumerate([(CPT(), {}), (DPO(), {}), (SimPO(), {}),
                                                   (CPT(), {"reference_precision": "half"})]):  # fmt: skip
        compute = Compute(**options)
        found = run(backbone, tmp_path, objective, compute=compute, unknown="not tried")
        data = PairDataModule(write_file(tmp_path), backbone)
        cache = tmp_path / f"cache{number}"
        data.keep_reference(cache, backbone, objective, precision=compute.reference_precision)
        assert found.reference_bytes == sum(file.stat().st_size for file in cache.rglob("*.bin")) > 0
    for options in ({"compute": Compute(reference="recompute")}, {"method": StepMethod("plain")}):
        found = run(backbone, tmp_path, unknown="not tried", **options)
        assert found.reference_bytes == 0 and "not kept" in "\n".join(found.lines())


# The trial


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("kind, name", [("prefix", "fast"), ("prefix", "plain"), ("lora", "plain"), ("full", "plain")])
def test_a_trial_of_every_objective_and_adapter_changes_nothing(tmp_path, objective, kind, name):
    backbone = tiny_backbone("llama_gqa")
    adapters = [ADAPTERS[kind](backbone, seed) for seed in range(objective.policies)]
    before = [[p.detach().clone() for p in adapter.parameters()] for adapter in adapters]
    weights = [parameter.clone() for parameter in backbone.model.parameters()]
    random = torch.get_rng_state()
    found = run(backbone, tmp_path, objective, adapters=adapters, method=StepMethod(name), epochs=(2, 1))
    assert set(found.trial.seconds) == {"comparative", "nll"}
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in found.trial.seconds.values())
    assert found.adapter == kind and found.trained_numbers == sum(p.numel() for own in before for p in own)
    for adapter, values in zip(adapters, before, strict=True):
        for parameter, value in zip(adapter.parameters(), values, strict=True):
            assert torch.equal(parameter, value) and parameter.grad is None
    assert all(map(torch.equal, backbone.model.parameters(), weights))
    assert torch.equal(torch.get_rng_state(), random)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


@pytest.mark.parametrize("kind", ["prefix", "lora", "full"])
def test_adapters_are_counted_from_the_config_alone(kind):
    backbone = tiny_backbone("llama_gqa")
    sizes = [
        [parameter.shape for parameter in ADAPTERS[kind](one, 0).to(one.device).parameters()]
        for one in (backbone, empty_backbone(backbone.config, torch.float32))
    ]
    assert sizes[0] == sizes[1]


def tried(pairs, validation=(), batch_size=1, token_budget=4096):
    """Return the trial, and the pairs of each training step and validation that it ran."""
    backbone, steps = tiny_backbone("llama_gqa"), []
    stage = AdapterTraining(backbone, Prefix(backbone.shape, 3), "comparative", CPT(), method=StepMethod())

    def watch(name, inner):
        def wrapped(batch, index):
            (one,) = batch if isinstance(batch, list) else (batch,)
            steps.append((name, [len(pair.instruction) for pair in one.pairs]))
            return inner(batch, index)

        return wrapped

    stage.training_step = watch("step", stage.training_step)
    stage.validation_step = watch("validation", stage.validation_step)
    splits = [PairSplit(list(pairs), 0, token_budget) for pairs in (pairs, validation)]
    return run_trial([stage], *splits, batch_size, True), steps


def test_the_largest_batch_comes_first_and_then_pairs_near_the_median():
    pairs = [pair_of(10 * n, 2, 5, 5) for n in (9, 1, 2, 8, 3, 7, 4)]
    found, steps = tried(pairs, validation=pairs[:3])
    assert steps[:2] == [("step", [90]), ("validation", [90, 20, 10])]
    assert steps[2:] == [("step", [40]), ("step", [30]), ("step", [40]), ("step", [70])]  # the first one is counted
    assert found.lengths == (40, 50, 80) and (found.pairs, found.tokens) == (1, 100)
    found, steps = tried(pairs, batch_size=3)
    assert steps[0] == ("step", [90, 80, 70]) and (found.pairs, found.tokens) == (3, 100)
    _, steps = tried(pairs, batch_size=3, token_budget=200)
    assert steps[0] == ("step", [90, 80])
    found, steps = tried(pairs[:1])
    assert len(steps) == 3 and found.lengths == (100,)


@pytest.mark.parametrize(("by_sequences", "largest"), [(True, [25] * 6), (False, [30, 25, 25, 25, 25])])
def test_the_largest_batch_is_that_of_the_step_which_will_be_used(by_sequences, largest):
    """Of at most 150 tokens: in one row 100 + 30 or 6 · 25, padded 100, 5 · 30 or 2 · 25."""
    split = PairSplit([pair_of(length - 10, 2, 5, 5) for length in (100, 30, *[25] * 6)], 0, 150)
    split.lay_out(StepMethod("fast", by_sequences=by_sequences))
    assert [split.lengths[index] for index in module._largest(split, range(8))] == largest


def test_no_more_pairs_are_timed_where_a_step_takes_long(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    found, _ = tried([pair_of(10 * n, 2, 5, 5) for n in (1, 2, 3)])
    (seconds,) = found.seconds["comparative"]
    assert found.per_token("comparative") == pytest.approx(seconds / found.lengths[0])


def test_time_is_scaled_by_tokens_to_epochs_and_processes(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # a step takes a second
    found = run(tiny_backbone("llama"), tmp_path, epochs=(3, 2))
    lengths = PairDataModule(write_file(tmp_path), tiny_backbone("llama")).splits["train"].lengths
    epoch = 3 / sum(found.trial.lengths) * sum(lengths)
    assert found.seconds == pytest.approx({"comparative": epoch, "nll": epoch, "training": 5 * epoch})
    halved = run(tiny_backbone("llama"), tmp_path, epochs=(3, 2), processes=2)
    assert halved.seconds["training"] == pytest.approx(2.5 * epoch)
    second = run(tiny_backbone("llama"), tmp_path, epochs=(0, 2))
    assert set(second.seconds) == {"nll", "training"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_operations_of_a_forward_pass_by_hand(arch):
    """Every linear layer but the experts' costs 2 · in · out per token, attention 4 · queries · keys · width per layer."""
    backbone = tiny_backbone(arch)
    ids = torch.arange(40)[None]
    linear = []
    for layer in backbone.model.modules():
        if isinstance(layer, torch.nn.Linear) or type(layer).__name__ == "Conv1D":
            layer.register_forward_hook(lambda layer, inputs, output: linear.append(
                2 * inputs[0].numel() * output.shape[-1]))  # fmt: skip
    prefix = Prefix(backbone.shape, 3)
    found = count_flops(lambda: backbone.logits(ids, torch.ones_like(ids), prefix))
    attention = 2 * 4 * 40 * 43 * backbone.config.num_attention_heads * backbone.shape.head_dim  # two layers
    extra = found - sum(linear) - attention
    experts = {"mixtral", "qwen2_moe"} & {arch}
    assert (extra > 0) if experts else 0 <= extra < 0.02 * found  # the rotary embedding is a product, too


@pytest.mark.parametrize("name", ["fast", "plain"])
def test_operations_of_a_step_by_hand(name):
    """A Llama of two layers: the parts of the step, one by one. P/C/R/D = 20/6/12/4, M = 3, E = 32, I = 48, V = 259."""
    backbone = tiny_backbone("llama")
    stage = AdapterTraining(backbone, Prefix(backbone.shape, 3), "comparative", CPT(), method=StepMethod(name))
    split = PairSplit([pair_of(20, 6, 12, 12, 4, 4)], 0, 4096)
    found = count_flops(lambda: module._step(stage, split, [0], True))
    layer = 2 * (4 * 32 * 32 + 3 * 32 * 48)  # per token
    inputs = 2 * 3 * 32 * 32  # of the first layer's projections, to which no gradient goes back but by the prefix
    if name == "fast":
        tokens, code = 20 + 6 + 11 + 11, 6 + 12 + 12
        head = 2 * 32 * 259 * (2 * 8 + 3 * (code - 8))  # scores forward and backward; the KL reads the reference, too
        attention = 4 * tokens * (tokens + 3) * 32
        expected = 2 * (2 * layer * tokens) + head + 2 * attention * (1 + 2.5)
        assert 0.97 * (expected - inputs * tokens) < found < 1.03 * expected
    else:
        tokens = 2 * (20 + 6 + 12)
        dense = 2 * 4 * 38 * (38 + 3) * 32
        expected = 3 * tokens * (2 * layer + 2 * 32 * 259) + 2 * dense * (1 + 2.5) + 2 * 2 * 4 * 38 * 38 * 32
        assert 0.97 * (expected - inputs * tokens) < found < 1.03 * expected


@pytest.mark.slow
@pytest.mark.skipif(not module.STATUS.exists(), reason="reads Linux's account of a process")
def test_measured_memory_is_that_of_the_largest_step():
    """In processes of their own: a plain step holds logits of the whole vocabulary, checkpointed layers keep little."""
    grown = {}
    for name in ("fast", "plain"):
        for again in ("", "checkpointing"):
            command = [sys.executable, __file__, name, again]
            environment = os.environ | {
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")]),
                "MALLOC_MMAP_THRESHOLD_": "65536",  # so that freed tensors go back at once
            }
            child = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            one = json.loads(child.stdout.splitlines()[-1])
            assert not one["peak_is_earlier"]
            grown[name, again] = one["peak"] - one["state"] // 2 - one["before"]
            # plain: products of many logits take buffers that are no tensors
            assert grown[name, again] == pytest.approx(one["counted"], rel=0.1 if name == "fast" else 0.25)
    logits = 2 * 200 * 32000 * 4
    assert grown["plain", ""] - grown["fast", ""] > 3 * logits
    for name in ("fast", "plain"):
        assert logits < grown[name, "checkpointing"] < 0.9 * grown[name, ""]


def memory_here(name: str, checkpointing: bool) -> dict:
    """Return what the estimate says of a random Llama's step, and what this process held before."""
    config = LlamaConfig(
        vocab_size=32000, hidden_size=256, num_hidden_layers=8, intermediate_size=688, num_attention_heads=8
    )
    empty = empty_backbone(config, torch.float32)
    empty.model.to_empty(device="cpu")
    for tensor in (*empty.model.parameters(), *empty.model.buffers()):
        torch.nn.init.normal_(tensor, std=0.02)
    method = StepMethod(name, checkpointing=checkpointing)

    def step(pair):
        stage = AdapterTraining(empty, Prefix(empty.shape, 3), "comparative", CPT(), method=method)
        module._step(stage, PairSplit([pair], 0, 4096), [0], True)

    step(pair_of(4, 2, 4, 4))  # loads the libraries' code
    before = module._peak_bytes(torch.device("cpu"))
    found = run(empty, None, adapters=[Prefix(empty.shape, 3)], method=method, epochs=(1, 0))
    trial = found.trial
    assert trial is not None
    with LiveBytes() as live:  # another account of the same step
        step(ASSUMED)
    return {
        "counted": live.peak,
        "before": before,
        "peak": found.peak_bytes,
        "state": found.state_bytes,
        "peak_is_earlier": trial.peak_is_earlier,
    }


def test_a_batch_that_does_not_fit_is_a_mistake_with_a_remedy(tmp_path, monkeypatch):
    def lacks(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AdapterTraining, "training_step", lacks)
    with pytest.raises(UserError, match="pair.* of up to .* tokens does not fit .*compute.checkpointing=true"):
        run(tiny_backbone("llama"), tmp_path)


@pytest.mark.parametrize("error", [NameError, AttributeError, RuntimeError, TypeError])
def test_a_bug_of_ours_is_not_taken_for_an_unknown(tmp_path, monkeypatch, error):
    def typo(*_):
        raise error("planted")

    monkeypatch.setattr(AdapterTraining, "training_step", typo)
    with pytest.raises(error, match="planted"):
        run(tiny_backbone("llama"), tmp_path)


def test_a_run_goes_on_without_an_estimate_but_not_with_a_bug(monkeypatch, capsys):
    config = OmegaConf.create({"trainer": {}, "stages": {"_target_": "cptlab.training.Stages"}})

    def raising(error):
        def fails(*_, **__):
            raise error

        monkeypatch.setattr("cptlab.estimate.estimate.estimate", fails)

    raising(UserError("A step does not fit."))
    assert say_estimate(config) is None and "No estimate: A step does not fit." in capsys.readouterr().err
    raising(NameError("planted"))
    with pytest.raises(NameError, match="planted"):
        say_estimate(config)


# What is said


def test_table_and_short_form_say_how_each_number_is_known(tmp_path):
    found = run(tiny_backbone("llama"), tmp_path, epochs=(3, 1))
    text = "\n".join(found.lines())
    assert f"{found.parameters:,} parameters" in text and f"{TRAIN} train, {VALIDATION} validation" in text
    assert "measured on 1 pair(s)" in text and text.count("measured on 3 pair(s)") == 2 and "counted" in text
    assert "assumed" not in text and "unknown" not in text
    first, second = found.short()
    assert first.startswith("Estimate: ") and "on disk for the reference" in first
    assert "per epoch (comparative)" in second and "per epoch (nll)" in second
    at_most = dataclasses.replace(found, trial=dataclasses.replace(found.trial, peak_is_earlier=True))
    assert "at most" in at_most.short()[0] and "at most" in "\n".join(at_most.lines())
    unmeasured = dataclasses.replace(found, peak_bytes=None)
    assert "unknown" in unmeasured.short()[0]
    assert "held by" not in text
    shared = dataclasses.replace(found, trial=None, unknown="of a reason", processes=4, held_bytes=3 << 20)
    assert "held by each of 4 process(es)" in "\n".join(shared.lines())
    assert shared.short() == ["Estimate: 3.0 MiB of weights in each process; a step was not tried: of a reason"]
    plain = json.loads(json.dumps(dataclasses.asdict(found)))
    assert plain["peak_bytes"] == found.peak_bytes and plain["trial"]["flops"] == found.trial.flops


def test_without_pairs_one_of_assumed_lengths_is_tried():
    assert Lengths.of(ASSUMED) == Lengths(400, 50, 150, 150, 40, 40)
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    backbone = empty_backbone(config, torch.float32)
    backbone.model.to_empty(device="cpu")
    text = "\n".join(run(backbone, None, adapters=[Prefix(backbone.shape, 3)]).lines())
    assert (
        "assumed: there are no pairs yet" in text
        and "Time of a pair, comparative" in text
        and "Time of training" not in text
    )


def test_units():
    assert (duration(0.25), duration(12), duration(600), duration(3 * 3600)) == (
        "0.25 s",
        "12.0 s",
        "10.0 min",
        "3.0 h",
    )


if __name__ == "__main__":
    print(json.dumps(memory_here(sys.argv[1], bool(sys.argv[2]))))
