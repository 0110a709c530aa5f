"""The next step is made while one is in use: the same steps, in the same order, from the same place after a kill."""

import threading

import pytest
import torch
from step_agreement import pairs
from tiny_models import tiny_backbone
from torch import Tensor

from cptlab.training.loop.datamodule import PairLoader, PairSplit
from cptlab.training.loop.read_ahead import read_ahead
from cptlab.training.steps.batches import collate
from cptlab.training.steps.fast import FastOutputs


def test_one_item_is_made_while_another_is_in_use():
    started = [threading.Event() for _ in range(4)]

    def make(item):
        started[item].set()
        return 10 * item

    for number, found in enumerate(read_ahead(make, range(4))):
        assert found == 10 * number
        assert number == 3 or started[number + 1].wait(5)
        assert number >= 2 or not started[number + 2].wait(0.05)


def test_an_error_comes_in_the_place_of_its_item():
    made = read_ahead(lambda item: 1 // (2 - item), range(4))
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_nothing_to_read_and_an_early_end():
    assert list(read_ahead(abs, [])) == []
    made = read_ahead(abs, range(3))
    assert next(made) == 0
    made.close()
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def loader_of(ahead):
    return PairLoader(PairSplit(pairs(), 257, 60), 2, 7, ahead=ahead)


def better_programs(step):
    return [[pair.better for pair in batch.pairs] for batch in step]


def test_a_loader_that_reads_ahead_gives_the_same_steps_and_resumes_at_the_same_one():
    plain, ahead = loader_of(False), loader_of(True)
    for _ in range(2):
        steps = [better_programs(step) for step in plain]
        assert [better_programs(step) for step in ahead] == steps and len(steps) == 4
    interrupted = iter(plain), iter(ahead)
    for _ in range(3):
        for steps in interrupted:
            next(steps)
    assert plain.state_dict() == ahead.state_dict() and ahead.position == 3
    resumed = loader_of(True)
    resumed.load_state_dict(ahead.state_dict())
    (last,) = [better_programs(step) for step in resumed]
    assert last == better_programs(next(interrupted[0]))


def tensors_of(value):
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for one in inner for tensor in tensors_of(one)]


def test_all_that_was_laid_out_moves_with_a_batch():
    backbone = tiny_backbone("llama_gqa")
    batch = collate(pairs(), 257)
    batch = batch.with_reference(FastOutputs(backbone, batch, []).reference_rows())
    laid_out = batch.packed, batch.programs, batch.one_row
    moved = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in tensors_of(moved)} == {"meta"}
    assert {"packed", "programs", "one_row"} <= vars(moved).keys() and len(tensors_of(moved)) == len(tensors_of(batch))
    assert {tensor.device.type for tensor in tensors_of(batch)} == {"cpu"} and batch.packed is laid_out[0]
