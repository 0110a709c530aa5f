"""The curve of SPA Fig. 4: pass@1 and the pylint score against ω. Made from stored files alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cptlab.metrics.definitions import find_metric
from cptlab.reporting import layout, tables
from cptlab.reporting.layout import Table
from cptlab.reporting.omega_sweep import Figures, OmegaCurve


def curve_table(curve: OmegaCurve) -> Table:
    """One row a system and ω."""
    columns, rows, records = ["System", "ω"], [], []
    for metric in curve.metrics:
        points = "points " if find_metric(metric).family.percent else ""
        columns += [label(metric), f"{points}against ω = 1"]
    for system, by_omega in curve.values.items():
        for omega, found in by_omega.items():
            change = curve.changes.get(system, {}).get(omega, {})
            cells = []
            for metric in curve.metrics:
                there = omega != 1 and change.get(metric) is not None
                cells += [tables.with_interval(metric, found), tables.change(metric, change) if there else "–"]
                ends = (found[f"{metric}_ci"], change[f"{metric}_ci"] if there else (None, None))
                records.append({
                    "system": system, "omega": omega, "metric": metric, "tasks": found.get("tasks"),
                    "value": found[metric], "lo": ends[0][0], "hi": ends[0][1],
                    "change": change[metric] if there else None, "change_lo": ends[1][0], "change_hi": ends[1][1],
                })  # fmt: skip
            rows.append((system, f"{omega:g}", *cells))
    note = (
        f"{tables.INTERVALS} Changes are paired by task. The best of several ω is too good on the tasks that chose "
        "it: cptlab omega tunes ω on other tasks than it reports."
    )
    return Table("omega_curve", f"ω: {curve.about}", tuple(columns), tuple(rows), tuple(records), 2, note=note)


def test_table(curve: OmegaCurve) -> Table:
    """One row a system: its tuned ω against ω = 1 on tasks that did not choose it."""
    columns, rows, records = ["System", "Tuned ω", "Tasks"], [], []
    for metric in curve.metrics:
        columns += [f"{find_metric(metric).label}, ω = 1", "tuned ω", "change"]
    for system, found in curve.test.items():
        cells = [system, f"{found['omega']:g}", str(found["after"]["tasks"])]
        for metric in curve.metrics:
            cells += [tables.with_interval(metric, found[side]) for side in ("before", "after")]
            cells.append("–" if found["omega"] == 1 else tables.change(metric, found["change"]))
            for side in ("before", "after", "change"):
                ends = found[side][f"{metric}_ci"]
                records.append({"system": system, "omega": found["omega"], "tasks": found["after"]["tasks"],
                                "metric": metric, "side": side, "value": found[side][metric], "lo": ends[0], "hi": ends[1]})  # fmt: skip
        rows.append(tuple(cells))
    note = f"pass@k in percent. {tables.INTERVALS} Changes are paired by task."
    return Table(
        "omega_test",
        "Tuned ω on tasks that it was not tuned on",
        tuple(columns),
        tuple(rows),
        tuple(records),
        3,
        note=note,
    )


def sentences(curve: OmegaCurve) -> list[str]:
    """Say the best ω of each system, and whatever else a reader must know."""
    metric, out = curve.metrics[0], []
    for system, by_omega in curve.values.items() if not curve.test else ():  # a tuning says it with more care
        best = best_omega(by_omega, metric)
        change = curve.changes.get(system, {}).get(best, {})
        by = "" if best == 1 or not change else f", {tables.change(metric, change)} against ω = 1, paired by task"
        plain = " (the plain model)" if best == 1 else ""
        unit = "%" if find_metric(metric).family.percent else ""
        out.append(
            f"{system}: {find_metric(metric).label} is highest at ω = {best:g}{plain}: "
            f"{tables.value(metric, by_omega[best])}{unit}{by}."
        )
    if " on kata," in curve.about:
        out.append("kata is a synthetic benchmark: these figures say nothing about any other model or benchmark.")
    return out + curve.notes


def best_omega(by_omega: Mapping[float, Figures], metric: str) -> float:
    """Return the ω where the metric is highest; of equals the one nearest to 1."""
    return min(by_omega, key=lambda omega: (-round(by_omega[omega][metric], 12), abs(omega - 1)))


def label(metric: str) -> str:
    """'mean pylint score', 'pass@1 (%)'."""
    return tables.shown_label(find_metric(metric))


def curve_figure(curve: OmegaCurve) -> Any:
    """SPA Fig. 4: one panel a metric, one line a system, bands for the 95% intervals; ω = 1 dashed, the best ringed."""
    import matplotlib
    from matplotlib.figure import Figure

    from cptlab.reporting.figures import add_captions
    from cptlab.reporting.style import COLOURS, STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(curve.metrics), 4.0), layout="constrained")
        panels = figure.subplots(1, len(curve.metrics), squeeze=False)[0]
        for axes, metric in zip(panels, curve.metrics, strict=True):
            scale = find_metric(metric).family.scale
            axes.axvline(1, color="#888888", linewidth=1, linestyle="--", label="ω = 1, plain model")
            for i, (system, by_omega) in enumerate(curve.values.items()):
                colour, omegas = COLOURS[i % len(COLOURS)], list(by_omega)
                values = [scale * found[metric] for found in by_omega.values()]
                low, high = ([scale * found[f"{metric}_ci"][end] for found in by_omega.values()] for end in (0, 1))
                axes.fill_between(omegas, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(omegas, values, marker="os^D"[i % 4], color=colour, markersize=4, linewidth=1.6, label=system)
                if 1 in by_omega:
                    axes.axhline(scale * by_omega[1][metric], color=colour, linewidth=0.8, linestyle=":")
                best = best_omega(by_omega, metric)
                ring = {"facecolor": "none", "edgecolor": colour, "linewidth": 1.4, "zorder": 4}
                axes.scatter([best], [scale * by_omega[best][metric]], s=110, **ring)
                axes.annotate(
                    f"{best:g}",
                    (best, scale * by_omega[best][metric]),
                    (0, 9 if i % 2 else -9),
                    fontsize=8.5,
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if i % 2 else "top",
                    color=colour,
                )
            axes.set_title(label(metric))
            axes.set_xlabel("ω")
            axes.grid(True, axis="y")
        tasks = {found["tasks"] for by_omega in curve.values.values() for found in by_omega.values()}
        title = f"{curve.about}, {'/'.join(map(str, sorted(tasks)))} tasks"
        note = "bands: 95% bootstrap interval over tasks; dotted: level at ω = 1; ring: highest"
        add_captions(figure, title, note, panels[0])
    return figure


def print_curve(curve: OmegaCurve) -> None:
    """Print both tables, and the sentences."""
    print(layout.to_text(curve_table(curve)), *sentences(curve), sep="\n")
    if curve.test:
        print(f"\n{layout.to_text(test_table(curve))}")
