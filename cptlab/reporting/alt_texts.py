"""What is seen in each figure, in words: the alternative texts of the pictures in a page."""

from __future__ import annotations

from collections.abc import Sequence

from cptlab.metrics.definitions import Family, label_of
from cptlab.reporting.curves import EPOCH_PANELS, STEP_PANELS, Stage
from cptlab.reporting.evaluation import Evaluation
from cptlab.reporting.issues import count_issues, ranked_issues, valid_programs
from cptlab.reporting.tables import Results, family_title, metrics_of, value

NAMED = 3  # issues of which the text gives the counts


def of_family(evaluation: Evaluation, results: Results, family: Family) -> str:
    """Bars by difficulty and system; the numbers of all tasks, which the table beside it has for every difficulty."""
    metrics, (level, tasks) = metrics_of(results, family), list(evaluation.levels.items())[-1]
    said = []
    for system in evaluation.systems:
        found = results[system][level]
        said.append(f"{system} {', '.join(f'{metric.heading} {value(metric.name, found)}' for metric in metrics)}")
    return (
        f"Bar chart. {family_title(evaluation, family)}, one bar for each system, with 95% intervals, for the "
        f"difficulties {', '.join(evaluation.levels)}. On {level} ({len(tasks)} tasks): {'; '.join(said)}."
    )


def of_issues(evaluation: Evaluation, per_task: int | None = None) -> str:
    """Bars of the most frequent messages, and how often the first of them occur."""
    counted = {name: count_issues(valid_programs(evaluation, name, per_task)) for name in evaluation.systems}
    said = []
    for code, symbol in ranked_issues(counted)[:NAMED]:
        counts = (f"{name} {found[code].count if code in found else 0}" for name, found in counted.items())
        said.append(f"{code} {symbol}: {', '.join(counts)}")
    return (
        f"Bar chart of the most frequent {label_of(evaluation.scorer)} issues by system: occurrences in the programs that parse, and in the best "
        f"program of each task. {'; '.join(said) or 'There is none'}."
    )


def of_training(stages: Sequence[Stage]) -> str:
    """Curves over optimiser steps: the first and last value of each."""
    curves = {head: [point for stage in stages for point in stage.of_steps(name)] for name, head in STEP_PANELS.items()}
    for head, lines in EPOCH_PANELS.items():
        for name, label in lines.items():
            curves[f"{head}, {label}"] = [point for stage in stages for point in stage.of_epochs(name)]
    said = (f"{head} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for head, points in curves.items() if points)
    return f"Curves of the training over optimiser steps: {'; '.join(said)}."
