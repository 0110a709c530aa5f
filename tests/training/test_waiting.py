"""A training step by sequences asks nothing of the device that the host would wait for."""

import pytest
import torch
from no_waiting import NoWaiting, WaitsForTheDevice
from step_agreement import pairs, prefixes_of
from tiny_models import double

from cptlab.training import CPT, StepMethod
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.objectives import DPO, NLL, ORPO, SVEN
from cptlab.training.steps.batches import ReferenceRows, collate
from cptlab.training.steps.fast import FastOutputs

SEQUENCES = StepMethod("fast", by_sequences=True)


def step_without_waiting(backbone, objective, method, batch):
    prefixes = prefixes_of(backbone, objective)
    module = AdapterTraining(
        backbone, prefixes[0], objective=objective, method=method, opposite=prefixes[1] if prefixes[1:] else None
    )
    with NoWaiting():
        module.training_step([batch], 0).backward()
    assert all(parameter.grad is not None for parameter in module.trained())


@pytest.mark.parametrize("objective", [CPT(w_hinge=1.0), SVEN(), DPO(), NLL(), ORPO()], ids=repr)
def test_no_objective_waits(objective):
    backbone = double("llama_gqa")
    step_without_waiting(backbone, objective, SEQUENCES, collate(pairs(), 257, better_only=objective.better_only))


@pytest.mark.parametrize("method", [SEQUENCES, StepMethod("fast", by_sequences=True, checkpointing=True)], ids=repr)
def test_nor_with_a_reference_that_was_kept_and_layers_computed_again(method):
    backbone = double("llama_gqa")
    batch = collate(pairs(), 257)
    rows = FastOutputs(backbone, batch, []).reference_rows()
    step_without_waiting(backbone, CPT(), method, batch.with_reference(ReferenceRows(rows.states, rows.scores)))


def test_what_would_wait_is_found():
    batch = collate(pairs(), 257)
    with pytest.raises(WaitsForTheDevice), NoWaiting():
        torch.zeros(3)[torch.tensor([True, False, True])]
    with pytest.raises(WaitsForTheDevice), NoWaiting():
        float(torch.zeros(3).sum())
    with pytest.raises(WaitsForTheDevice), NoWaiting():
        batch.tokens.unique()
    with pytest.raises(WaitsForTheDevice):
        step_without_waiting(double("llama_gqa"), CPT(), StepMethod("plain"), batch)
