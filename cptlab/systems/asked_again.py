"""The prompts of a system with feedback (feedback.py): which programs are asked for again, and with which text."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from cptlab.decoding import positions_needed
from cptlab.records import Prompt, Task
from cptlab.systems.judged_programs import JudgedPrograms
from cptlab.systems.loading import LoadedSystem

SECOND_SEED = 1 << 33  # added to the seed of first answers


def second_prompts(
    system: LoadedSystem, first: JudgedPrograms, tasks: Mapping[str, Task]
) -> dict[tuple[str, int], Prompt]:
    """Return the prompt of every program that is asked for again, by task and sample.

    These are the programs with a message whose longer prompt fits the context.
    """
    backbone, feedback = system.policy.backbone, system.feedback
    assert feedback is not None
    found = {}
    for one, quality in zip(first.completions, first.qualities, strict=True):
        if not quality.messages or not one.program.strip():
            continue
        told = functools.partial(
            feedback.apply, program=one.program, messages=quality.messages, is_chat=backbone.chat is not None
        )
        prompt = system.shown_prompt(tasks[one.task_id], told)
        needed = positions_needed(
            backbone, prompt, system.decoding.sampling, prefix=system.policy.prefix, guidance=system.decoding.guidance
        )
        if needed <= backbone.context_length:
            found[one.task_id, one.sample] = prompt
    return found
