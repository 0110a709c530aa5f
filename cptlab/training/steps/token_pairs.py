"""Pairs of programs in the tokens of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.records import Pair


@dataclass(frozen=True)
class TokenPair:
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


@dataclass(frozen=True)
class Lengths:
    """Tokens of a pair: the instruction P, the common beginning C of both programs, the rest of each, masked ones."""

    instruction: int
    common: int
    rest_a: int
    rest_b: int
    masked_a: int
    masked_b: int

    @classmethod
    def of(cls, pair: TokenPair) -> Lengths:
        """Count the tokens of a pair, end-of-text tokens included."""
        (better, better_mask), (worse, worse_mask) = pair.better, pair.worse
        common = pair.common
        return cls(
            len(pair.instruction), common, len(better) - common, len(worse) - common,
            sum(better_mask), sum(worse_mask),
        )  # fmt: skip

    @property
    def rows(self) -> tuple[int, int]:
        """Return the lengths T of both programs, instruction included."""
        before = self.instruction + self.common
        return before + self.rest_a, before + self.rest_b

    @property
    def packed(self) -> int:
        """S = P+C+R_a+R_b: tokens of the pair when what is shared occurs once."""
        return self.instruction + self.common + self.rest_a + self.rest_b

    @property
    def packed_row(self) -> int:
        """Tokens that a packed row really has: a program's last one predicts nothing and is left out of its branch."""
        branches = max(self.rest_a - 1, 0) + max(self.rest_b - 1, 0)
        ends_shared = self.rest_a == self.rest_b == 0 < self.common
        return self.instruction + self.common - ends_shared + branches

    @property
    def code(self) -> tuple[int, int]:
        """Code tokens of each program."""
        return self.common + self.rest_a, self.common + self.rest_b


def common_length(programs: Sequence[Sequence[int]]) -> int:
    """How many tokens all of `programs` begin with."""
    count = 0
    for tokens in zip(*programs):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


def encode_pair(pair: Pair, backbone: Backbone, append_eos: bool) -> TokenPair:
    """The tokens of a pair; the masks are the pair's own, and 0 on the closing line and the end-of-text token.

    These two follow a program that ended by itself, not one that was cut off.
    """
    ending = [backbone.eos_id] if append_eos and backbone.eos_id is not None else []
    ending = [*(backbone.encode_completion(pair.closing) if pair.closing else ()), *ending]

    def program(text: str, mask: Sequence[int], finished: bool) -> tuple[list[int], list[int]]:
        ids = backbone.encode_completion(text)
        return ([*ids, *ending], [*mask, *[0] * len(ending)]) if finished else (ids, list(mask))

    instruction = backbone.encode_prompt(pair.instruction)
    if not instruction:
        raise UserError(
            f"The pair of task {pair.task_id} has an empty instruction, so nothing predicts its first token. "
            "Leave that pair out."
        )
    return TokenPair(
        instruction,
        program(pair.better, pair.better_mask, pair.better_finished),
        program(pair.worse, pair.worse_mask, pair.worse_finished),
    )
