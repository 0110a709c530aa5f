"""Pairs as one step: of the recipe that group `pairs` names, ready-made ones, or a mixture."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cptlab import pairs
from cptlab.commands.shared.common import (
    PAIRS_FILE,
    STATISTICS_FILE,
    TOO_LONG,
    build_judge,
    content_of,
    say,
    say_left_out,
)
from cptlab.commands.shared.many_machines import make_a_part, make_programs, on_the_driver
from cptlab.errors import UserError
from cptlab.pairs import InjectedPairs, MixedPairs, ReadyPairs, RewrittenPairs, SampledPairs, TaskPairs
from cptlab.records import Pair, Task
from cptlab.settings.instantiate import instantiate
from cptlab.storage.atomic import write_json
from cptlab.storage.checksums import is_sound, set_unsound_aside, write_checksums
from cptlab.storage.damaged import usable_place
from cptlab.storage.digests import fingerprint
from cptlab.storage.locks import locked
from cptlab.systems.code_digest import code_digest, folder_digest, judging_digest
from cptlab.systems.decoding import Decoding, build_decoding
from cptlab.tasks.benchmark import digest_of

if TYPE_CHECKING:
    from cptlab.systems.judge import Judge
    from cptlab.systems.loading import LoadedSystem

FILES = (PAIRS_FILE, STATISTICS_FILE)


def build_pairs(config: DictConfig, backbone: Any = None) -> Path:
    """Build the pairs of splits train and validation as group `pairs` says; return the directory with pairs and statistics.

    The directory lies in the cache, named by all that the pairs depend on; a killed build goes on where it was. Raises
    UserError where no pair is left, with what each filter dropped. Ready-made pairs of `pairs.dataset` are read instead.
    """
    backbone = backbone or instantiate(on_the_driver(config, config.backbone), "backbone")
    return _build(config, _recipe(config), backbone)


def _recipe(config: DictConfig) -> Any:
    # as Hydra would otherwise put the recipes of a mixture into a config of its own
    return instantiate(OmegaConf.create(content_of(config.pairs) | {"_convert_": "all"}), "pairs")


def _build(config: DictConfig, recipe: Any, backbone: Any) -> Path:
    if isinstance(recipe, ReadyPairs):
        return _ready_pairs(config, recipe, backbone)
    if isinstance(recipe, MixedPairs):
        return _mixed_pairs(config, recipe, backbone)
    from cptlab.systems.pair_sources.injected import injected_pairs
    from cptlab.systems.pair_sources.rewritten import rewritten_pairs
    from cptlab.systems.pair_sources.sampled import sampled_pairs

    sources = {SampledPairs: sampled_pairs, InjectedPairs: injected_pairs, RewrittenPairs: rewritten_pairs}
    judge = build_judge(config)
    directory, tasks, decoding = _place(config, recipe, backbone, judge)
    with _making(directory) as directory:
        if is_sound(directory, FILES):
            say(f"Pairs: found in {directory}")
            return directory
        system, tasks, left_out = _system(backbone, tasks, decoding)
        fill = functools.partial(make_programs, config, node=config.backbone, run=None)
        found, facts = sources[type(recipe)](recipe, system, tasks, judge, fill)
        statistics = pairs.pair_statistics(found, backbone.encode_completion, backbone.decode)
        statistics |= facts | {"left_out": {TOO_LONG: left_out}}
        statistics |= {"engine": decoding.engine_facts(), "sandbox": judge.level, "scorer": judge.scorer.name}
        _write(directory, found, statistics)
    say(f"Pairs: {len(found)} from {len(tasks)} tasks ({_counted(facts)}), in {directory}")
    return directory


def _counted(facts: dict[str, Any]) -> str:
    """The counts of a recipe in words."""
    counts = facts.get("filters", {}) and {"programs": facts["filters"]["samples"]}
    counts = counts or next(iter(facts.values()))
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if isinstance(value, int))


def make_part_of_programs(config: DictConfig) -> None:
    """Make a shard of the programs that pairs are made of, or measure what all of them take; no pairs are made."""
    recipe = _recipe(config)
    if isinstance(recipe, MixedPairs):
        raise UserError(
            "A mixture is of several recipes. Make the programs of each by itself, such as with pairs=kata."
        )
    if isinstance(recipe, ReadyPairs) or (isinstance(recipe, InjectedPairs) and recipe.source == "canonical"):
        raise UserError(
            "These pairs are ready-made: no programs are made for them. Leave out shard, shards and estimate."
        )
    from cptlab.systems.samples import SystemPrograms

    backbone, judge = instantiate(config.backbone, "backbone"), build_judge(config)
    _, tasks, decoding = _place(config, recipe, backbone, judge)
    system, tasks, _ = _system(backbone, tasks, decoding)
    make_a_part(config, SystemPrograms(system, tasks, recipe.n, judge, recipe.seed))


def _system(backbone: Any, tasks: list[Task], decoding: Decoding) -> tuple[LoadedSystem, list[Task], list[str]]:
    """Return what makes the programs, the tasks that fit into the context, and the ids of the others."""
    from cptlab.adapters import Policy
    from cptlab.systems.loading import LoadedSystem, leave_out_long

    system = LoadedSystem("pairs", Policy(backbone), decoding)
    (fitting,), left_out = leave_out_long([system], tasks)
    say_left_out(left_out, len(tasks))
    return system, fitting, left_out


def pairs_to_train_on(config: DictConfig, backbone: Any) -> Path:
    """Return the file `data.pairs_file`, in this backbone's tokens, or that of the pairs which `build_pairs` gives."""
    if config.data.pairs_file is not None:
        return _given_pairs(config, backbone)
    return build_pairs(config, backbone) / PAIRS_FILE


