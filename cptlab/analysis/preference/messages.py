"""Which pylint messages the programs of a pair carry, and on which tokens."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cptlab.pairs import token_lines
from cptlab.records import Pair, Quality

Score = Callable[[Sequence[str]], Sequence[Quality]]


@dataclass(frozen=True)
class PairMessages:
    """Of a pair: the messages that its worse program has more often than the better one, and the places of the worse
    program's tokens on lines with a message: by message, and under `all` on any such line."""

    more: frozenset[str]
    tokens: dict[str, list[int]]


def pair_messages(
    pairs: Sequence[Pair], encode: Callable[[str], Sequence[int]], decode: Callable[[list[int]], str], score: Score
) -> list[PairMessages]:
    """Return the messages of each pair. `score` gives the quality of programs."""
    codes = [_code(pair) for pair in pairs]
    programs = [code + text for pair, code in zip(pairs, codes, strict=True) for text in (pair.better, pair.worse)]
    qualities = score(programs)
    found = []
    for place, (pair, code) in enumerate(zip(pairs, codes, strict=True)):
        before = code.count("\n")
        better, worse = (
            [(message.id, message.line - 1 - before) for message in one.messages]  # the completion's line, from 0
            for one in qualities[2 * place : 2 * place + 2]
        )
        more = Counter(name for name, _ in worse) - Counter(name for name, _ in better)
        lines = token_lines(encode(pair.worse), decode)
        tokens: dict[str, list[int]] = {}
        for name in dict.fromkeys(name for name, _ in worse):
            of = {line for one, line in worse if one == name}
            tokens[name] = [token for token, line in enumerate(lines) if line in of]
        tokens["all"] = sorted({token for some in tokens.values() for token in some})
        found.append(PairMessages(frozenset(more), tokens))
    return found


def _code(pair: Pair) -> str:
    """The end of the instruction that the programs go on from: the least of its last lines with which the worse one parses."""
    lines = pair.instruction.split("\n")
    for count in range(len(lines) + 1):
        code = "\n".join(lines[len(lines) - count :])
        try:
            ast.parse(code + pair.worse)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return code
    return ""
