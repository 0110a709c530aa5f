"""A sweep over ω, or a tuning of ω, read back from its stored runs as a curve. Needs no model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from cptlab.errors import UserError
from cptlab.metrics.definitions import PYLINT
from cptlab.metrics.summary import compare
from cptlab.reporting.evaluation import read_evaluation, system_names
from cptlab.storage.run_directory import CONFIG_FILE, INCIDENTAL, RUN_FILE

SWEEP = "Make them with `cptlab evaluate -m decoding=spa decoding.omega=1,1.1,1.2`."
GUIDANCE = "decoding.guidance"
FACTS = ("benchmark", "benchmark_fingerprint", "backbone", "backbone_fingerprint", "training_run", "split", "n", "seed")
TASKS = "tasks.jsonl"
FILES_OF_A_RUN = (RUN_FILE, CONFIG_FILE, "metrics.json", ".hydra")  # a report of the sweep has folders there, too
IGNORED = (*INCIDENTAL, "run")  # metrics.json names the training run that `run` stands for
Figures = Mapping[str, Any]  # metric -> value, <metric>_ci -> [low, high], tasks


@dataclass(frozen=True)
class OmegaCurve:
    """A curve over ω for each system.

    `values[system][ω]` are its metrics over all tasks; `changes[system][ω]` the same minus those at ω = 1, paired by task
    (empty if no run has ω = 1). `notes` say remarks for the reader. `test[system]` has a tuned ω, and the metrics
    on tasks that it was not tuned on. `places[system][ω]` is where programs are stored, for tasks of the file `tasks`.
    """

    metrics: tuple[str, ...]
    values: Mapping[str, Mapping[float, Figures]]
    changes: Mapping[str, Mapping[float, Figures]]
    about: str
    notes: list[str] = field(default_factory=list)
    test: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: Path = Path()
    places: Mapping[str, Mapping[float, Path]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Point:
    directory: Path
    omega: float
    config: dict[str, Any]  # flat; without ω and what changes no result
    metrics: dict[str, Any]
    plain: bool  # without guidance, which is ω = 1 of any


def read_curve(directories: Sequence[Path]) -> OmegaCurve:
    """Read the curve stored in the runs of a sweep, or in one run of `cptlab omega`.

    Runs of several backbones are a curve for each, if they are on the same tasks; their systems carry the backbone's
    name. Raises UserError if the runs of a backbone differ in anything but ω, or fewer than two of them are finished.
    """
    if len(directories) == 1 and (directories[0] / "omega.json").is_file():
        return _of_tuning(directories[0])
    notes: list[str] = []
    found: dict[str, list[_Point]] = {}
    for directory in directories:
        for run in _runs(directory):
            point = _read_point(run)
            if point is None:
                notes.append(f"Left out: {run} is unfinished. Run its command again, then this one.")
            else:
                found.setdefault(str(point.metrics.get("backbone")), []).append(point)
    for of_model in found.values():
        _refuse_other_differences(of_model)
    models = {name: {point.omega: point for point in of_model} for name, of_model in found.items()}
    for name, points in (models or {"": {}}).items():
        if len(points) < 2:
            of = f" of {name}" if len(models) > 1 else ""
            what = f"only one finished run{of} (ω = {min(points):g})" if points else "no finished run of a sweep over ω"
            left = "".join(f" {note}" for note in notes)
            raise UserError(f"{' and '.join(map(str, directories))} holds {what}. {SWEEP}{left}")
    curves = {name: _curve([points[omega] for omega in sorted(points)]) for name, points in models.items()}
    if len(curves) == 1:
        (curve,) = curves.values()
        return replace(curve, notes=[*notes, *curve.notes])
    _refuse_other_tasks({name: next(iter(points.values())) for name, points in models.items()})
    about = next(iter(curves.values())).about.partition(" on ")[2]
    values, changes = {}, {}
    for name, curve in curves.items():
        values |= {_of_model(system, name, curve): found for system, found in curve.values.items()}
        changes |= {_of_model(system, name, curve): found for system, found in curve.changes.items()}
        notes += [f"{name}: {note}" for note in curve.notes]
    metrics = next(iter(curves.values())).metrics
    return OmegaCurve(metrics, values, changes, f"{len(curves)} models on {about}", notes)


def _of_model(system: str, model: str, curve: OmegaCurve) -> str:
    """Return the model's name for its only system, and 'system of model' where it has several."""
    return model if len(curve.values) == 1 else f"{system} of {model}"


def _curve(ordered: Sequence[_Point]) -> OmegaCurve:
    """Return the curve of one backbone, whose points are in the order of ω."""
    values, notes = _values(ordered), []
    if not any(point.omega == 1 for point in ordered):
        notes.append(
            "No run has ω = 1, so there is no change against the plain model. Add one, or the folder of an "
            "equal run without guidance."
        )
    commits = {json.dumps(point.metrics.get("git")) for point in ordered}
    if len(commits) > 1:
        notes.append(f"The runs were made at {len(commits)} states of the code.")
    facts = ordered[0].metrics
    about = f"{facts.get('backbone')} on {facts.get('benchmark')}, split {facts.get('split')}, n = {facts.get('n')}"
    places = {system: {point.omega: point.directory / system for point in ordered} for system in values}
    tasks = ordered[0].directory / TASKS
    return OmegaCurve(_drawn(facts), values, _changes(ordered), about, notes, tasks=tasks, places=places)


