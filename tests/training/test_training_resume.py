"""Killed at any moment, the same call ends with the same prefix and curves, bit for bit; two processes equal one."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
import training_runs
from files_on_disk import DAMAGE

CURVES = ("stage1/steps.csv", "stage1/epochs.csv", "stage2/steps.csv", "stage2/epochs.csv")


@pytest.fixture(scope="module")
def spawn():
    """Run `training_runs.run_in_child` in a process of its own, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_runs"])
    with pytest.MonkeyPatch.context() as patch:  # the server itself is not told where modules are
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()

    def run(directory, moment, **options):
        process = context.Process(target=training_runs.run_in_child, args=(directory, moment, options))
        process.start()
        process.join(120)
        if process.is_alive():
            process.kill()
        return process.exitcode

    return run


@pytest.fixture(scope="module")
def undisturbed(spawn, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    assert spawn(directory, None) == 0
    return directory


def assert_same(directory: Path, reference: Path) -> None:
    held, expected = (torch.load(d / "adapter.pt") for d in (directory, reference))
    assert held.keys() == expected.keys()
    for name in held:
        assert torch.equal(held[name], expected[name]), name
    for curve in CURVES:
        assert (directory / "run" / curve).read_text() == (reference / "run" / curve).read_text(), curve
    assert not list(directory.rglob("*.partial"))


# 7 steps an epoch, 2 epochs a stage, checkpoints every 3 steps and after each epoch (steps 3, 6, 7, 9, 12, 14)
MOMENTS = [
    ("comparative", "on_train_batch_start", 2),
    ("comparative", "on_train_batch_end", 5),
    ("comparative", "on_train_batch_end", 6),
    ("comparative", "on_validation_batch_end", 7),
    ("comparative", "on_train_epoch_end", 7),
    ("comparative", "on_train_batch_start", 7),
    ("comparative", "on_train_batch_end", 11),
    ("comparative", "on_validation_start", 14),
    ("nll", "on_train_batch_end", 1),
    ("nll", "on_train_batch_end", 6),
    ("saving", 1),
    ("saving", 8),
    ("marker", 1),
    ("marker", 2),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: "-".join(map(str, moment)))
def test_killed_once(moment, spawn, undisturbed, tmp_path):
    assert spawn(tmp_path, moment) == -signal.SIGKILL
    assert not (tmp_path / "adapter.pt").exists()
    assert spawn(tmp_path, None) == 0
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize("stage, damage", [("stage1", "garbage"), ("stage2", "truncated"), ("stage1", "directory")])
def test_a_damaged_checkpoint_is_set_aside_and_its_stage_done_anew(stage, damage, spawn, undisturbed, tmp_path):
    assert spawn(tmp_path, ("nll", "on_train_batch_end", 6)) == -signal.SIGKILL
    DAMAGE[damage](tmp_path / "run" / stage / "last.ckpt")
    assert spawn(tmp_path, None) == 0
    assert_same(tmp_path, undisturbed)
    assert (tmp_path / "run" / stage / "last.ckpt.damaged").exists()


def test_a_resumed_run_goes_on_where_the_checkpoint_was(spawn, tmp_path):
    for moment in (("comparative", "on_train_batch_start", 5), ("nll", "on_train_batch_start", 10), None):
        spawn(tmp_path, moment)
    starts = (tmp_path / "starts.txt").read_text().split()
    assert starts == ["comparative:0", "comparative:3", "nll:0", "nll:9"]


def test_killed_again_and_again(spawn, undisturbed, tmp_path):
    for moment in MOMENTS[2:10:3] + [("saving", 1)] * 2:
        assert spawn(tmp_path, moment) == -signal.SIGKILL
    for _ in range(2):  # the second call finds everything finished
        assert spawn(tmp_path, None) == 0
        assert_same(tmp_path, undisturbed)


def test_killed_with_a_plain_table_and_another_interval(spawn, tmp_path):
    kills = [("comparative", "on_train_batch_end", 2), ("nll", "on_train_end", 2)]
    for name, moments in (("plain", []), ("killed", kills)):
        directory = tmp_path / name
        directory.mkdir()
        for moment in [*moments, None]:
            code = spawn(directory, moment, rank=None, batch_size=3, checkpoint_every=1, second_epochs=1)
            assert code == (0 if moment is None else -signal.SIGKILL)
    assert_same(tmp_path / "killed", tmp_path / "plain")


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_other_adapters_resume(kind, spawn, tmp_path):
    """Dropout in LoRA draws the same numbers again."""
    for name, moments in (("whole", []), ("killed", [("comparative", "on_train_batch_end", 5), ("saving", 6)])):
        directory = tmp_path / name
        directory.mkdir()
        for moment in [*moments, None]:
            assert spawn(directory, moment, kind=kind) == (0 if moment is None else -signal.SIGKILL)
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("kind", ["prefix", pytest.param("lora", marks=pytest.mark.slow)])
def test_two_processes_equal_one_with_the_doubled_batch(kind, tmp_path, monkeypatch):
    """7 pairs, 2 a step: 3 steps an epoch, the odd pair left out alike. In float64, so that only order differs."""
    two, one = tmp_path / "two", tmp_path / "one"
    for directory in (two, one):
        directory.mkdir()
        training_runs.write_file(directory)
    script = [sys.executable, training_runs.__file__, str(two), "2", "1", kind]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        script, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output

    # no process computed what another one did
    if kind == "prefix":
        said = (two / "said.txt").read_text()
        assert said.count("being computed once") == 2 == said.count("found in"), said

    adapter = training_runs.train(one, kind=kind, double=True, batch_size=2)
    ranks = [torch.load(two / f"adapter{rank}.pt") for rank in (0, 1)]
    for name, expected in adapter.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], expected, rtol=1e-7, atol=1e-9)
    for curve in CURVES:
        rows = [[line.split(",") for line in (d / "run" / curve).read_text().splitlines()] for d in (two, one)]
        assert rows[0][0] == rows[1][0] and len(rows[0]) == len(rows[1]) == (7 if "steps" in curve else 3)
        for left, right in zip(rows[0][1:], rows[1][1:], strict=True):
            assert [float(x) for x in left] == pytest.approx([float(x) for x in right], rel=1e-7, abs=1e-9)
