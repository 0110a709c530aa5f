"""Agreement between people: published examples, and plain loops over every pair of people."""

import itertools
import math

import numpy as np
import pytest

from cptlab.metrics.agreement import (
    ABSENT,
    agreement_with_majority,
    count_answers,
    fleiss_kappa,
    fleiss_kappa_ci,
    majority,
)

# Fourteen raters, ten subjects, five categories: Wikipedia, "Fleiss' kappa", worked example; kappa = 0.210
PUBLISHED = np.array([[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
                      [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]])  # fmt: skip
# Fleiss (1971), Psychological Bulletin 76, table 1: six raters, thirty patients, five diagnoses; kappa = 0.430
FLEISS_1971 = np.array([
    [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0],
    [0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0],
    [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0],
    [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0],
    [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
])  # fmt: skip


def by_pairs_of_people(answers: np.ndarray) -> float:
    """Kappa from every pair of people on every thing, in plain loops."""
    agreed, shares = [], []
    for thing in answers:
        given = [int(answer) for answer in thing if answer != ABSENT]
        if len(given) < 2:
            continue
        pairs = list(itertools.combinations(given, 2))
        agreed.append(sum(a == b for a, b in pairs) / len(pairs))
        shares.append({category: given.count(category) / len(given) for category in given})
    categories = {category for share in shares for category in share}
    chance = sum((sum(share.get(c, 0.0) for share in shares) / len(shares)) ** 2 for c in categories)
    return (sum(agreed) / len(agreed) - chance) / (1 - chance)


def test_published_examples():
    assert fleiss_kappa(PUBLISHED) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(FLEISS_1971) == pytest.approx(0.430, abs=5e-4)


@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_kappa_is_that_of_every_pair_of_people(absent):
    draw = np.random.default_rng(0)
    for people in (2, 3, 5):
        answers = draw.integers(0, 3, (25, people))
        answers[draw.random(answers.shape) < absent] = ABSENT
        assert fleiss_kappa(count_answers(answers, 3)) == pytest.approx(by_pairs_of_people(answers))


def test_kappa_at_its_ends():
    assert fleiss_kappa(np.array([[4, 0], [0, 4]])) == 1.0
    assert fleiss_kappa(np.array([[1, 1], [1, 1]])) == -1.0
    for nothing in (np.array([[3, 0], [3, 0]]), np.array([[1, 0], [0, 1]]), np.zeros((0, 3))):
        assert math.isnan(fleiss_kappa(nothing)) and all(map(math.isnan, fleiss_kappa_ci(nothing)))


def test_the_interval_of_kappa_holds_it_and_is_that_of_a_loop():
    low, high = fleiss_kappa_ci(FLEISS_1971)
    assert low < fleiss_kappa(FLEISS_1971) < high
    draw = np.random.default_rng(1)
    looped = [fleiss_kappa(FLEISS_1971[draw.integers(0, 30, 30)]) for _ in range(2000)]
    assert np.quantile(looped, [0.025, 0.975]) == pytest.approx([low, high], abs=0.02)
    assert fleiss_kappa_ci(FLEISS_1971) == (low, high)


def test_the_majority_is_the_answer_that_is_given_most():
    answers = np.array([[0, 0, 1], [0, 1, 2], [1, 1, ABSENT], [ABSENT, 2, ABSENT], [2, 2, 2]])
    counts = count_answers(answers, 3)
    assert counts.tolist() == [[2, 1, 0], [1, 1, 1], [0, 2, 0], [0, 0, 1], [0, 0, 3]]
    assert majority(counts).tolist() == [0, ABSENT, 1, 2, 2]
    # nobody agrees in the second, and the fourth has one answer alone
    assert agreement_with_majority(answers, 3) == pytest.approx([3 / 4, 3 / 4, 1 / 3])
    assert np.isnan(agreement_with_majority(np.array([[0, ABSENT]]), 3)).all()
