"""What of the `decoding` configuration applies to a system: its second stream, its strategy and its ω."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.settings.instantiate import instantiate


def strategy_of(config: Any) -> Any:
    """Beams, AdaDec or another strategy, or None for one token after the other."""
    return instantiate(config.decoding.strategy, "decoding.strategy") if config.decoding.strategy else None


def guidance_of(config: Any, has_prefix: bool) -> Any:
    """The second stream that is configured, or None; with `decoding.omega=tuned`, its ω is yet to be found.

    `has_prefix`: whether any of the systems has one, which some second streams need.
    """
    if not config.decoding.guidance:
        return None
    tuned = {"omega": 2.0} if config.decoding.get("omega") == "tuned" else {}  # any but 1
    guidance = instantiate(config.decoding.guidance, "decoding.guidance", **tuned)
    if needs_prefix(guidance) and not has_prefix:
        raise UserError("This second stream is the prompt without the trained prefix, and run=null names no training run. "
                        "Give run=<directory>, or another decoding/negative.")
    return guidance


def needs_prefix(guidance: Any) -> bool:
    return guidance is not None and getattr(guidance.negative, "needs_prefix", False)


def guidances_of_systems(
    config: Any, backbone: Any, systems: dict[str, Any], benchmark: Any, tasks: Sequence[Task], sampling: Any,
    strategy: Any,
) -> dict[str, Any]:
    """Of each system (name -> Prefix or None), its guidance or None. UserError where none of the prompts has what it
    compares with, and where a tuned ω is asked for that is not stored or was tuned on these tasks."""
    from cptlab.analysis.omega import find_setting, stored_omega, with_omega
    from cptlab.systems.samples import prompt_of

    guidance = guidance_of(config, any(prefix is not None for prefix in systems.values()))
    prompts = [prompt_of(task, backbone) for task in tasks]
    found: dict[str, Any] = {}
    for system, prefix in systems.items():
        found[system] = None if needs_prefix(guidance) and prefix is None else guidance
        if strategy is not None:
            strategy.check(config.n, sampling, found[system])
        if found[system] is None:
            continue
        streams = (guidance.stream(backbone, prompt, prefix is not None) for prompt in prompts)
        if guidance.omega != 1 and all(stream is None for stream in streams):
            raise UserError(f"None of the {len(prompts)} prompts has what {guidance.negative} leaves out, so nothing would be "
                            "mixed. Choose other spans or another decoding/negative.")
        if config.decoding.get("omega") == "tuned":
            setting = find_setting(backbone, prefix, benchmark, guidance, sampling, strategy)
            found[system] = with_omega(guidance, stored_omega(Path(config.paths.cache), setting, tasks))
    return found


def described(guidances: dict[str, Any], strategy: Any) -> dict[str, Any]:
    """How each system was decoded, for metrics.json."""
    return {"strategy": None if strategy is None else repr(strategy), "guidance": {
        system: None if guidance is None else {
            field.name: value if field.name == "omega" else repr(value)
            for field in dataclasses.fields(guidance) for value in (getattr(guidance, field.name),)
        } for system, guidance in guidances.items()}}  # fmt: skip