def find_pairs(config: DictConfig, backbone: Any) -> Path | None:
    """Return the file that `pairs_to_train_on` gives; None where it would have to make programs first."""
    if config.data.pairs_file is not None:
        return _given_pairs(config, backbone)
    directory = _find(config, _recipe(config), backbone)
    return None if directory is None else directory / PAIRS_FILE


def _find(config: DictConfig, recipe: Any, backbone: Any) -> Path | None:
    if isinstance(recipe, ReadyPairs):
        return _ready_pairs(config, recipe, backbone)
    if isinstance(recipe, MixedPairs):
        there = all(_find(config, part, backbone) is not None for part in recipe.parts.values())
        return _mixed_pairs(config, recipe, backbone) if there else None
    directory = _place(config, recipe, backbone, build_judge(config))[0]
    return directory if is_sound(directory, FILES) else None


def _mixed_pairs(config: DictConfig, recipe: MixedPairs, backbone: Any) -> Path:
    """Build the parts, and write the mixture of them as `build_pairs` leaves its own; return its directory."""
    parts = {name: pairs.read_pairs(_build(config, part, backbone) / PAIRS_FILE) for name, part in recipe.parts.items()}
    found = pairs.mixture(parts, recipe.shares, recipe.seed)
    taken = set(found)
    counts = {name: sum(pair in taken for pair in part) for name, part in parts.items()}
    directory = _keep(config, found, {"mixed": counts}, backbone)
    said = ", ".join(f"{count} {name} of {len(parts[name])}" for name, count in counts.items())
    say(f"Pairs: {len(found)} ({said}), in {directory}")
    return directory


@contextmanager
def _making(directory: Path) -> Iterator[Path]:
    """Hold the directory of the pairs, or this user's own beside it; damaged files are set aside. None is held to read."""
    if is_sound(directory, FILES):
        yield directory
        return
    directory = usable_place(directory)
    with locked(directory):
        set_unsound_aside(directory, FILES)
        yield directory


def _write(directory: Path, found: list[Pair], statistics: dict[str, Any]) -> None:
    pairs.write_pairs(directory / PAIRS_FILE, found)
    write_json(directory / STATISTICS_FILE, statistics)
    write_checksums(directory, FILES)


def _place(config: DictConfig, recipe: TaskPairs, backbone: Any, judge: Judge) -> tuple[Path, list[Task], Decoding]:
    """Return where the pairs of these settings are kept, the tasks, and how programs are sampled."""
    decoding = build_decoding(config.decoding)
    if decoding.guidance or decoding.steering or decoding.strategy or decoding.second_try:
        raise UserError(
            "Pairs are made of the model's plain samples, so this decoding is for evaluate.py. Use decoding=paper here."
        )
    benchmark = instantiate(config.benchmark, "benchmark")
    tasks = benchmark.split("train", recipe.train_tasks) + benchmark.split("validation", recipe.validation_tasks)
    rewriter = recipe.rewriter if isinstance(recipe, RewrittenPairs) else None
    work = {
        "pairs": dataclasses.asdict(recipe),
        "rewriter": None if rewriter is None else [repr(rewriter), code_digest(rewriter), rewriter.versions()],
        "code": [folder_digest("pairs"), folder_digest("systems/pair_sources")],
        "backbone": backbone.fingerprint,
        "template": backbone.prompt_form,
        "tasks": digest_of(tasks),
        "sampling": dataclasses.asdict(decoding.sampling),
        "seed": recipe.seed,
        "limits": OmegaConf.to_container(config.judge),
        **({"engine": decoding.engine_facts()} if decoding.engine == "vllm" else {}),
        "scorer": judge.scorer.identity(),
        "sandbox": judge.level,
        "judging": judging_digest(),
    }
    return Path(config.paths.cache) / "pairs" / fingerprint(work), tasks, decoding


def _given_pairs(config: DictConfig, backbone: Any) -> Path:
    """Return `data.pairs_file`, or where another tokenizer made it, a copy whose programs are cut and masked anew."""
    path = Path(config.data.pairs_file)
    found = pairs.read_pairs(path)
    if pairs.fit_tokenizer(found, backbone.encode_completion):
        return path
    recipe = _recipe(config)
    refine = recipe.refine if isinstance(recipe, SampledPairs) else "none"
    found = [pairs.mask_anew(pair, backbone.encode_completion, backbone.decode, refine=refine) for pair in found]
    directory = _keep(config, found, {}, backbone)
    say(
        f"Pairs: {path} was made with another tokenizer, so its {len(found)} pairs are cut and masked anew "
        f"(refine={refine}), in {directory}"
    )
    return directory / PAIRS_FILE


def _ready_pairs(config: DictConfig, recipe: ReadyPairs, backbone: Any) -> Path:
    """Write the pairs of a data set, in this backbone's tokens, as `build_pairs` leaves its own; return their directory."""

    found, counts = recipe.dataset(
        encode=backbone.encode_completion, max_tokens=backbone.context_length - recipe.reserved
    )
    directory = _keep(config, found, {"filters": counts}, backbone)
    said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    say(f"Pairs: {len(found)} ({said}), in {directory}")
    return directory


def _keep(config: DictConfig, found: list[Pair], facts: dict[str, Any], backbone: Any) -> Path:
    """Write pairs in this backbone's tokens as `build_pairs` leaves its own, with their statistics; return their directory."""
    content = hashlib.sha256(repr(found).encode()).hexdigest()
    directory = Path(config.paths.cache) / "pairs" / fingerprint({"ready": content})
    with _making(directory) as directory:
        if not is_sound(directory, FILES):
            statistics = pairs.pair_statistics(found, backbone.encode_completion, backbone.decode)
            _write(directory, found, statistics | facts)
    return directory
