"""The plan of a record: which commands a table of conf/experiment needs at a scale of conf/scale, one step each.

    conf/experiment/cpt_table_8.yaml                        conf/scale/kata.yaml
    title: CPT Table VIII: …                                seeds: [0, 1, 2]
    draw: correctness                                       train: benchmark=kata backbone=kata_lm
    against: ours                                           evaluate: benchmark=kata backbone=kata_lm
    rows:
      ours: {train: }                                       train, then evaluate system=[tuned], for every seed
      no_kl: {train: ablation=no_kl}
      base: {evaluate: "system=[base]"}

A row is one command that the table reads, with `train` or `grpo` before it where it needs a training run. ${name} in a label or in overrides stands
for each value that the scale gives that name, or for nothing that can be asked at that scale (null). A scale leaves out the rows that it
names under `without`. Equal steps of several tables are one step.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cptlab.errors import UserError
from cptlab.settings.config_source import config_directory
from cptlab.storage.digests import fingerprint

TRAININGS = ("train", "grpo")
COMMANDS = (*TRAININGS, "evaluate", "omega", "dilution")
TABLE_KEYS = {"defaults", "title", "draw", "against", "rows", "options"}
SCALE_KEYS = {"seeds", "values", "without", *COMMANDS}
TOLD = ("benchmark", "backbone", "ablation", "objective", "adapter", "system", "completions", "decoding.negative.spans")
VALUE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Step:
    """One command with its overrides. `needs`: the step whose run it is given."""

    command: str
    overrides: tuple[str, ...]
    needs: Step | None = None

    @property
    def name(self) -> str:
        """The place of its run below the directory of the record: readable, and another one for other settings."""
        earlier = self.needs.name if self.needs else None
        told = [_short(one) for one in (*(self.needs.overrides if self.needs else ()), *self.overrides)]
        words = "-".join(dict.fromkeys(word for word in told if word))
        return f"{self.command}/{words[:80].strip('-')}-{fingerprint([self.command, self.overrides, earlier])[:8]}"

    def arguments(self, record: Path) -> list[str]:
        """Return the command line, its run in the directory of the record."""
        found = [self.command, *self.overrides, "print_config=false", f"hydra.run.dir={record / self.name}"]
        if self.needs is not None:
            found.append(f"run={record / self.needs.name}")
        return found


@dataclass(frozen=True)
class Row:
    """A row of a table: its label, and the step that it reads for each seed."""

    label: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class PlannedTable:
    """A table or figure. `unasked` says why a scale cannot ask it; then there are no rows."""

    name: str
    title: str
    draw: str
    against: str | None
    options: Mapping[str, Any]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    unasked: str = ""

    def steps(self) -> list[Step]:
        """Return its steps, each once and after the one that it needs."""
        last = [step for row in self.rows for step in row.steps]
        return list(dict.fromkeys(one for step in last for one in (step.needs, step) if one is not None))


def table_names() -> list[str]:
    """Return the tables and figures of conf/experiment, in the order of the papers."""
    files = (config_directory() / "experiment").glob("*.yaml")
    names = [file.stem for file in files if "rows" in (found := _read(file)) or _is_like_a_table(found)]
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def plan(names: Sequence[str], scale: str, given: Sequence[str] = ()) -> list[PlannedTable]:
    """Plan the tables of these names at a scale. Raises UserError for a name or a setting that cannot be.

    `given` overrides the scale: `seeds=[0]`, a value (`second_backbone=[phi_2]`), a setting of one command
    (`evaluate.n=4`), or one of all of them (`backbone.path=DIR`).
    """
    known = table_names()
    for name in names:
        if name not in known:
            raise UserError(f"There is no table {name!r} in conf/experiment. Choose from {', '.join(known)}.")
    settings = _with_given(_scale(scale), given)
    return [_plan_table(name, _table(name), settings) for name in names or known]


def _scale(name: str) -> dict[str, Any]:
    folder = config_directory() / "scale"
    if not (folder / f"{name}.yaml").is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UserError(f"scale={name} cannot be: there is no such file in conf/scale. Choose from {there}.")
    found = _read(folder / f"{name}.yaml")
    _refuse_unknown(found, SCALE_KEYS, f"conf/scale/{name}.yaml")
    return {
        "seeds": found["seeds"],
        "values": dict(found.get("values") or {}),
        "without": found.get("without") or [],
        **{command: shlex.split(found.get(command) or "") for command in COMMANDS},
    }


def _with_given(scale: dict[str, Any], given: Sequence[str]) -> dict[str, Any]:
    for override in given:
        name, _, text = override.partition("=")
        command, _, rest = override.partition(".")
        if name == "seed" or name in {f"{one}.seed" for one in COMMANDS}:
            raise UserError(f"{override} cannot be: every step is run with the record's seeds. Set seeds=[{text}].")
        if name == "seeds":
            seeds = _yaml(override, text)
            scale["seeds"] = [seeds] if isinstance(seeds, int) else seeds
        elif name in scale["values"]:
            value = _yaml(override, text)
            scale["values"][name] = value = [value] if isinstance(value, str) else value
            if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
                raise UserError(f"{override} cannot be: it must be a list of names, or null.")
        elif command in COMMANDS and rest:
            scale[command] = [*scale[command], rest]
        else:
            for one in COMMANDS:
                scale[one] = [*scale[one], override]
    seeds = scale["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise UserError(f"seeds={seeds} cannot be: it must be a list of whole numbers of at least 0, such as [0,1,2].")
    return scale


def _yaml(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{override} is no YAML. Correct it, such as seeds=[0,1].") from None


def _table(name: str) -> dict[str, Any]:
    """Read a table; what it leaves out is as in the one that its `defaults` names."""
    file = config_directory() / "experiment" / f"{name}.yaml"
    found = _read(file)
    _refuse_unknown(found, TABLE_KEYS, f"conf/experiment/{name}.yaml")
    for like in found.pop("defaults", []):
        found = _table(like) | found
    return found


def _plan_table(name: str, table: Mapping[str, Any], scale: Mapping[str, Any]) -> PlannedTable:
    rows, missing = [], []
    for label, chain in table["rows"].items():
        for text, overrides, lacking in _with_values(label, chain, scale["values"], name):
            if lacking:
                missing.append(lacking)
            elif not any(text == out or text.endswith(f", {out}") for out in scale["without"]):
                steps = dict.fromkeys(_last_step(overrides, scale, seed) for seed in scale["seeds"])
                rows.append(Row(text, tuple(steps)))
    unasked = f"the scale names no {missing[0]}" if missing else ""
    return PlannedTable(
        name,
        table["title"],
        table["draw"],
        table.get("against"),
        table.get("options") or {},
        tuple(scale["seeds"]),
        () if missing else tuple(rows),
        unasked,
    )


def _with_values(
    label: str, chain: Mapping[str, str | None], values: Mapping[str, Any], table: str
) -> Iterator[tuple[str, dict[str, list[str]], str]]:
    """Yield label and chain for every combination of the values that they name; or the name that has none."""
    text = " ".join([label, *(str(one or "") for one in chain.values())])
    names = list(dict.fromkeys(VALUE.findall(text)))
    for name in names:
        if name not in values:
            raise UserError(f"conf/experiment/{table}.yaml has ${{{name}}}, which no scale declares. Correct the name.")
        if not values[name]:
            yield label, {}, name.replace("_", " ")
            return
    for chosen in itertools.product(*(values[name] for name in names)):
        by_name = dict(zip(names, chosen, strict=True))
        shown = VALUE.sub(lambda found: str(by_name[found[1]]).split()[0], label)  # noqa: B023
        filled = {c: VALUE.sub(lambda found: str(by_name[found[1]]), t or "") for c, t in chain.items()}  # noqa: B023
        yield shown, {command: shlex.split(text) for command, text in filled.items()}, ""


def _last_step(chain: Mapping[str, list[str]], scale: Mapping[str, Any], seed: int) -> Step:
    """Return the step that a table reads, with the one that it needs."""
    chain = dict(chain)
    if len(chain) == 1 and set(chain) <= set(TRAININGS):
        chain["evaluate"] = ["system=[tuned]"]
    needs = None
    for command, overrides in chain.items():
        none = ["run=null"] if needs is None and command not in TRAININGS else []
        needs = Step(command, _later_wins([*scale[command], *none, *overrides, f"seed={seed}"]), needs)
    assert needs is not None
    return needs


def _later_wins(overrides: Sequence[str]) -> tuple[str, ...]:
    """Drop an override that a later one of the same setting replaces, and the settings of a group's other file.

    ~name drops every earlier one of that name.
    """
    kept: dict[str, str] = {}
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        if kept.get(name) == override:
            continue  # in its place, so that a row which repeats the scale's own setting is the same step
        if name in kept:
            kept = {other: text for other, text in kept.items() if not other.startswith(f"{name}.")}
        kept.pop(name, None)
        if not override.startswith("~"):
            kept[name] = override
    return tuple(kept.values())


def _short(override: str) -> str:
    """Return what of an override a directory's name tells: 'no_kl', 'seed1'; nothing of paths and lists of numbers."""
    name, _, value = override.partition("=")
    if name == "seed":
        return f"seed{value}"
    return re.sub(r"[^\w.]+", "_", value).strip("_") if name in TOLD else ""


def _is_like_a_table(found: Mapping[str, Any]) -> bool:
    return "draw" in found or "title" in found


def _refuse_unknown(found: Mapping[str, Any], known: set[str], file: str) -> None:
    if unknown := sorted(set(found) - known):
        raise UserError(f"{file} has {unknown[0]}, which cannot be. Use {', '.join(sorted(known))}.")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no YAML ({error}). Correct it.") from None
    return found if isinstance(found, dict) else {}
