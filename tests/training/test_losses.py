"""Loss functions on tensors: closed forms, far ends, precision. What objectives make of them: test_objectives.py."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from fake_outputs import fake_outputs

from cptlab.training.objectives import losses


def random(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rank_loss_far_out():
    far = torch.tensor([-1e4, 0.0, 1e4])
    loss = losses.rank_loss(far, torch.zeros(3))
    torch.testing.assert_close(loss, torch.tensor([1e4, math.log(2), 0.0]))


def test_losses_of_half_precision_logits_are_float32():
    assert losses.log_probs(torch.zeros(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("direction", losses.KL_DIRECTIONS)
def test_kl_and_its_gradients(direction):
    """The sum over the vocabulary, and dKL(ref||p)/dz = p - q, dKL(p||ref)/dz = p * (log p - log q - KL)."""
    logits, q = random(2, 5, 7).requires_grad_(), losses.log_probs(random(2, 5, 7, seed=1))
    p = losses.log_probs(logits)
    divergence = losses.position_kl(p, q, direction)
    divergence.sum().backward()
    p = p.detach()
    if direction == "reference_policy":
        summed, expected = (q.exp() * (q - p)).sum(-1), p.exp() - q.exp()
    else:
        summed = (p.exp() * (p - q)).sum(-1)
        expected = p.exp() * (p - q - summed[..., None])
    torch.testing.assert_close(divergence.detach(), summed, rtol=1e-12, atol=0)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
def test_reductions_equal_loops(reduction):
    outputs = fake_outputs(empty_rows=(2,))
    values = random(6, 9, seed=3)
    values[~outputs.code] = float("nan")  # padding is not looked at
    found = losses.nll_loss(values, outputs.mask, reduction)
    for row in range(6):
        chosen = [v for v, m in zip(values[row].tolist(), outputs.mask[row].tolist(), strict=True) if m]
        expected = -math.fsum(chosen) / (len(chosen) if reduction == "mean" and chosen else 1)
        assert found[row].item() == pytest.approx(expected, rel=1e-12)


def exact_log1mexp(x: float) -> tuple[float, float]:
    """log(1 - e^x) and its derivative -e^x / (1 - e^x), with 400 digits."""
    with localcontext() as context:
        context.prec = 400
        power = Decimal(x).exp()
        return float((1 - power).ln()), float(-power / (1 - power))


@pytest.mark.parametrize("x", [-1e-15, -1e-9, -1e-3, -0.5, -math.log(2), -0.7, -3.0, -40.0, -700.0])
def test_log1mexp_is_exact_at_both_ends(x):
    point = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    value = losses.log1mexp(point)
    (slope,) = torch.autograd.grad(value.sum(), point)
    expected = exact_log1mexp(x)
    assert (value.item(), slope.item()) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_odds_of_certain_and_of_impossible_programs(dtype):
    """Probabilities of 1 on either side or on both, and of e^-10000: finite, with finite gradients, in order."""
    ends = torch.tensor([0.0, -1e-30, -1e4], dtype=dtype)
    better, worse = (x.flatten().requires_grad_() for x in torch.meshgrid(ends, ends, indexing="ij"))
    loss = losses.odds_ratio_loss(better, worse)
    gradients = torch.autograd.grad(loss.sum(), (better, worse))
    assert all(torch.isfinite(x).all() for x in (loss, *gradients))
    same = better == worse
    torch.testing.assert_close(loss[same], torch.full_like(loss[same], math.log(2)))
    assert loss[2] < 1e-12 and loss[6] > 1e4  # the better one certain, and the worse one


@pytest.mark.parametrize("margin", [-1e4, -50.0, -25.0, -1.0, 0.0, 1.0, 25.0, 50.0, 1e4])
def test_preference_losses_are_exact_far_out(margin):
    """-log sigmoid(z) = log(1 + e^-z), also where e^-z is far below or above 1."""
    expected = math.log1p(math.exp(-margin)) if margin > -700 else -margin
    x, zero = torch.tensor([margin], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    mask = torch.ones(1, 1, dtype=torch.bool)
    for loss in (
        losses.dpo_loss(x, zero, 1.0),
        losses.dpo_loss(zero, -x / 4, 4.0),
        losses.dpop_loss(zero, -x, 1.0, 50.0),
        losses.simpo_loss(x, zero, 1.0, 0.0),
        losses.simpo_loss(zero, zero, 1.0, -margin),
        losses.contrastive_loss(x[None], zero[None], mask),
    ):
        assert loss.item() == pytest.approx(expected, rel=1e-13)


def test_dpop_counts_a_fall_of_the_better_program_only():
    ratios = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    found = losses.dpop_loss(ratios, torch.zeros(3, dtype=torch.float64), 0.5, 10.0)
    exponents = [0.5 * (-2 - 20), 0.0, 1.0]
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-e)) for e in exponents])


def test_hinge():
    before, now = torch.tensor([-3.0, -3.0, -3.0]), torch.tensor([-5.0, -3.0, -1.0])
    assert losses.hinge_loss(now, before).tolist() == [2.0, 0.0, 0.0]
