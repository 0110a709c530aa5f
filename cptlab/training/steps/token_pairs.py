"""Pairs of programs in the tokens of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.records import Pair


@dataclass(frozen=True)
class Example:
    """A pair in tokens: the instruction, and (ids, mask) of the better and of the worse program, eos included."""

    instruction: list[int]
    better: tuple[list[int], list[int]]
    worse: tuple[list[int], list[int]]

    @property
    def length(self) -> int:
        """Tokens of the instruction and of the longer program."""
        return len(self.instruction) + max(len(self.better[0]), len(self.worse[0]))

    @cached_property
    def common(self) -> int:
        """How many tokens both programs begin with."""
        return common_length([self.better[0], self.worse[0]])


def common_length(programs: Sequence[Sequence[int]]) -> int:
    """How many tokens all of `programs` begin with."""
    count = 0
    for tokens in zip(*programs):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


def encode_pair(pair: Pair, backbone: Backbone, append_eos: bool) -> Example:
    """The tokens of a pair; the masks are the pair's own, and 0 on the end-of-text token.

    That token follows a program that ended by itself, not one that was cut off.
    """

    def program(text: str, mask: Sequence[int], finished: bool) -> tuple[list[int], list[int]]:
        ids = backbone.encode_completion(text)
        return (ids + [backbone.eos_id], [*mask, 0]) if append_eos and finished else (ids, list(mask))

    instruction = backbone.encode_prompt(pair.instruction)
    if not instruction:
        raise UserError(
            f"The pair of task {pair.task_id} has an empty instruction, so nothing predicts its first token. "
            "Leave that pair out."
        )
    return Example(
        instruction,
        program(pair.better, pair.better_mask, pair.better_finished),
        program(pair.worse, pair.worse_mask, pair.worse_finished),
    )
