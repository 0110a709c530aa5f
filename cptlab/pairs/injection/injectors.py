"""The injectors by the message that each brings about, and what they can do to a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cptlab.pairs.injection import control_flow, expressions, loops, names
from cptlab.pairs.injection.edits import Edit
from cptlab.pairs.injection.source import Source

MESSAGES = (
    *("C0121", "C0200", "C0209", "C0321", "C0325", "C1802"),
    *(
        "R0911",
        "R0912",
        "R1705",
        "R1710",
        "R1714",
        "R1719",
        "R1720",
        "R1723",
        "R1724",
        "R1728",
        "R1729",
        "R1734",
        "R1735",
    ),
    *("W0104", "W0612", "W0622"),
)
INJECTORS: dict[str, Callable[[Source], Iterator[list[Edit]]]] = {
    "C0121": expressions.singleton_comparison,
    "C0200": loops.use_enumerate,
    "C0209": expressions.use_f_string,
    "C0321": control_flow.multiple_statements,
    "C0325": expressions.superfluous_parens,
    "C1802": expressions.implicit_booleaness,
    "R0911": control_flow.too_many_returns,
    "R0912": control_flow.too_many_branches,
    "R1705": control_flow.no_else_return,
    "R1710": control_flow.inconsistent_return,
    "R1714": expressions.use_in,
    "R1719": expressions.simplifiable_condition,
    "R1720": control_flow.no_else_raise,
    "R1723": control_flow.no_else_break,
    "R1724": control_flow.no_else_continue,
    "R1728": expressions.sum_of_list,
    "R1729": expressions.search_of_list,
    "R1734": expressions.empty_list_call,
    "R1735": expressions.empty_dict_call,
    "W0104": names.pointless_statement,
    "W0612": names.unused_variable,
    "W0622": names.redefined_builtin,
}


def injections(program: str, message: str, start: int = 0) -> list[list[Edit]]:
    """Return the ways to bring about `message` in a program, each as edits at or behind character `start`.

    Empty where there is none, and for a program that does not parse. What pylint says of an edited program decides.
    """
    try:
        source = Source(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # of ast.parse
        return []
    found = INJECTORS[message](source)
    return [edits for edits in found if min(edit.start for edit in edits) >= start]
