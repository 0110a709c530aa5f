"""Algorithm 1 as one step: pairs of the model's own programs, or ready-made ones."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cptlab import pairs
from cptlab.commands.shared.common import PAIRS_FILE, STATISTICS_FILE, TOO_LONG, build_judge, say, say_left_out
from cptlab.commands.shared.many_machines import make_a_part, make_programs, on_the_driver
from cptlab.errors import UserError
from cptlab.pairs import FilterCounts, ReadyPairs, SampledPairs
from cptlab.records import Pair, Task
from cptlab.settings.instantiate import instantiate
from cptlab.storage.atomic import write_json
from cptlab.storage.checksums import is_sound, set_unsound_aside, write_checksums
from cptlab.storage.damaged import usable_place
from cptlab.storage.digests import fingerprint
from cptlab.storage.locks import locked
from cptlab.systems.code_digest import judging_digest
from cptlab.systems.decoding import Decoding, build_decoding
from cptlab.tasks.benchmark import digest_of

if TYPE_CHECKING:
    from cptlab.systems.judge import Judge
    from cptlab.systems.samples import SystemPrograms

FILES = (PAIRS_FILE, STATISTICS_FILE)


def build_pairs(config: DictConfig, backbone: Any = None) -> Path:
    """Run Algorithm 1 on the tasks of splits train and validation; return the directory with pairs and statistics.

    The directory lies in the cache, named by all that the pairs depend on; a killed build goes on where it was. Raises
    UserError where no pair is left, with what each filter dropped. Ready-made pairs of `pairs.dataset` are read instead.
    """
    backbone = backbone or instantiate(on_the_driver(config, config.backbone), "backbone")
    recipe = instantiate(config.pairs, "pairs")
    if isinstance(recipe, ReadyPairs):
        return _ready_pairs(config, recipe, backbone)
    judge = build_judge(config)
    directory, tasks, decoding = _place(config, recipe, backbone, judge)
    with _making(directory) as directory:
        if is_sound(directory, FILES):
            say(f"Pairs: found in {directory}")
            return directory
        programs, left_out = _programs(recipe, backbone, judge, tasks, decoding)
        tasks = programs.chunks.tasks
        make_programs(config, programs, config.backbone, None)
        by_id = {task.id: task for task in tasks}
        counts, found = FilterCounts(), []
        for task_id, completions, qualities, verdicts in programs.by_task():
            task = dataclasses.replace(by_id[task_id], prompt=programs.prompts[task_id])
            choice, dropped = pairs.select_pair(task, completions, qualities, verdicts, recipe.selection)
            counts += dropped
            if choice is not None:
                found.append(
                    pairs.make_pair(
                        task,
                        choice,
                        completions,
                        qualities,
                        backbone.encode_completion,
                        backbone.decode,
                        refine=recipe.refine,
                    )
                )
        if not any(pair.split == "train" for pair in found):
            raise pairs.no_pairs_left(counts, recipe.selection)
        statistics = pairs.pair_statistics(found, backbone.encode_completion, backbone.decode)
        statistics |= {"filters": dataclasses.asdict(counts), "left_out": {TOO_LONG: left_out}}
        facts = {"engine": decoding.engine_facts(), "sandbox": judge.level, "scorer": judge.scorer.name}
        statistics |= facts
        _write(directory, found, statistics)
    say(f"Pairs: {len(found)} from {len(tasks)} tasks and {counts.samples} programs, in {directory}")
    return directory


def make_part_of_programs(config: DictConfig) -> None:
    """Make a shard of the programs that pairs are made of, or measure what all of them take; no pairs are made."""
    recipe = instantiate(config.pairs, "pairs")
    if isinstance(recipe, ReadyPairs):
        raise UserError(
            "These pairs are ready-made: no programs are made for them. Leave out shard, shards and estimate."
        )
    backbone, judge = instantiate(config.backbone, "backbone"), build_judge(config)
    _, tasks, decoding = _place(config, recipe, backbone, judge)
    make_a_part(config, _programs(recipe, backbone, judge, tasks, decoding)[0])


def _programs(
    recipe: SampledPairs, backbone: Any, judge: Judge, tasks: list[Task], decoding: Decoding
) -> tuple[SystemPrograms, list[str]]:
    """Return the programs that pairs are made of, and the ids of tasks that are too long for the context."""
    from cptlab.adapters import Policy
    from cptlab.systems.loading import LoadedSystem, leave_out_long
    from cptlab.systems.samples import SystemPrograms

    system = LoadedSystem("pairs", Policy(backbone), decoding)
    (fitting,), left_out = leave_out_long([system], tasks)
    say_left_out(left_out, len(tasks))
    return SystemPrograms(system, fitting, recipe.n, judge, recipe.seed), left_out


def pairs_to_train_on(config: DictConfig, backbone: Any) -> Path:
    """Return the file `data.pairs_file`, in this backbone's tokens, or that of the pairs which `build_pairs` gives."""
    if config.data.pairs_file is not None:
        return _given_pairs(config, backbone)
    return build_pairs(config, backbone) / PAIRS_FILE


def find_pairs(config: DictConfig, backbone: Any) -> Path | None:
    """Return the file that `pairs_to_train_on` gives; None where it would have to make programs first."""
    if config.data.pairs_file is not None:
        return _given_pairs(config, backbone)
    recipe = instantiate(config.pairs, "pairs")
    if isinstance(recipe, ReadyPairs):
        return _ready_pairs(config, recipe, backbone) / PAIRS_FILE
    directory = _place(config, recipe, backbone, build_judge(config))[0]
    return directory / PAIRS_FILE if is_sound(directory, FILES) else None


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


def _place(config: DictConfig, recipe: SampledPairs, backbone: Any, judge: Judge) -> tuple[Path, list[Task], Decoding]:
    """Return where the pairs of these settings are kept, the tasks, and how programs are sampled."""
    decoding = build_decoding(config.decoding)
    if decoding.guidance or decoding.steering or decoding.strategy or decoding.second_try:
        raise UserError(
            "Pairs are made of the model's plain samples, so this decoding is for evaluate.py. Use decoding=paper here."
        )
    benchmark = instantiate(config.benchmark, "benchmark")
    tasks = benchmark.split("train", recipe.train_tasks) + benchmark.split("validation", recipe.validation_tasks)
    work = {
        "pairs": dataclasses.asdict(recipe),
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
    recipe = instantiate(config.pairs, "pairs")
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
