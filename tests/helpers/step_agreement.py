"""Steps of unequal random pairs, computed by any method, and what must agree between two of them."""

from __future__ import annotations

import functools
import random
from contextlib import contextmanager

import pytest
import torch

from cptlab.adapters import Prefix
from cptlab.training import StepMethod
from cptlab.training.loop.displacement import displacement_sums
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.steps.batches import collate
from cptlab.training.steps.token_pairs import TokenPair

# what these compute in float32, whatever the model's dtype: codegen its attention, the others their routing
FLOAT32 = {"codegen", "mixtral", "qwen2_moe"}


def example(draw, instruction, common, rest_a, rest_b, masked=0.4):
    """A pair of random tokens; the masks are drawn everywhere, in the common code too, where they may differ."""

    def tokens(count):
        return [draw.randrange(256) for _ in range(count)]

    def mask(ids):
        return [int(draw.random() < masked) for _ in ids]

    shared, first = tokens(common), tokens(2)
    rests = [([first[i]] + tokens(n - 1)) if n else [] for i, n in enumerate((rest_a, rest_b))]
    if rest_a and rest_b and first[0] == first[1]:
        rests[1][0] = (first[0] + 1) % 256
    better, worse = (shared + rest for rest in rests)
    return TokenPair(tokens(instruction), (better, mask(better)), (worse, mask(worse)))


def pairs(seed=0):
    """Unequal pairs, with every corner: no common code, a program that begins the other, equal ones, empty masks."""
    draw = random.Random(seed)
    shapes = [(20, 7, 9, 12), (5, 0, 4, 6), (1, 3, 1, 1), (9, 6, 0, 4), (7, 5, 6, 0), (4, 6, 0, 0), (3, 1, 1, 8)]
    found = [example(draw, *shape) for shape in shapes]
    return [*found, example(draw, 6, 4, 5, 3, masked=0.0), example(draw, 6, 0, 3, 3, masked=1.0)]


@contextmanager
def exact_norms(backbone):
    """With root-mean-square norms in the model's dtype: transformers' own compute in float32, exact to 1e-7 only."""

    def forward(self, hidden):
        epsilon = getattr(self, "variance_epsilon", None) or self.eps
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon)

    norms = [module for module in backbone.model.modules() if type(module).__name__.endswith("RMSNorm")]
    for norm in norms:
        norm.forward = functools.partial(forward, norm)
    yield
    for norm in norms:
        del norm.forward


def prefixes_of(backbone, objective, length=3):
    shape = backbone.shape
    made = [Prefix(shape, length=length, rank=4, seed=seed).double() for seed in range(objective.policies)]
    for prefix in made:
        prefix.transform.data *= 20  # so that the policy is far from the reference
    return made


def step_of(backbone, objective, examples, method, stage="comparative", groups=None):
    """Loss, terms and gradients of one step, and the diagnostics."""
    prefixes = prefixes_of(backbone, objective)
    module = AdapterTraining(
        backbone,
        prefixes[0],
        stage,
        objective,
        method=StepMethod(method) if isinstance(method, str) else method,
        opposite=prefixes[1] if prefixes[1:] else None,
    )
    step = [collate([examples[i] for i in group], 257) for group in groups or [range(len(examples))]]
    loss = module.training_step(step, 0)
    gradients = torch.autograd.grad(loss, module.trained())
    batch = step[0].better if objective.better_only else step[0]
    with torch.no_grad(), module.method.running(backbone, module.policies()):
        outputs = module.method.outputs(backbone, step[0], module.policies())
        terms = objective.terms(module.method.outputs(backbone, batch, module.policies()))
        sums = displacement_sums(outputs, terms, objective)
    return {"step": module._latest, "validation": sums}, gradients


def assert_agree(one, other, tolerance):
    (values, gradients), (other_values, other_gradients) = one, other
    for part, expected in values.items():
        assert expected.keys() == other_values[part].keys()
        for name, value in expected.items():
            assert float(other_values[part][name]) == pytest.approx(float(value), rel=tolerance, abs=1e-12), name
    for gradient, found in zip(gradients, other_gradients, strict=True):
        assert torch.isfinite(gradient).all() and gradient.norm() > 0
        assert (found - gradient).norm() <= tolerance * gradient.norm()
