"""The figures of an evaluation and of a training run, as SVG and PNG bytes that are equal each time.

Bars follow Comparative Prefix-Tuning's Fig. 7 (scores) and Fig. 8 (issues). Colours are Okabe and Ito's, told apart
with any colour vision and in grey. matplotlib is drawn to without pyplot, so no global state is touched.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from cptlab.reporting.curves import Stage
from cptlab.reporting.evaluation import Evaluation
from cptlab.reporting.tables import QUALITY, Issue, Results, best_samples, count_issues, pass_at, valid_samples

COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK, GRID = "#333333", "#E3E3E3"
STEP_PANELS = {
    "l_rank": "ranking loss (unweighted)",
    "l_lm": "LM loss (unweighted)",
    "l_kl": "KL loss (unweighted)",
    "l_nll": "NLL loss (second stage)",
}
EPOCH_PANELS = {  # measured on the validation split after each epoch
    "Δ log-likelihood, nats per token": {
        "val_delta_a_per_token": "better program",
        "val_delta_b_per_token": "worse program",
    },
    "share of validation pairs": {"val_accuracy": "better ranked higher", "val_fell_a": "better became less likely"},
    "KL to the backbone, nats per token": {"val_kl_masked": "differing tokens", "val_kl_unmasked": "equal tokens"},
    "gradient norm of each term": {"val_grad_l_rank": "ranking", "val_grad_l_lm": "LM", "val_grad_l_kl": "KL"},
}
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "cptlab",
}


def render(figure: Figure) -> dict[str, bytes]:
    """The picture as {'svg': ..., 'png': ...}, without date or software version."""
    out = {}
    with matplotlib.rc_context(STYLE):
        for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
            figure.set_layout_engine("none")  # keep the layout found for the first
            out[kind] = buffer.getvalue()
    return out


def quality_figure(evaluation: Evaluation, results: Results) -> Figure:
    """CPT Fig. 7: Mean, Max and Min pylint score by difficulty, one bar a system."""
    title = f"Pylint score of the generated programs ({evaluation.samples_per_task} per task)"
    return _grouped_bars(evaluation, results, QUALITY, title, "pylint score", scale=1, top=10)


def correctness_figure(evaluation: Evaluation, results: Results) -> Figure:
    """The pass rates of CPT Table III, drawn like Fig. 7."""
    title = f"Functional correctness of the generated programs ({evaluation.samples_per_task} per task)"
    return _grouped_bars(evaluation, results, pass_at(results), title, "pass@k (%)", scale=100, top=100)


def _grouped_bars(
    evaluation: Evaluation,
    results: Results,
    metrics: Mapping[str, str],
    title: str,
    label: str,
    scale: float,
    top: float,
) -> Figure:
    levels, systems = evaluation.levels, list(evaluation.systems)
    width = 0.8 / len(systems)
    panel = max(2.3, 0.42 * len(metrics) * len(systems))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.8 + panel * len(levels), 4.0), layout="constrained")
        panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
        for axes, (level, tasks) in zip(panels, levels.items(), strict=True):
            for i, system in enumerate(systems):
                places = [j + (i - (len(systems) - 1) / 2) * width for j in range(len(metrics))]
                values = [scale * results[system][level][metric] for metric in metrics]
                ends = [[scale * end for end in results[system][level][f"{metric}_ci"]] for metric in metrics]
                axes.bar(places, values, 0.94 * width, color=COLOURS[i % len(COLOURS)], label=system)
                below = [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)]
                above = [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]
                axes.errorbar(places, values, [below, above], fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
                for place, value, (_, high) in zip(places, values, ends, strict=True):
                    text = f"{value:.{1 if scale == 1 else 0}f}"
                    height = max(high, value) + 0.012 * top
                    axes.text(place, height, text, ha="center", va="bottom", fontsize=8)
            axes.set_title(f"{level} ({len(tasks)} tasks)")
            axes.set_xticks(range(len(metrics)), metrics.values())
            axes.tick_params(length=0)
            axes.set_ylim(0, 1.06 * top)
            axes.yaxis.set_major_locator(MultipleLocator(top / 5))
            axes.grid(True, axis="y")
        panels[0].set_ylabel(label)
        _captions(figure, title, "bars: mean over tasks; whiskers: 95% bootstrap interval over tasks", panels[0])
    return figure


def issues_figure(evaluation: Evaluation, per_task: int | None = None, limit: int = 12) -> Figure:
    """CPT Fig. 8: how often the most frequent pylint issues occur, by system.

    Left over the programs that parse (those of the issues table), right, as in the paper, over the program with the
    highest score of each task. Both panels show the issues that are most frequent on the left.
    """
    every = {system: valid_samples(evaluation, system, per_task) for system in evaluation.systems}
    best = {system: best_samples(evaluation, system) for system in evaluation.systems}
    counted = [{system: count_issues(samples) for system, samples in group.items()} for group in (every, best)]
    peaks: dict[str, int] = {}
    for issues in counted[0].values():
        for code, issue in issues.items():
            peaks[code] = max(peaks.get(code, 0), issue.count)
    codes = sorted(peaks, key=lambda code: (-peaks[code], code))[:limit]
    symbols = {code: issue.symbol for issues in counted[0].values() for code, issue in issues.items()}
    heads = [
        "programs that parse (" + ", ".join(f"{len(found)} {system}" for system, found in every.items()) + ")",
        f"best program of each task ({len(evaluation.tasks)} each)",
    ]
    with matplotlib.rc_context(STYLE):
        rows = max(len(codes), 2)
        figure = Figure(figsize=(10.5, 1.3 + 0.42 * rows), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for axes, issues, head in zip(panels, counted, heads, strict=True):
            _issue_bars(axes, issues, codes)
            axes.set_title(head)
        panels[0].set_yticks(range(len(codes)), [f"{code}  {symbols[code]}" for code in codes])
        panels[0].set_ylim(rows - 0.5, -0.5)
        title = f"Most frequent pylint issues, {len(evaluation.tasks)} tasks, {evaluation.samples_per_task} per task"
        _captions(figure, title, "bars: occurrences", panels[0])
    return figure


def _issue_bars(axes: Axes, issues: Mapping[str, Mapping[str, Issue]], codes: Sequence[str]) -> None:
    height = 0.8 / len(issues)
    for i, (system, found) in enumerate(issues.items()):
        places = [j + (i - (len(issues) - 1) / 2) * height for j in range(len(codes))]
        counts = [found[code].count if code in found else 0 for code in codes]
        bars = axes.barh(places, counts, 0.94 * height, color=COLOURS[i % len(COLOURS)], label=system)
        axes.bar_label(bars, padding=2, fontsize=8)
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")


def training_figure(stages: Sequence[Stage]) -> Figure:
    """Loss terms over optimiser steps (mean over a moving window), and the validation after each epoch.

    The second stage follows the first on the same axis, behind a dashed line.
    """
    steps = {
        head: {"": [point for stage in stages for point in stage.of_steps(name)]} for name, head in STEP_PANELS.items()
    }
    epochs = {
        head: {label: [p for s in stages for p in s.of_epochs(name)] for name, label in lines.items()}
        for head, lines in EPOCH_PANELS.items()
    }
    panels = [(head, {k: v for k, v in lines.items() if v}) for head, lines in (steps | epochs).items()]
    panels = [(head, lines) for head, lines in panels if lines]
    last = max(step for _, lines in panels for points in lines.values() for step, _ in points)
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * columns, 0.8 + 2.4 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for axes, (head, lines) in zip(grid, panels, strict=False):
            for colour, (label, points) in zip(("#0072B2", "#D55E00", "#009E73"), lines.items(), strict=False):
                _curve(axes, points, colour, label)
            for stage in stages[1:]:
                axes.axvline(stage.start, color="#888888", linewidth=1, linestyle="--")
            if any(lines):
                axes.legend(fontsize=8)
            values = [value for points in lines.values() for _, value in points]
            if min(values) >= 0:
                axes.set_ylim(0, 1.03 if head.startswith("share") else None)
            else:
                axes.axhline(0, color="#888888", linewidth=1)
            axes.set_title(head)
            axes.tick_params(labelbottom=True)
            axes.set_xlim(0, 1.02 * last)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.grid(True, axis="both")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        _captions(figure, "Training of the prefix", "optimiser step; dashed: the second stage begins")
    return figure


def _curve(axes: Axes, points: Sequence[tuple[float, float]], colour: str, label: str) -> None:
    steps, values = zip(*points, strict=True)
    if len(points) <= 40:
        axes.plot(steps, values, "o-", color=colour, markersize=3.5, linewidth=1.5, label=label)
        return
    half = max(1, len(points) // 40)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.6)
    axes.plot(steps, [sum(window) / len(window) for window in windows], color=colour, linewidth=1.5, label=label)


def _captions(figure: Figure, title: str, note: str, legend: Axes | None = None) -> None:
    """Title and legend on top, a note on what is drawn below."""
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(note, fontsize=8.5, color="#666666")
    if legend is not None:
        handles, labels = legend.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
