"""Killed at any moment, the same call ends with the same prefix and curves, bit for bit."""

import multiprocessing
import os
import signal
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
