"""What likelihoods of pairs come to: accuracy, margin and smell propensity, of all pairs and by pylint message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from cptlab.analysis.preference.likelihoods import Likelihoods
from cptlab.analysis.preference.messages import PairMessages
from cptlab.metrics.statistics import bootstrap_ci
from cptlab.reporting.layout import Table

ALL = "all"
METRICS = ("accuracy", "margin", "propensity")


def summarize(likelihoods: Sequence[Likelihoods], messages: Sequence[PairMessages]) -> dict[str, dict[str, Any]]:
    """Return by message, and under `all` of all pairs:

    - `pairs`: how many; by message those whose worse program has the message more often than the better one
    - `accuracy`: share of them whose better program has the higher mean log-probability per token, with `accuracy_ci`
    - `margin`: mean difference of the two, in nats per token, with `margin_ci`
    - `propensity`: mean log-probability of the worse programs' tokens on lines with the message (`all`: with any), in nats per
      token; None where there is no such token. The lower, the less the model tends to write them.
    """
    names = [ALL, *sorted({name for one in messages for name in one.more})]
    return {name: _of(name, likelihoods, messages) for name in names}


def _of(name: str, likelihoods: Sequence[Likelihoods], messages: Sequence[PairMessages]) -> dict[str, Any]:
    both = [(of, found) for of, found in zip(likelihoods, messages, strict=True) if name == ALL or name in found.more]
    margins = [fmean(better) - fmean(worse) for (better, worse), _ in both]
    right = [float(margin > 0) for margin in margins]
    carried = [worse[token] for (_, worse), found in both for token in found.tokens.get(name, ())]
    return {
        "pairs": len(both),
        "accuracy": fmean(right),
        "accuracy_ci": bootstrap_ci(right),
        "margin": fmean(margins),
        "margin_ci": bootstrap_ci(margins),
        "propensity": fmean(carried) if carried else None,
        "tokens": len(carried),
    }


def metrics(found: Mapping[str, Mapping[str, Any]], prefix: str) -> dict[str, float]:
    """Return the figures of all pairs as flat metrics: `<prefix>/accuracy`, …"""
    return {f"{prefix}/{name}": found[ALL][name] for name in METRICS if found[ALL][name] is not None}


def table(systems: Mapping[str, Mapping[str, Mapping[str, Any]]], about: str) -> Table:
    """Return the table: a row for all pairs and for each message, the systems side by side."""
    first = next(iter(systems.values()))
    order = sorted(first, key=lambda name: (name != ALL, -first[name]["pairs"], name))
    rows = [
        (name, str(first[name]["pairs"]), *(_cell(systems[system][name], one) for one in METRICS for system in systems))
        for name in order
    ]
    records = [
        {
            "message": name,
            "system": system,
            **{key: value for key, value in systems[system][name].items() if "_ci" not in key},
        }
        for name in order
        for system in systems
    ]
    return Table(
        "preference",
        f"Preference without generation: {about}",
        ("worse program has", "pairs", *(system for _ in METRICS for system in systems)),
        tuple(rows),
        tuple(records),
        groups=(
            ("", 1),
            ("accuracy, %", len(systems)),
            ("margin, nats/token", len(systems)),
            ("propensity, nats/token", len(systems)),
        ),
        note="accuracy, margin: the better program's mean log-probability per token against the worse one's. propensity: that of "
        "the worse program's tokens on lines with the message; the lower, the less the model tends to write them.",
    )


def _cell(found: Mapping[str, Any], metric: str) -> str:
    value = found[metric]
    if value is None:
        return "–"
    return f"{100 * value:.0f}" if metric == "accuracy" else f"{value:+.3f}" if metric == "margin" else f"{value:.2f}"
