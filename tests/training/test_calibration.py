"""The fastest way of a step is taken, by measured time; all ways agree with the plain step."""

import contextlib
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from step_agreement import assert_agree, exact_norms, pairs, step_of
from tiny_models import double, tiny_backbone

from cptlab.adapters import Prefix
from cptlab.training import CPT, StepMethod, fastest_step
from cptlab.training.loop.calibration import choose_by_time, step_seconds
from cptlab.training.objectives import SVEN
from cptlab.training.steps.batches import collate
from cptlab.training.steps.fast import FastOutputs

SEQUENCES = StepMethod("fast", by_sequences=True)


@pytest.mark.parametrize("objective", [CPT(w_hinge=1.0), SVEN()], ids=repr)
def test_programs_that_share_nothing_agree_with_the_plain_step(objective):
    backbone = double("llama_gqa")
    with exact_norms(backbone):
        plain, found = (
            step_of(backbone, objective, pairs(), method) for method in ("plain", StepMethod("fast", shared=False))
        )
    assert_agree(plain, found, 1e-8)


def test_what_is_kept_of_the_reference_serves_all_ways():
    backbone, batch = double("llama_gqa"), collate(pairs(), 257)
    rows = FastOutputs(backbone, batch, []).reference_rows()
    own = FastOutputs(backbone, batch, [], shared=False).reference_rows()
    for one, other in ((rows.states, own.states), (rows.scores, own.scores)):
        assert (one - other).abs().max() < 1e-5  # norms in float32


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"by sequences": 1.0, "mask": 2.0, "mask, nothing shared": 3.0}, "by sequences"),
        ({"by sequences": 3.0, "mask": 2.0, "mask, nothing shared": 2.5}, "mask"),
        ({"by sequences": 3.0, "mask": math.inf, "mask, nothing shared": 2.5}, "mask, nothing shared"),
        ({"by sequences": math.inf, "mask": math.inf, "mask, nothing shared": math.inf}, "by sequences"),
    ],
)
def test_the_fastest_is_taken_and_kept(seconds, chosen, tmp_path):
    method = StepMethod("fast", by_sequences=True, checkpointing=True)
    kept = tmp_path / "training" / "step_seconds.json"
    found = choose_by_time(method, lambda way: seconds[way.way], kept)
    finite = {name: value for name, value in seconds.items() if value < math.inf}
    assert found.way == chosen and found.checkpointing and json.loads(kept.read_text()) == finite
    assert found.facts()["step_attention"] == chosen and found.facts().get("step_seconds", {}) == finite
    assert choose_by_time(method, lambda way: pytest.fail("measured again"), kept) == found


def test_processes_that_start_together_go_the_same_way(tmp_path):
    """As under torchrun. Validation is shared out by batches, which depend on the way: pairs would be left out, or count twice."""
    method, together, measured = StepMethod("fast"), threading.Barrier(2), []

    def seconds(number, way):
        measured.append(number)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(1)  # for the other one, should it measure at the same time
        return [1.0, 2.0][(way.way == "mask") ^ number]

    def choose(number):
        return choose_by_time(method, lambda way: seconds(number, way), tmp_path / "step_seconds.json")

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(choose, (0, 1))
    assert one == other and len(set(measured)) == 1


def test_without_a_kernel_there_are_two_ways():
    assert [way.way for way in StepMethod("fast").ways()] == ["mask", "mask, nothing shared"]


def test_every_way_can_be_timed_and_leaves_no_gradient():
    backbone = tiny_backbone("llama_gqa")
    prefix = Prefix(backbone.shape, 3)
    for way in SEQUENCES.ways():
        assert 0 < step_seconds(way, backbone, [prefix], CPT(), collate(pairs(), 257)) < math.inf
    assert prefix.table.grad is None


def test_nothing_is_measured_on_a_cpu(tmp_path):
    backbone, method = tiny_backbone("llama"), StepMethod("fast")
    found = fastest_step(method, backbone, [], CPT(), lambda: pytest.fail("no batch is needed"), tmp_path)
    assert found == method and not list(tmp_path.iterdir())
