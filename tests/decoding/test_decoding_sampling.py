"""Token choice: filters against transformers', frequencies against softmax, random numbers against their contract."""

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from cptlab.decoding import Sampling
from cptlab.decoding.sampling import choose, draw, probabilities, uniforms
from cptlab.errors import UserError


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("vocabulary", [7, 64, 500])
def test_filters_equal_those_of_transformers(temperature, top_k, top_p, vocabulary):
    logits = 3 * torch.randn(20, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    expected = TemperatureLogitsWarper(temperature)(None, logits) if temperature != 1 else logits
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    probs = probabilities(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    probs = probs / probs.sum(-1, keepdim=True)
    torch.testing.assert_close(probs, expected.softmax(-1))


def test_wide_nucleus_is_exact():
    flat = torch.zeros(3, 1000)
    flat[1] = torch.linspace(0, 3, 1000)
    flat[2, 17] = 50.0
    kept = (probabilities(flat, Sampling(temperature=1.0, top_p=0.5)) > 0).sum(-1)
    by_hand = flat[1].double().softmax(-1).sort(descending=True).values
    assert kept[0] == 1000  # ties with the last one kept are kept
    assert kept[1] == 1 + int((by_hand.cumsum(-1) < 0.5).sum())
    assert kept[2] == 1


@pytest.mark.parametrize("vocabulary", [5, 64, 65, 1024, 38_400, 40_001])
@pytest.mark.parametrize("options", [(0.4, 0.95), (1.0, 0.95), (0.8, 0.5), (1.0, 1.0), (1.0, 0.95, 50), (1.0, 1.0, 3)])
def test_the_same_token_is_drawn_as_by_the_whole_distribution(vocabulary, options):
    """Bit for bit, for nuclei of a few tokens and of thousands, with ties at their edge, and numbers at the ends of [0, 1)."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(24, vocabulary, generator=generator) * torch.linspace(0.5, 12, 24)[:, None]
    logits[3] = 0
    logits[4, 1::2] = -torch.inf
    logits[5] = logits[5].round()
    logits[6] = logits[6].bfloat16()
    logits[7] = -20.0
    logits[7, : min(100, vocabulary)] = 1  # more ties than candidates are looked at
    numbers = torch.rand(24, dtype=torch.float64, generator=generator)
    sampling = Sampling(*options[:2], top_k=(*options, 0)[2])
    for uniform in (numbers, torch.zeros_like(numbers), torch.full_like(numbers, 1 - 2.0**-53), numbers.flip(0)):
        assert torch.equal(choose(logits, sampling, uniform), draw(probabilities(logits, sampling), uniform))


def test_a_peaked_distribution_is_sampled_without_a_sort_of_the_vocabulary(monkeypatch):
    """The test above would pass if every row took the slow way."""
    logits = torch.full((5, 151_936), -10.0)
    logits[:, 1000:1040] = 5
    monkeypatch.setattr("cptlab.decoding.sampling._nucleus", None)
    assert set(choose(logits, Sampling(1.0, 0.95), torch.linspace(0, 0.99, 5).double()).tolist()) <= set(
        range(1000, 1040)
    )


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0), Sampling(0.7, 0.8), Sampling(1.3, 0.9, top_k=4)])
def test_sampled_frequencies_agree_with_the_distribution(sampling):
    """Pearson's statistic of 20,000 draws, through `choose` and the engine's own numbers."""
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, 1.5, -torch.inf, 0.2]])
    draws = 20_000
    numbers = torch.from_numpy(np.stack([uniforms(3, "task", sample, 20) for sample in range(draws // 20)])).flatten()
    tokens = choose(logits.expand(draws, -1), sampling, numbers)
    probs = probabilities(logits, sampling)[0].double()
    expected = draws * probs / probs.sum()
    seen = torch.bincount(tokens, minlength=len(expected)).double()
    possible = expected > 0
    assert seen[~possible].sum() == 0
    statistic = ((seen - expected)[possible] ** 2 / expected[possible]).sum()
    assert statistic < 24.3  # 99.9% point of chi-square with 7 degrees of freedom


def test_draw_never_gives_an_impossible_token():
    probs = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]]).expand(4, -1)
    numbers = torch.tensor([0.0, 0.3 - 1e-6, 0.3 + 1e-6, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(probs, numbers).tolist() == [1, 1, 3, 3]


def test_greedy_needs_no_numbers():
    assert choose(torch.tensor([[0.0, 2.0, 1.0]]), Sampling(temperature=0), None).tolist() == [1]


def test_uniforms_are_pinned_and_independent():
    """The first numbers are written out: a change of numpy or of the key would silently change every result."""
    np.testing.assert_array_equal(uniforms(0, "kata/1", 0, 3), PINNED)
    long = uniforms(0, "kata/1", 0, 300)
    np.testing.assert_array_equal(long[:3], PINNED)
    others = [uniforms(1, "kata/1", 0, 300), uniforms(0, "kata/2", 0, 300), uniforms(0, "kata/1", 1, 300)]
    for other in others:
        assert not np.intersect1d(long, other).size
        assert abs(np.corrcoef(long, other)[0, 1]) < 0.2
    many = np.concatenate([uniforms(5, f"task {i}", i, 100) for i in range(200)])
    assert many.min() >= 0 and many.max() < 1
    counts = np.histogram(many, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # 99.9%, 19 degrees of freedom


PINNED = [0.6533231132764837, 0.5991384134957001, 0.6435047998204102]


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1}]
    + [{"max_new_tokens": 0}, {"stop": "\n"}, {"stop": ["x", ""]}],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError):
        Sampling(**options)
