"""Two processes train what one does with the doubled batch: DDP, shared-out layers (FSDP2), a backbone of 4 bits."""

import json
import os
import signal
import subprocess
import sys

import pytest
import sharded_steps
import torch
import training_runs
from tiny_models import ARCHITECTURES, tiny_model, tiny_tokenizer
from training_runs import launch

from cptlab.backbone import load_backbone
from cptlab.backbone.quantization import QuantizedLinear
from cptlab.errors import UserError
from cptlab.estimate.sizes import held_weight_bytes
from cptlab.training import check_sharded

CURVES = ("stage1/steps.csv", "stage1/epochs.csv", "stage2/steps.csv", "stage2/epochs.csv")
SHARDED = {"strategy": "sharded_layers"}


def assert_equal_to_one_process(two, one, rtol, atol, batch_size=1, **options):
    """7 pairs, by default 2 a step: 3 steps an epoch, the odd pair left out alike."""
    one.mkdir()
    training_runs.write_file(one)
    expected = training_runs.train(one, batch_size=2 * batch_size, **options).state_dict()
    found = [torch.load(two / f"rank{rank}.pt")["adapter"] for rank in (0, 1)]
    for name, tensor in expected.items():
        assert torch.equal(found[0][name], found[1][name])
        torch.testing.assert_close(found[0][name], tensor, rtol=rtol, atol=atol)
    for curve in CURVES:
        rows = [[line.split(",") for line in (d / "run" / curve).read_text().splitlines()] for d in (two, one)]
        assert rows[0][0] == rows[1][0] and len(rows[0]) == len(rows[1])
        assert len(rows[0]) == 1 + 2 * (7 // (2 * batch_size) if "steps" in curve else 1)
        for left, right in zip(rows[0][1:], rows[1][1:], strict=True):
            assert [float(x) for x in left] == pytest.approx([float(x) for x in right], rel=rtol, abs=atol)
    for stage in ("stage1", "stage2"):
        held, wanted = (torch.load(d / "run" / stage / "last.ckpt", weights_only=True) for d in (two, one))
        assert held.keys() == wanted.keys() and held["state_dict"].keys() == wanted["state_dict"].keys()
        states = [c["optimizer_states"][0]["state"] for c in (held, wanted)]
        for left, right in zip(*(state.values() for state in states), strict=True):
            torch.testing.assert_close(left["exp_avg"], right["exp_avg"], rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", ["prefix", pytest.param("lora", marks=pytest.mark.slow)])
def test_ddp(kind, tmp_path):
    """In float64, so that only order differs."""
    two = tmp_path / "two"
    code, output = launch(two, strategy="ddp", kind=kind, double=True, keep=kind == "prefix")
    assert code == 0, output
    if kind == "prefix":  # no process computed what another one did
        said = (two / "said.txt").read_text()
        assert said.count("being computed once") == 2 == said.count("found in"), said
    assert_equal_to_one_process(two, tmp_path / "one", 1e-7, 1e-9, kind=kind, double=True)


MANY = {"batch_size": 3, "token_budget": 120, "checkpointing": True}  # a process would have more batches than the other


@pytest.mark.parametrize("options", [{}, pytest.param(MANY, marks=pytest.mark.slow)], ids=["one", "many"])
def test_layers_shared_out(options, tmp_path):
    two = tmp_path / "two"
    code, output = launch(two, **SHARDED, double=True, **options)
    assert code == 0, output
    whole = training_runs.tiny_backbone("llama_gqa").model
    layers = sum(parameter.numel() for parameter in whole.model.layers.parameters())
    outcomes = [torch.load(two / f"rank{rank}.pt") for rank in (0, 1)]
    for outcome in outcomes:
        assert outcome["all"] == sum(parameter.numel() for parameter in whole.parameters())
        assert outcome["all"] - outcome["held"] == pytest.approx(layers / 2, rel=0.01)
        largest = max(sum(p.nbytes for p in layer.parameters()) for layer in whole.model.layers)
        assert 4 * outcome["held"] + 2 * largest == pytest.approx(held_weight_bytes(whole, 2), rel=0.01)
    assert_equal_to_one_process(two, tmp_path / "one", 1e-9, 1e-12, double=True, **options)


@pytest.mark.slow
def test_every_architecture_is_shared_out_bit_for_bit(tmp_path):
    """In float32: a layer that was put together again holds the numbers that it had."""
    files = [tmp_path / f"rank{rank}.json" for rank in (0, 1)]
    processes = [
        subprocess.Popen(
            [sys.executable, sharded_steps.__file__, str(rank), str(tmp_path / "meeting"), str(file)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        assert set(found) == set(ARCHITECTURES)
        assert all({"fast", "plain", "checkpointed"} <= set(ways) for ways in found.values())
        assert sum("by sequences" in ways for ways in found.values()) >= 5
        assert {difference for ways in found.values() for difference in ways.values()} == {0}


def test_what_cannot_be_shared_out_is_refused():
    backbone = training_runs.tiny_backbone("llama_gqa")
    prefix, lora = (training_runs.make_adapter(kind, backbone) for kind in ("prefix", "lora"))
    check_sharded(backbone, [prefix], compiled=False)
    with pytest.raises(UserError, match="Layers that lora changes.*adapter=prefix"):
        check_sharded(backbone, [prefix, lora], compiled=False)
    with pytest.raises(UserError, match="compute.compile=false"):
        check_sharded(backbone, [prefix], compiled=True)
    layer = backbone.model.model.layers[0].mlp
    numbers = torch.zeros(layer.up_proj.weight.shape, dtype=torch.int8)
    layer.up_proj = QuantizedLinear(numbers, torch.ones(len(numbers), 1), None, tuple(numbers.shape), bits=8)
    with pytest.raises(UserError, match="8 or 4 bits.*trainer=ddp"):
        check_sharded(backbone, [prefix], compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [("comparative", "on_train_batch_end", 5), ("nll", "on_validation_batch_end", 3)])
def test_shared_out_layers_resume_after_a_kill(moment, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert launch(killed, **SHARDED, killed=moment)[0] == -signal.SIGKILL
    assert not (killed / "rank0.pt").exists()
    for directory in (killed, whole):
        code, output = launch(directory, **SHARDED)
        assert code == 0, output
    for rank in (0, 1):
        found, expected = (torch.load(d / f"rank{rank}.pt")["adapter"] for d in (killed, whole))
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
    for curve in CURVES:
        assert (killed / "run" / curve).read_text() == (whole / "run" / curve).read_text(), curve


@pytest.mark.slow
def test_four_bits_under_ddp(tmp_path):
    pytest.importorskip("accelerate")
    pytest.importorskip("bitsandbytes")
    path, two = tmp_path / "model", tmp_path / "two"
    tiny_model("llama_gqa", hidden_size=64, intermediate_size=128).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    code, output = launch(two, strategy="ddp", backbone=str(path))
    assert code == 0, output
    assert_equal_to_one_process(
        two, tmp_path / "one", 1e-4, 1e-5, backbone=load_backbone(str(path), quantization="4bit")
    )
