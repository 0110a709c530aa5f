"""The report of a curve over ω: tables, figure, and a page with the programs without and with guidance (SPA Fig. 5)."""

from __future__ import annotations

from pathlib import Path

from cptlab.records import Task
from cptlab.reporting import layout, tables
from cptlab.reporting.evaluation import Evaluation, read_system
from cptlab.reporting.omega_curve import best_omega, curve_figure, curve_table, label, sentences, test_table
from cptlab.reporting.omega_sweep import OmegaCurve
from cptlab.reporting.page import Picture, Programs, Section, render_page
from cptlab.storage.atomic import write_bytes, write_text
from cptlab.storage.jsonl import is_stored, read_jsonl


def make_omega_report(directory: Path, curve: OmegaCurve) -> Path:
    """Write omega_curve.html, .md, .csv, .svg and .png, of a tuning omega_test.csv too, to a directory; return the page."""
    from cptlab.reporting.figures import render

    table = curve_table(curve)
    text = layout.to_markdown(table) + "".join(f"\n{sentence}\n" for sentence in sentences(curve))
    if curve.test:
        text += f"\n{layout.to_markdown(test_table(curve))}"
        write_text(directory / "omega_test.csv", layout.to_csv(test_table(curve)))
    write_text(directory / "omega_curve.md", text + "\n![ω curve](omega_curve.png)\n")
    write_text(directory / "omega_curve.csv", layout.to_csv(table))
    drawn = render(curve_figure(curve))
    for kind, content in drawn.items():
        write_bytes(directory / f"omega_curve.{kind}", content)
    page = directory / "omega_curve.html"
    write_text(page, omega_page(curve, drawn["svg"]))
    return page


def omega_page(curve: OmegaCurve, svg: bytes) -> str:
    """Return the page, with the curve drawn in `svg`."""
    sections = [Section("Curve", [Picture(svg, alternative_text(curve)), curve_table(curve)])]
    sections += [Section("Tuned ω on other tasks", [test_table(curve)])] if curve.test else []
    evaluation = read_programs(curve)
    sections += [Section("Programs", [Programs(evaluation)])] if evaluation else []
    return render_page(f"ω: {curve.about}", sentences(curve), sections)


def alternative_text(curve: OmegaCurve) -> str:
    """Say of each metric and system where its line is highest, and what it is without guidance."""
    said = []
    for metric in curve.metrics:
        lines = []
        for system, by_omega in curve.values.items():
            best = best_omega(by_omega, metric)
            plain = f", {tables.value(metric, by_omega[1])} at ω = 1" if 1 in by_omega and best != 1 else ""
            lines.append(f"{system} at ω = {best:g} ({tables.value(metric, by_omega[best])}{plain})")
        said.append(f"{label(metric)} is highest for {', '.join(lines)}.")
    return f"Curves over ω, one line for each system, with bands for the 95% intervals. {' '.join(said)}"


def read_programs(curve: OmegaCurve) -> Evaluation | None:
    """Return the programs of each system at ω = 1 and at its tuned or best ω, as systems of one evaluation.

    None where the programs are not stored, as in tunings of earlier versions.
    """
    tasks = list(read_jsonl(curve.tasks, Task)) if curve.places and is_stored(curve.tasks) else []
    systems = {}
    for system, places in curve.places.items():
        tuned = curve.test[system]["omega"] if curve.test else best_omega(curve.values[system], curve.metrics[0])
        for omega in sorted({1.0, tuned} & places.keys(), key=lambda omega: omega != 1):
            if is_stored(places[omega] / "completions.jsonl"):
                systems[f"{system}, ω = {omega:g}"] = read_system(places[omega], tasks)
    shared = tuple(task for task in tasks if systems and all(found[task.id] for found in systems.values()))
    if not shared:
        return None
    systems = {name: {task.id: found[task.id] for task in shared} for name, found in systems.items()}
    return Evaluation(curve.tasks.parent, shared, systems, next(iter(systems)), {}, None, {}, "")
