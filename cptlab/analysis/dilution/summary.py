"""Average the shares of many programs over tasks, by token and over each program, with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cptlab.analysis.dilution.attention_share import DIGITS, Shares
from cptlab.reporting.layout import Table

SERIES = {  # series of Shares -> its name in a table
    "attention": "last-layer attention",
    "gradient": "gradient",
    "attention_summed": "attention, eq. 20",
    "attention_prefix": "on the prefix",
}
SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 300)  # tokens in the printed table, beside the last that half the tasks reach
RESAMPLES = 2000
Interval = dict[str, Any]  # mean, low, high


def uniform(shares: Shares) -> list[float]:
    """Return the share of the prompt if all tokens of the context counted the same. It falls as the context grows."""
    return [shares.prompt_tokens / (shares.prompt_tokens + i) for i in range(len(shares.tokens))]


def by_token(programs: Sequence[Shares]) -> dict[str, Any]:
    """Return {"token": [0, 1, …], "tasks": […], series: {"mean": […], "low": […], "high": […]}}.

    "tasks" counts the programs that have the token. Means are over these, so later entries are about longer programs.
    Intervals are percentile bootstrap over tasks, None where only one program is left.
    """
    length = max(len(program.tokens) for program in programs)
    there = np.array([[i < len(program.tokens) for i in range(length)] for program in programs], dtype=np.float64)
    drawn = _draws(len(programs))
    out: dict[str, Any] = {"token": list(range(length)), "tasks": [int(count) for count in there.sum(0)]}
    for name, rows in _series(programs).items():
        values = np.array([row + [0.0] * (length - len(row)) for row in rows])
        with np.errstate(invalid="ignore"):
            means = (drawn @ values) / (drawn @ there)
        low, high = np.nanquantile(means, (0.025, 0.975), axis=0)
        alone = there.sum(0) < 2
        out[name] = {
            "mean": [round(float(value), DIGITS) for value in values.sum(0) / there.sum(0)],
            "low": [None if one else round(float(value), DIGITS) for one, value in zip(alone, low, strict=True)],
            "high": [None if one else round(float(value), DIGITS) for one, value in zip(alone, high, strict=True)],
        }
    return out


def change(programs: Sequence[Shares]) -> dict[str, Any]:
    """Return the difference of the share between the second and the first half of each program, as means over tasks.

    Unlike the means by token, this compares each program with itself, so it does not matter which programs are long.
    Token 0 is left out (its share is 1 by definition), and so are programs with fewer than three tokens. `falls_in`
    counts the programs in which the share falls. `per_token` is the factor (geometric mean) by which the score of a
    prompt's token, relative to a generated one, changes between the halves. With 1, the share falls only because the
    context grows. Below 1, the model also turns away from the prompt.
    """
    long = [program for program in programs if len(program.tokens) >= 3]
    out: dict[str, Any] = {"tasks": len(long)}
    if not long:
        return out
    every = _series(long)
    even = [[_log_odds(share) for share in row] for row in every["uniform"]]
    for name, rows in every.items():
        changes = np.array([_halves(row) for row in rows])
        out[name] = _mean(changes)
        if name in ("attention", "attention_summed", "gradient"):
            out[name]["falls_in"] = int((changes < 0).sum())
            relative = [
                _halves([_log_odds(share) - base for share, base in zip(row, bases, strict=True)])
                for row, bases in zip(rows, even, strict=True)
            ]
            factor = _mean(np.array(relative))
            out[name]["per_token"] = {
                part: None if value is None else math.exp(value) for part, value in factor.items()
            }
    return out


def table(label: str, means: dict[str, Any]) -> Table:
    """Return the means at a few tokens as a table for the console."""
    half = max(i for i, tasks in zip(means["token"], means["tasks"], strict=True) if 2 * tasks >= means["tasks"][0])
    chosen = [i for i in sorted({*SHOWN, half}) if i < len(means["token"])]
    names = [name for name in (*SERIES, "uniform") if name in means]
    rows, records = [], []
    for i in chosen:
        cells = []
        for name in names:
            mean, low, high = (means[name][part][i] for part in ("mean", "low", "high"))
            sure = "" if low is None or name == "uniform" else f" [{100 * low:.1f}, {100 * high:.1f}]"
            cells.append(f"{100 * mean:.1f}{sure}")
        rows.append((str(i), str(means["tasks"][i]), *cells))
        records.append({"token": i, "tasks": means["tasks"][i]} | {name: means[name]["mean"][i] for name in names})
    return Table(
        "dilution",
        f"Share of attention on the prompt (%), {label}",
        ("token", "tasks", *(SERIES.get(name, name) for name in names)),
        tuple(rows),
        tuple(records),
        note="Mean over the tasks whose program has that token, with 95% interval. uniform: all tokens count the same.",
    )


def sentences(found: dict[str, Any]) -> list[str]:
    """Say the result of `change` in one sentence for each series."""
    out = []
    for name in ("attention", "gradient"):
        if name in found:
            of, factor = found[name], found[name]["per_token"]
            sure = "" if factor["low"] is None else f" [{factor['low']:.2f}, {factor['high']:.2f}]"
            out.append(
                f"{SERIES[name].capitalize()}: second half of a program against its first {_points(of)}, lower in "
                f"{of['falls_in']} of {found['tasks']} tasks; a prompt token's weight relative to a generated one's: "
                f"× {factor['mean']:.2f}{sure}."
            )
    return out


def _points(interval: Interval) -> str:
    mean, low, high = (interval[part] for part in ("mean", "low", "high"))
    sure = "" if low is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * mean:+.1f}{sure} points"


def _series(programs: Sequence[Shares]) -> dict[str, list[list[float]]]:
    """Return the series that were computed, and the uniform share, with a row for each program."""
    made = [name for name in SERIES if getattr(programs[0], name)]
    rows = {name: [list(getattr(program, name)) for program in programs] for name in made}
    return rows | {"uniform": [uniform(program) for program in programs]}


def _halves(row: Sequence[float]) -> float:
    """Return the mean of the second half minus that of the first, without token 0 and a middle one."""
    half = (len(row) - 1) // 2
    return float(np.mean(row[len(row) - half :]) - np.mean(row[1 : 1 + half]))


def _log_odds(share: float) -> float:
    share = min(max(share, 10.0**-DIGITS), 1 - 10.0**-DIGITS)  # stored shares may be 0 or 1
    return math.log(share / (1 - share))


def _mean(values: np.ndarray) -> Interval:
    low, high = np.quantile(_draws(len(values)) @ values / len(values), (0.025, 0.975))
    sure = len(values) > 1
    return {"mean": float(values.mean()), "low": float(low) if sure else None, "high": float(high) if sure else None}


def _draws(tasks: int) -> np.ndarray:
    """Return how often each task is in each bootstrap sample, [resamples, tasks], always the same draws."""
    return np.random.default_rng(0).multinomial(tasks, np.full(tasks, 1 / tasks), RESAMPLES).astype(np.float64)
