"""SPA's Fig. 2 (last-layer attention) and Fig. 3 (gradient): the share on the prompt by generated token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cptlab.reporting.style import COLOURS, STYLE

TITLES = {
    "attention": "Share of last-layer attention on the prompt",
    "gradient": "Share of gradient-based attention on the prompt",
}
FEW = 10  # a mean over fewer programs is drawn faintly


def dilution_figure(models: Mapping[str, Mapping[str, Any]], series: str, about: str) -> Figure:
    """Draw one line for each model. `models` maps a label to the result of `summary.by_token`, and `series` is one of
    `TITLES`. `about` names benchmark and decoding.

    The upper plot shows the mean share with its 95% interval, and dashed the share if all tokens of the context counted
    the same. The lower plot shows how many programs have the token.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        share, count = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        for i, (label, means) in enumerate(models.items()):
            colour = COLOURS[(i + 1) % len(COLOURS)]
            token, tasks = np.array(means["token"]), np.array(means["tasks"])
            mean, low, high = (np.array(means[series][part], dtype=float) for part in ("mean", "low", "high"))
            many = int((tasks >= min(FEW, tasks[0])).sum())
            share.fill_between(token[:many], low[:many], high[:many], color=colour, alpha=0.2, linewidth=0)
            share.plot(token[:many], mean[:many], color=colour, linewidth=1.8, label=label)
            share.plot(token[max(0, many - 1) :], mean[max(0, many - 1) :], color=colour, linewidth=0.9, alpha=0.45)
            share.plot(
                token[:many], means["uniform"]["mean"][:many], color=colour, linewidth=1.1, linestyle=(0, (4, 3))
            )
            count.step(token, tasks, where="mid", color=colour, linewidth=1.4)
        share.plot(
            [], [], color="#666666", linewidth=1.1, linestyle=(0, (4, 3)), label="if all tokens counted the same"
        )
        share.set_ylim(0, 1.02)
        share.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        share.set_ylabel("share on the prompt")
        share.grid(True, axis="both")
        count.set_ylim(bottom=0)
        count.set_yticks([0, max(means["tasks"][0] for means in models.values())])
        count.set_ylabel("tasks")
        count.set_xlabel("generated tokens in the context")
        count.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        count.set_xlim(left=0)
        count.grid(True, axis="both")
        figure.align_ylabels([share, count])
        figure.suptitle(TITLES[series], fontsize=12, fontweight="bold", x=0.01, ha="left")
        share.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=2, fontsize=9)
        note = f"{about}; mean over tasks, band: 95% bootstrap interval; faint: fewer than {FEW} tasks"
        figure.supxlabel(note, fontsize=8.5, color="#666666")
    return figure
