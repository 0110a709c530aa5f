"""Pairs of the backbone's own program and what a tool makes of it, such as `ruff --fix`.

A pair is kept if the tool raises the score by more than the gap and the tests say the same of both programs. Of a task's
programs the pair with the largest combined score (CPT eq. 14) is taken, as in Algorithm 1, those that pass a public test first.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cptlab import pairs
from cptlab.errors import UserError
from cptlab.pairs import Choice, RewrittenPairs, SelectionOptions
from cptlab.pairs.filters import FLOAT_NOISE, written_program
from cptlab.records import Completion, Pair, Quality, Task
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.pair_sources.variants import Fill, same_verdict
from cptlab.systems.samples import SystemPrograms


def rewritten_pairs(
    recipe: RewrittenPairs, system: LoadedSystem, tasks: Sequence[Task], judge: Judge, fill: Fill
) -> tuple[list[Pair], dict[str, Any]]:
    """Return a pair of each task that has one, and `rewritten`: how many programs were dropped, and why.

    Raises UserError where no training pair is left.
    """
    backbone = system.policy.backbone
    rewriting = dataclasses.replace(system, name=f"{system.name}, rewritten", post_processing=(recipe.rewriter,))
    own, rewritten = (SystemPrograms(one, tasks, recipe.n, judge, recipe.seed) for one in (system, rewriting))
    fill(own)
    rewritten.fill()  # of the same samples
    by_id = {task.id: task for task in tasks}
    counts = Counter(
        tasks=len(tasks), programs=recipe.n * len(tasks), unchanged=0, rearranged=0, small_gap=0, other_verdict=0
    )
    found = []
    for (task_id, *mine), (_, *theirs) in zip(own.by_task(), rewritten.by_task(), strict=True):
        task = dataclasses.replace(by_id[task_id], prompt=system.shown_prompt(by_id[task_id]))
        candidates: list[tuple[Choice, list[Completion], list[Quality]]] = []
        for worse, better in zip(zip(*mine, strict=True), zip(*theirs, strict=True), strict=True):
            after = _as_written(better[0], worse[0], task.prompt.code)
            gap = (better[1].score - worse[1].score) / 10
            if better[0].program == worse[0].program:
                counts["unchanged"] += 1
            elif after is None:
                counts["rearranged"] += 1
            elif gap <= recipe.min_gap + FLOAT_NOISE:
                counts["small_gap"] += 1
            elif not same_verdict(better[2], worse[2]):
                counts["other_verdict"] += 1
            else:
                programs = [after.program, worse[0].program]
                similarity = float(pairs.cosine_similarities(programs)[0, 1])
                passes = worse[2].public_passed > 0
                choice = Choice(0, 1, similarity, SelectionOptions().combined(gap, similarity), passes)
                candidates.append((choice, [after, worse[0]], [better[1], worse[1]]))
        if candidates:
            choice, both, qualities = max(candidates, key=lambda one: (one[0].both_pass_public, one[0].combined_score))
            found.append(pairs.make_pair(task, choice, both, qualities, backbone.encode_completion, backbone.decode))
    counts["selected"] = len(found)
    if not any(pair.split == "train" for pair in found):
        raise UserError(
            f"No pairs are left: of {counts['programs']} programs of {counts['tasks']} tasks {counts['unchanged']} are not "
            f"changed by {type(recipe.rewriter).__name__}, {counts['rearranged']} are not in one piece, "
            f"{counts['small_gap']} gain too little and {counts['other_verdict']} get another verdict. Take more tasks or "
            "programs, or lower pairs.min_gap."
        )
    return found, {"rewritten": dict(counts)}


def _as_written(rewritten: Completion, original: Completion, code: str) -> Completion | None:
    """Return the rewritten program as if the model had written it; None where that is not how either of them begins."""
    before = written_program(original, code)
    if before is None or (original.program.startswith(code) and not rewritten.program.startswith(code)):
        return None
    body = rewritten.program.removeprefix(code)
    return dataclasses.replace(rewritten, raw=body + original.raw[len(before) :])
