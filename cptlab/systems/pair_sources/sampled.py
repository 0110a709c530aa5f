"""Pairs of the backbone's own programs: Algorithm 1 of CPT (IV-D)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cptlab import pairs
from cptlab.backbone import Backbone
from cptlab.backbone.embeddings import mean_embeddings
from cptlab.pairs import Choice, FilterCounts, SampledPairs
from cptlab.pairs.filters import written_program
from cptlab.records import Completion, Pair, Quality, Task, Verdict
from cptlab.systems.code_digest import folder_digest
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.pair_sources.variants import Fill, judge_variants, message_counts, same_verdict
from cptlab.systems.samples import SystemPrograms

Chosen = tuple[Task, Choice, list[Completion], list[Quality], list[Verdict]]


def sampled_pairs(
    recipe: SampledPairs, system: LoadedSystem, tasks: Sequence[Task], judge: Judge, fill: Fill
) -> tuple[list[Pair], dict[str, Any]]:
    """Return a pair of each task that has one, and `filters`: what each filter dropped. UserError where none is left."""
    backbone = system.policy.backbone
    programs = SystemPrograms(system, tasks, recipe.n, judge, recipe.seed)
    fill(programs)
    by_id = {task.id: task for task in tasks}
    counts, chosen = FilterCounts(), []
    for task_id, completions, qualities, verdicts in programs.by_task():
        task = dataclasses.replace(by_id[task_id], prompt=programs.prompts[task_id])
        embed = _embed(backbone, task, completions) if recipe.selection.prefer == "ches" else None
        choice, dropped = pairs.select_pair(task, completions, qualities, verdicts, recipe.selection, embed)
        counts += dropped
        if choice is not None:
            chosen.append((task, choice, completions, qualities, verdicts))
    facts: dict[str, Any] = {"filters": dataclasses.asdict(counts)}
    if recipe.align_names:
        chosen, facts["aligned_names"] = _with_aligned_names(recipe, chosen, judge)
    found = [
        pairs.make_pair(
            task, choice, completions, qualities, backbone.encode_completion, backbone.decode, refine=recipe.refine
        )
        for task, choice, completions, qualities, _ in chosen
    ]
    if not any(pair.split == "train" for pair in found):
        raise pairs.no_pairs_left(counts, recipe.selection)
    return found, facts


def _embed(backbone: Backbone, task: Task, completions: Sequence[Completion]) -> Callable[[Sequence[int]], np.ndarray]:
    def embed(places: Sequence[int]) -> np.ndarray:
        texts = [written_program(completions[place], task.prompt.code) or "" for place in places]
        return mean_embeddings(backbone, task.prompt.text, texts)

    return embed


def _with_aligned_names(
    recipe: SampledPairs, chosen: list[Chosen], judge: Judge
) -> tuple[list[Chosen], dict[str, int]]:
    """Rename the variables of the worse programs. A renamed one that is not judged like the original is not taken."""
    renamed = {}
    for task, choice, completions, _, _ in chosen:
        better, worse = completions[choice.better], completions[choice.worse]
        program = pairs.aligned_names(better.program, worse.program)
        if program != worse.program and program.startswith(task.prompt.code):
            old, new = (one.removeprefix(task.prompt.code) for one in (worse.program, program))
            renamed[task.id] = [dataclasses.replace(worse, program=program, raw=new + worse.raw[len(old) :])]
    work = {"names": folder_digest("pairs"), "programs": [one.program for (one,) in renamed.values()]}
    judged = judge_variants("renamed", renamed, [task for task, *_ in chosen], work, judge)
    found, taken = [], 0
    for task, choice, completions, qualities, verdicts in chosen:
        for completion, quality, verdict in judged[task.id]:
            place = choice.worse
            same = message_counts(quality) == message_counts(qualities[place])
            if same and same_verdict(verdict, verdicts[place]):
                completions, qualities, taken = list(completions), list(qualities), taken + 1
                completions[place], qualities[place] = completion, quality
        found.append((task, choice, completions, qualities, verdicts))
    return found, {"renamed": taken, "judged_otherwise": len(renamed) - taken}
