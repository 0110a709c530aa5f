"""The figures of an evaluation and of a training run, as SVG and PNG bytes that are equal each time.

Bars follow Comparative Prefix-Tuning's Fig. 7 (scores) and Fig. 8 (issues); for colours and fonts see
`cptlab.reporting.style`. matplotlib is used without pyplot, so no global state is touched.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator, MultipleLocator

from cptlab.metrics.definitions import Family, family_of, label_of
from cptlab.reporting.curves import EPOCH_PANELS, STEP_PANELS, Stage
from cptlab.reporting.evaluation import Evaluation
from cptlab.reporting.issues import Issue, best_programs, count_issues, ranked_issues, valid_programs
from cptlab.reporting.style import COLOURS, INK, MUTED, STYLE
from cptlab.reporting.tables import Results, family_title, metrics_of

WIDTH = 14.0  # inches, of all panels side by side
BAR, NARROW_BAR = 0.42, 0.3  # inches; the narrow one still has room for its number
LEGEND_KEY = 0.6  # inches of an entry of the legend, beside its text
BESIDE = 3  # systems whose legend fits beside the title


def render(figure: Figure) -> dict[str, bytes]:
    """Return the picture as {'svg': ..., 'png': ...}, without date or software version."""
    out = {}
    with matplotlib.rc_context(STYLE):
        for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
            figure.set_layout_engine("none")  # keep the layout found for the first
            out[kind] = buffer.getvalue()
    return out


def family_figure(evaluation: Evaluation, results: Results, family: Family) -> Figure:
    """CPT Fig. 7: the metrics of a family by difficulty, one bar a system, with intervals."""
    metrics, levels, systems = metrics_of(results, family), evaluation.levels, list(evaluation.systems)
    width, bars = 0.8 / len(systems), len(metrics) * len(systems)
    fitting = max(1, int(WIDTH / max(2.3, NARROW_BAR * bars)))
    rows = -(-len(levels) // fitting)
    columns = -(-len(levels) // rows)
    panel = max(2.3, min(BAR * bars, WIDTH / columns))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.8 + panel * columns, 0.6 + 3.4 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for axes, (level, tasks) in zip(panels, levels.items(), strict=False):
            for i, system in enumerate(systems):
                found = results[system][level]
                places = [j + (i - (len(systems) - 1) / 2) * width for j in range(len(metrics))]
                there = [j for j, metric in enumerate(metrics) if found[metric.name] is not None]
                places = [places[j] for j in there]
                values = [family.scale * found[metrics[j].name] for j in there]
                ends = [[family.scale * end for end in found[f"{metrics[j].name}_ci"]] for j in there]
                axes.bar(places, values, 0.94 * width, color=COLOURS[i % len(COLOURS)], label=system)
                below = [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)]
                above = [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]
                axes.errorbar(places, values, [below, above], fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
                for place, value, (_, high) in zip(places, values, ends, strict=True):
                    height = max(high, value) + 0.012 * family.top
                    axes.text(place, height, f"{value:.{family.digits - 1}f}", ha="center", va="bottom", fontsize=8)
            axes.set_title(f"{level} ({len(tasks)} tasks)")
            axes.set_xticks(range(len(metrics)), [metric.heading for metric in metrics])
            axes.tick_params(length=0)
            axes.set_ylim(0, 1.06 * family.top)
            axes.yaxis.set_major_locator(MultipleLocator(family.top / 5))
            axes.grid(True, axis="y")
        for axes in panels[len(levels) :]:
            axes.set_visible(False)
        for axes in panels[::columns]:
            unit = family_of(family, evaluation.scorer).unit
            axes.set_ylabel(f"{unit} (%)" if family.percent else unit)
        note = "bars: mean over tasks; whiskers: 95% bootstrap interval over tasks"
        add_captions(figure, family_title(evaluation, family), note, panels[0])
    return figure


def issues_figure(evaluation: Evaluation, per_task: int | None = None, limit: int = 12) -> Figure:
    """CPT Fig. 8: how often the most frequent issues occur, by system.

    Left over the programs that parse (those of the issues table), right, as in the paper, over the program with the
    highest score of each task. Both panels show the issues that are most frequent on the left.
    """
    every = {system: valid_programs(evaluation, system, per_task) for system in evaluation.systems}
    best = {system: best_programs(evaluation, system) for system in evaluation.systems}
    counted = [{system: count_issues(found) for system, found in group.items()} for group in (every, best)]
    issues = ranked_issues(counted[0])[:limit]
    with matplotlib.rc_context(STYLE):
        rows, height = max(len(issues), 2), max(0.42, 0.13 * len(evaluation.systems))
        figure = Figure(figsize=(10.5 if len(every) <= BESIDE else 12.5, 1.3 + height * rows), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        heads = ("programs that parse", "best program of each task")
        for axes, found, head in zip(panels, counted, heads, strict=True):
            issue_bars(axes, found, [code for code, _ in issues])
            axes.set_title(head)
        panels[0].set_yticks(range(len(issues)), [f"{code}  {symbol}" for code, symbol in issues])
        panels[0].set_ylim(rows - 0.5, -0.5)
        title = f"Most frequent {label_of(evaluation.scorer)} issues, {len(evaluation.tasks)} tasks, {evaluation.samples_per_task} per task"
        sizes = ", ".join(f"{len(found)} {system}" for system, found in every.items())
        add_captions(figure, title, f"bars: occurrences; programs that parse: {sizes}", panels[0])
    return figure


def issue_bars(axes: Axes, issues: Mapping[str, Mapping[str, Issue]], codes: Sequence[str]) -> None:
    """Draw a group of horizontal bars for each message of `codes`, with one bar for each system of `issues`."""
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
        add_captions(figure, "Training of the adapter", "optimiser step; dashed: the second stage begins")
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


def add_captions(figure: Figure, title: str, note: str, legend: Axes | None = None) -> None:
    """Set title and legend on top, and below a note on what is drawn. A narrow figure breaks their lines, and grows for the legend."""
    handles, labels = legend.get_legend_handles_labels() if legend is not None else ([], [])
    entries = [LEGEND_KEY + _inches(label, 10) for label in labels]
    width, height = figure.get_size_inches()
    beside = len(labels) <= BESIDE and _inches(title, 12, "bold") + sum(entries) < 0.96 * width
    column = 0.0 if beside else max(entries, default=0.0)
    if len(labels) <= BESIDE:
        width += column
    title, note = _broken(title, width - column, 12, "bold"), _broken(note, width, 8.5)
    figure.set_size_inches(width, height + 0.2 * (title.count("\n") + note.count("\n")))
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(note, fontsize=8.5, color=MUTED)
    if beside and labels:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    elif labels:
        figure.legend(handles, labels, loc="outside right upper")


def _inches(text: str, size: float, weight: str = "normal") -> float:
    return TextPath((0, 0), text, prop=FontProperties(size=size, weight=weight)).get_extents().width / 72


def _broken(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Return the text in lines that a figure of this width has room for."""
    fits = len(text) * 0.9 * width / _inches(text, size, weight)
    return "\n".join(textwrap.wrap(text, max(10, int(fits)))) if fits < len(text) else text