def _refuse_other_tasks(models: Mapping[str, _Point]) -> None:
    """Raise UserError where two models were evaluated on other tasks, or with other numbers of programs."""
    (first, one), *others = models.items()
    for name, other in others:
        for fact in ("benchmark", "benchmark_fingerprint", "split", "n"):
            if one.metrics.get(fact) != other.metrics.get(fact):
                raise UserError(
                    f"The curves cannot stand in one figure: {fact} is {one.metrics.get(fact)} for {first} and "
                    f"{other.metrics.get(fact)} for {name}. Give sweeps on the same tasks."
                )


def _runs(directory: Path) -> list[Path]:
    """Return the evaluations in a directory, or the directory itself if it is one."""
    if not directory.is_dir():
        raise UserError(f"There is no directory {directory}. Give the folder of a sweep. {SWEEP}")
    if (directory / CONFIG_FILE).is_file() or (directory / RUN_FILE).is_file():
        return [directory]
    found = [child for child in directory.iterdir() if any((child / name).exists() for name in FILES_OF_A_RUN)]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _read_point(run: Path) -> _Point | None:
    """Read one evaluation; None if it did not finish."""
    marker, metrics, config = (run / name for name in (RUN_FILE, "metrics.json", CONFIG_FILE))
    if not (metrics.is_file() and config.is_file()):
        return None
    try:
        if marker.is_file() and not json.loads(marker.read_text(encoding="utf-8")).get("finished"):
            return None
        facts = json.loads(metrics.read_text(encoding="utf-8"))
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        decoding = settings.get("decoding") or {}
        plain = decoding.get("guidance", "") is None
        omega = 1 if plain else decoding.get("omega")
        facts["results"].items()
    except (ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{run} cannot be read as an evaluation run ({error!r}). Remake it. {SWEEP}") from None
    if isinstance(omega, bool) or not isinstance(omega, (int, float)) or not math.isfinite(omega):
        said = "has no decoding.omega" if omega is None else f"has decoding.omega={omega}, which is no number"
        raise UserError(f"{run} {said}, so it has no place on the curve. {SWEEP}")
    flat = {name: value for name, value in _flat(settings) if name.split(".")[0] not in IGNORED}
    for name in ("decoding.omega", f"{GUIDANCE}.omega"):
        flat.pop(name, None)
    return _Point(run, float(omega), flat, facts, plain)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _refuse_other_differences(points: Sequence[_Point]) -> None:
    """Raise UserError for the first setting, or fact of the result, that differs between runs."""
    first = next((point for point in points if not point.plain), points[0])
    for other in points:
        facts = [{name: point.metrics.get(name) for name in FACTS} for point in (first, other)]
        one, two = first.config | facts[0], other.config | facts[1]
        for name in sorted(one.keys() | two.keys()):
            if other.plain and (name.startswith(GUIDANCE) or (name.startswith("decoding.") and name not in two)):
                continue
            if one.get(name) != two.get(name):
                raise UserError(
                    f"The runs differ in more than ω: {name} is {one.get(name)} in {first.directory} and "
                    f"{two.get(name)} in {other.directory}. Give only runs that are equal but for decoding.omega."
                )


def _drawn(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the metrics of the curve of an evaluation with this metrics.json."""
    return ("pass@1", f"{(facts.get('scorer') or {}).get('name', PYLINT)}_mean")


def _values(points: Sequence[_Point]) -> dict[str, dict[float, Figures]]:
    shared = set.intersection(*(set(point.metrics["results"]) for point in points))
    systems = [name for name in system_names(points[0].directory, points[0].metrics) if name in shared]
    values: dict[str, dict[float, Figures]] = {system: {} for system in systems}
    for point in points:
        for system in systems:
            found = point.metrics["results"][system].get("all", {})
            drawn = _drawn(point.metrics)
            if any(found.get(metric) is None for metric in drawn):
                raise UserError(f"{point.directory} has no {' or no '.join(drawn)} of {system}. Evaluate with 1 in ks.")
            values[system][point.omega] = found
    return values


def _changes(points: Sequence[_Point]) -> dict[str, dict[float, Figures]]:
    """Compute the changes from the stored records, since a paired interval needs the metrics of each task."""
    plain = next((point for point in points if point.omega == 1), None)
    if plain is None:
        return {}
    first = read_evaluation(plain.directory)
    changes: dict[str, dict[float, Figures]] = {system: {} for system in first.systems}
    for point in points:
        if point is not plain:
            other = read_evaluation(point.directory)
            for system in first.systems.keys() & other.systems.keys():
                before, after = first.systems[system], other.systems[system]
                changes[system][point.omega] = compare(first.tasks, before, after, ks=[1])["all"]
    return changes


def _of_tuning(directory: Path) -> OmegaCurve:
    """Read what `cptlab omega` tried on its validation tasks, and the metrics on other tasks."""
    try:
        found = json.loads((directory / "omega.json").read_text(encoding="utf-8"))
        systems = found["systems"]
        values, changes = (
            {name: {float(omega): figures for omega, figures in one[what].items()} for name, one in systems.items()}
            for what in ("values", "changes")
        )
        notes = [sentence for one in systems.values() for sentence in one["sentences"]]
        return OmegaCurve(
            tuple(found["metrics"]),
            values,
            changes,
            found["about"],
            notes,
            {name: one["test"] | {"omega": one["omega"]} for name, one in systems.items()},
            directory / TASKS,
            {
                name: {omega: directory / name / f"omega_{omega:g}" for omega in (1.0, float(one["omega"]))}
                for name, one in systems.items()
            },
        )
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{directory / 'omega.json'} cannot be read ({error!r}). Remake it with `cptlab omega`."
        ) from None
