"""Agreement between people who judged the same things: Fleiss' kappa, and agreement with the majority.

`answers` is [things, people]: the category of each person's answer, counted from 0; ABSENT where a person gave none.
"""

from __future__ import annotations

import numpy as np

ABSENT = -1


def count_answers(answers: np.ndarray, categories: int) -> np.ndarray:
    """Return how many people gave each thing each category, [things, categories]."""
    return np.stack([(answers == category).sum(axis=1) for category in range(categories)], axis=1)


def majority(counts: np.ndarray) -> np.ndarray:
    """Return the category that most people gave each thing; ABSENT where several tie for it. `counts` as `count_answers`."""
    best = counts.max(axis=1)
    alone = (counts == best[:, None]).sum(axis=1) == 1
    return np.where(alone, counts.argmax(axis=1), ABSENT)


def agreement_with_majority(answers: np.ndarray, categories: int) -> np.ndarray:
    """Return for each person the share of their answers that are the majority's, [people]; nan for a person without any.

    The majority includes the person, as in CPT Table XI. Nobody agrees where there is none. Things that one person alone
    answered do not count.
    """
    chosen = majority(count_answers(answers, categories))[:, None]
    given = (answers != ABSENT) & ((answers != ABSENT).sum(axis=1) >= 2)[:, None]
    agreed = (answers == chosen) & given
    with np.errstate(invalid="ignore"):
        return agreed.sum(axis=0) / given.sum(axis=0)


def fleiss_kappa(counts: np.ndarray) -> float:
    """Return Fleiss' kappa (Fleiss 1971, eq. 1 to 7) of `counts`, [things, categories].

    Things with fewer than two answers say nothing and are left out. Where things have different numbers of answers, the
    share of a category is the mean of its shares (Gwet 2014, ch. 2.4); with equal numbers that is Fleiss' formula. It is
    nan where there is nothing to agree on: fewer than two answers to everything, or one category alone.
    """
    agreement, shares = _of_things(counts)
    if not len(agreement):
        return float("nan")
    return float(_kappa(agreement.mean(keepdims=True), shares.mean(axis=0, keepdims=True))[0])


def fleiss_kappa_ci(
    counts: np.ndarray, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval (low, high) of Fleiss' kappa over things; the people stay the same."""
    agreement, shares = _of_things(counts)
    things = len(agreement)
    if not things:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).multinomial(things, np.full(things, 1 / things), resamples) / things
    found = _kappa(drawn @ agreement, drawn @ shares)
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _of_things(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of pairs of people that agree, [things], and the share of each category, [things, categories]."""
    counts = np.asarray(counts, dtype=np.float64)
    counts = counts[counts.sum(axis=1) >= 2]
    people = counts.sum(axis=1)
    return (counts * (counts - 1)).sum(axis=1) / (people * (people - 1)), counts / people[:, None]


def _kappa(agreement: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return kappa from the mean agreement, [resamples], and the mean shares, [resamples, categories]."""
    chance = (shares**2).sum(axis=1)
    one_category = np.isclose(chance, 1.0)
    return np.where(one_category, np.nan, (agreement - chance) / np.where(one_category, 1.0, 1 - chance))
