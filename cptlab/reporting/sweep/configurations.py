"""What tells the systems of many evaluations apart: the choices and overrides that differ, in as few words as possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cptlab.storage.run_directory import INCIDENTAL

SYSTEM = "system"
# what a record may hold that makes no other configuration: seeds are what is averaged over
SILENT = (*INCIDENTAL, "seed", "run", "runs", "experiment_name", "trainer", "hydra", "system", "device")
OF_EVALUATION = ("decoding", "benchmark")  # groups that the evaluation chooses, whatever the training run chose


@dataclass(frozen=True)
class Facts:
    """What was chosen of a system: group or setting -> value. `trained`: it has a training run. `label` is its name."""

    chosen: Mapping[str, str]
    trained: bool
    label: str = ""


def facts_of(system: str, record: Mapping[str, Any], training: Mapping[str, Any] | None) -> Facts:
    """Return what was chosen of a system, from the record of its evaluation and that of its training run."""
    groups = {SYSTEM: system, **_choices(record, OF_EVALUATION), **_overrides(record)}
    if training is not None:
        of_training = _choices(training, tuple(set(training.get("choices", {})) - {*OF_EVALUATION, "backbone"}))
        groups |= of_training | _overrides(training)
    if record.get("backbone"):
        groups["backbone"] = str(record["backbone"])
    return Facts({name: value for name, value in groups.items() if name.split(".")[0] not in SILENT or name in KEPT},
                 training is not None)  # fmt: skip


KEPT = (SYSTEM, "ablation")  # `ablation` is incidental to a run, as what it sets stands in the settings


def label_all(facts: Sequence[Facts]) -> list[Facts]:
    """Return the same with labels: of each kind, trained and untrained, what differs within it."""
    return [
        replace(one, label=_label(one, [other for other in facts if other.trained == one.trained])) for one in facts
    ]


def find_reference(facts: Sequence[Facts], defaults: Mapping[str, str]) -> str:
    """Return the label of the trained system that was made by the defaults alone; without one, the first label.

    `defaults` has the default file of each group; the default of any other setting is that nobody set it.
    """
    trained = [one for one in facts if one.trained]
    differing = _differing(trained)
    for one in trained:
        other_choices = (name for name in differing if name != SYSTEM and name in one.chosen)
        if all(one.chosen[name] == defaults.get(name) for name in other_choices):
            return one.label
    return facts[0].label


def _label(one: Facts, kin: Sequence[Facts]) -> str:
    differing = [name for name in _differing(kin) if name != SYSTEM]
    systems = {other.chosen[SYSTEM] for other in kin}
    words = [one.chosen[SYSTEM]] if len(systems) > 1 or not one.trained or not differing else []
    for name in differing:
        value = one.chosen.get(name, "default")
        alone = len(differing) == 1 and "." not in name and name in {key for other in kin for key in other.chosen}
        words.append(value if alone and not value.replace(".", "").isdigit() else f"{name}={value}")
    return ", ".join(words)


def _differing(facts: Sequence[Facts]) -> list[str]:
    names = dict.fromkeys(name for one in facts for name in one.chosen)
    return [name for name in names if len({one.chosen.get(name) for one in facts}) > 1]


def _choices(record: Mapping[str, Any], groups: Sequence[str]) -> dict[str, str]:
    found = record.get("choices") or {}
    return {group: str(found[group]) for group in sorted(groups) if isinstance(found.get(group), str)}


def _overrides(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that were typed, without groups: their choices have them."""
    settings = {}
    for text in record.get("overrides") or ():
        name, _, value = str(text).lstrip("+~").partition("=")
        if name not in (record.get("choices") or {}):
            settings[name] = value
    return settings
