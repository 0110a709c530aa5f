"""Two processes train what one does with the doubled batch: DDP, shared-out layers (FSDP2), a backbone of 4 bits."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import training_runs
from tiny_models import tiny_model, tiny_tokenizer

from cptlab.backbone import load_backbone

CURVES = ("stage1/steps.csv", "stage1/epochs.csv", "stage2/steps.csv", "stage2/epochs.csv")
SHARDED = {"strategy": "sharded_layers"}


def run(directory, timeout=240, **options):
    """Train in `directory` with two processes. Return the status of the first, and what was printed."""
    training_runs.write_file(directory)
    script = [sys.executable, training_runs.__file__, str(directory), json.dumps(options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        script, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def assert_equal_to_one_process(two, one, rtol, atol, **options):
    """7 pairs, 2 a step: 3 steps an epoch, the odd pair left out alike."""
    one.mkdir()
    training_runs.write_file(one)
    expected = training_runs.train(one, batch_size=2, **options).state_dict()
    found = [torch.load(two / f"rank{rank}.pt")["adapter"] for rank in (0, 1)]
    for name, tensor in expected.items():
        assert torch.equal(found[0][name], found[1][name])
        torch.testing.assert_close(found[0][name], tensor, rtol=rtol, atol=atol)
    for curve in CURVES:
        rows = [[line.split(",") for line in (d / "run" / curve).read_text().splitlines()] for d in (two, one)]
        assert rows[0][0] == rows[1][0] and len(rows[0]) == len(rows[1]) == (7 if "steps" in curve else 3)
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
    two.mkdir()
    code, output = run(two, strategy="ddp", kind=kind, double=True, keep=kind == "prefix")
    assert code == 0, output
    if kind == "prefix":  # no process computed what another one did
        said = (two / "said.txt").read_text()
        assert said.count("being computed once") == 2 == said.count("found in"), said
    assert_equal_to_one_process(two, tmp_path / "one", 1e-7, 1e-9, kind=kind, double=True)


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_layers_shared_out(checkpointing, tmp_path):
    two = tmp_path / "two"
    two.mkdir()
    code, output = run(two, **SHARDED, double=True, checkpointing=checkpointing)
    assert code == 0, output
    whole = training_runs.tiny_backbone("llama_gqa").model
    layers = sum(parameter.numel() for parameter in whole.model.layers.parameters())
    outcomes = [torch.load(two / f"rank{rank}.pt") for rank in (0, 1)]
    for outcome in outcomes:
        assert outcome["all"] == sum(parameter.numel() for parameter in whole.parameters())
        assert outcome["all"] - outcome["held"] == pytest.approx(layers / 2, rel=0.01)
    assert_equal_to_one_process(two, tmp_path / "one", 1e-9, 1e-12, double=True)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [("comparative", "on_train_batch_end", 5), ("nll", "on_validation_batch_end", 3)])
def test_shared_out_layers_resume_after_a_kill(moment, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for directory in (killed, whole):
        directory.mkdir()
    assert run(killed, **SHARDED, killed=moment)[0] == -signal.SIGKILL
    assert not (killed / "rank0.pt").exists()
    for directory in (killed, whole):
        code, output = run(directory, **SHARDED)
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
    two.mkdir()
    tiny_model("llama_gqa", hidden_size=64, intermediate_size=128).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    code, output = run(two, strategy="ddp", backbone=str(path))
    assert code == 0, output
    assert_equal_to_one_process(
        two, tmp_path / "one", 1e-4, 1e-5, backbone=load_backbone(str(path), quantization="4bit")
    )
