"""CPT Fig. 10: quality against correctness, one point a system or configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cptlab.metrics.definitions import QUALITY, find_metric
from cptlab.metrics.summary import Summary
from cptlab.reporting import tables
from cptlab.reporting.figures import add_captions
from cptlab.reporting.style import COLOURS, STYLE

FIRST_K = "pass@5"  # the smallest k of CPT's tables
MARKERS = "os^Dv<>PX*"


def correctness_of(metrics: Sequence[str]) -> str | None:
    """Return the pass@k of the figure: the smallest k of the paper, or the largest below it; None where there is none."""
    names = [name for name in metrics if name.startswith("pass@")]
    return FIRST_K if FIRST_K in names else names[-1] if names else None


def scores_of(metrics: Sequence[str]) -> list[str]:
    """Return the metrics of quality, the mean first."""
    return [name for name in metrics if find_metric(name).family == QUALITY]


def tradeoff_figure(
    levels: Mapping[str, Sized],
    summary: Mapping[str, Summary],
    metrics: Sequence[str],
    reference: str | None,
    title: str,
    note: str,
) -> Figure | None:
    """CPT Fig. 10: scores (rows) against pass@k, by difficulty (columns), with 95% intervals.

    `levels[difficulty]` are its tasks; of `metrics` those that the figure needs are drawn. The reference is ringed. None where a
    metric is missing.
    """
    correct = correctness_of(metrics)
    scores = scores_of(metrics)
    if correct is None or not scores:
        return None
    columns, rows = len(levels), len(scores)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 3.3 * columns, 0.9 + 3.0 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for line, metric in zip(grid, scores, strict=True):
            for axes, (level, tasks) in zip(line, levels.items(), strict=True):
                _points(axes, summary, level, correct, metric, reference)
                axes.set_title(f"{level} ({len(tasks)} tasks)")
                axes.set_xlabel(tables.shown_label(find_metric(correct)))
            line[0].set_ylabel(tables.shown_label(find_metric(metric)))
        add_captions(figure, title, f"{note}; ring: the reference; further up and right is better", grid[0][0])
    return figure


def tradeoff_text(levels: Mapping[str, Sized], summary: Mapping[str, Summary], metrics: Sequence[str]) -> str:
    """Say what is seen in the figure: the point of each configuration over all tasks."""
    correct, level = correctness_of(metrics), list(levels)[-1]
    assert correct is not None
    score = scores_of(metrics)[0]
    said = (
        f"{label} {tables.value(correct, found[level])}%, {tables.value(score, found[level])}"
        for label, found in summary.items()
    )
    return f"Scatter of {find_metric(correct).label} and {find_metric(score).label} with intervals. On {level}: {'; '.join(said)}."


def _points(axes: Axes, summary: Mapping[str, Summary], level: str, x: str, y: str, reference: str | None) -> None:
    for i, (label, levels) in enumerate(summary.items()):
        found = levels[level]
        if found[x] is None or found[y] is None:
            continue
        scale, colour = find_metric(x).family.scale, COLOURS[i % len(COLOURS)]
        place, height = scale * found[x], found[y]
        ends = (
            [[abs(scale * end - place)] for end in found[f"{x}_ci"]],
            [[abs(end - height)] for end in found[f"{y}_ci"]],
        )
        axes.errorbar(place, height, ends[1], ends[0], ecolor=colour, elinewidth=0.9, alpha=0.6, fmt="none")
        axes.plot(place, height, MARKERS[i % len(MARKERS)], color=colour, markersize=6, label=label)
        if label == reference:
            axes.scatter([place], [height], s=130, facecolor="none", edgecolor=colour, linewidth=1.4)
    axes.grid(True, axis="both")
