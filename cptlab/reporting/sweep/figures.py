"""CPT Fig. 10: quality against correctness, one point a configuration."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cptlab.metrics.definitions import CORRECTNESS, find_metric
from cptlab.metrics.summary import Summary
from cptlab.reporting import tables
from cptlab.reporting.figures import add_captions
from cptlab.reporting.style import COLOURS, STYLE
from cptlab.reporting.sweep.results import SweepResults
from cptlab.reporting.sweep.tables import metrics_of

QUALITY = ("pylint_mean", "pylint_min")
FIRST_K = "pass@5"  # the smallest k of CPT's tables
MARKERS = "os^Dv<>PX*"


def correctness_of(results: SweepResults) -> str | None:
    """Return the pass@k of the figure: the smallest k of the paper, or the largest below it; None where there is none."""
    names = [metric.name for metric in metrics_of(results, CORRECTNESS) if metric.name.startswith("pass@")]
    return FIRST_K if FIRST_K in names else names[-1] if names else None


def tradeoff_figure(results: SweepResults, summary: Mapping[str, Summary], reference: str) -> Figure | None:
    """CPT Fig. 10: mean and min pylint score (rows) against pass@k, by difficulty (columns), with 95% intervals.

    The reference is ringed. None where a metric is missing.
    """
    correct = correctness_of(results)
    quality = [name for name in QUALITY if name in results.metrics]
    if correct is None or not quality:
        return None
    columns, rows = len(results.levels), len(quality)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 3.3 * columns, 0.9 + 3.0 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for line, metric in zip(grid, quality, strict=True):
            for axes, (level, tasks) in zip(line, results.levels.items(), strict=True):
                _points(axes, summary, level, correct, metric, reference)
                axes.set_title(f"{level} ({len(tasks)} tasks)")
                axes.set_xlabel(tables.shown_label(find_metric(correct)))
            line[0].set_ylabel(tables.shown_label(find_metric(metric)))
        note = "whiskers: 95% interval over seeds and tasks; ring: the reference; further up and right is better"
        add_captions(figure, f"Quality against correctness, {results.about}", note, grid[0][0])
    return figure


def tradeoff_text(results: SweepResults, summary: Mapping[str, Summary]) -> str:
    """Say what is seen in the figure: the point of each configuration over all tasks."""
    correct, level = correctness_of(results), list(results.levels)[-1]
    assert correct is not None
    said = (
        f"{label} {tables.value(correct, found[level])}%, {tables.value(QUALITY[0], found[level])}"
        for label, found in summary.items()
    )
    return (
        f"Scatter of {find_metric(correct).label} and mean pylint score with intervals. On {level}: {'; '.join(said)}."
    )


def _points(axes: Axes, summary: Mapping[str, Summary], level: str, x: str, y: str, reference: str) -> None:
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
