"""Idioms: how authors write operations on a whole value, as a loop or in a way that pylint remarks on."""

from __future__ import annotations

from collections.abc import Callable

from cptlab.kata.ops import Op
from cptlab.kata.writer import Writer


def write_whole(writer: Writer, op: Op, k: int | None) -> None:
    """Write an operation of the form `whole`: as its idiom if it has one, else as one assignment."""
    expr = op.expr.format(v=writer.value, k=k)
    idiom = IDIOMS.get(op.name)
    writer.value = writer.assign(op, expr) if idiom is None else idiom(writer, op, k, expr)


def distinct(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        return writer.assign(op, expr)
    out = writer.start(op.target)
    head, x = writer.loop()
    writer.write(head, *("    " + line for line in writer.branch(f"{x} not in {out}", "", f"{out}.append({x})")))
    return out


def gaps(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        return writer.assign(op, expr)
    value = writer.value
    out = writer.start(op.target)
    writer.write(f"for i in range(len({value}) - 1):", f"    {out}.append({value}[i + 1] - {value}[i])")
    return out


def lengths(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        return writer.assign(op, expr)
    out = writer.start(op.target)
    head, x = writer.loop()
    writer.write(head, f"    {out}.append(len({x}))")
    return out


def digits(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        return writer.assign(op, expr)
    out = writer.start(op.target)
    writer.write(f"for d in str(abs({writer.value})):", f"    {out}.append(int(d))")
    return out


def digit_sum(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        if writer.author.has("list_argument"):
            expr = f"sum([int(d) for d in str(abs({writer.value}))])"
        return writer.assign(op, expr)
    out = writer.target("int", in_loop=True)
    writer.write(f"{out} = 0", f"for d in str(abs({writer.value})):", f"    {out} += int(d)")
    return out


def letter_counts(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        return writer.assign(op, expr)
    out = writer.start(op.target)
    head, x = writer.loop()
    where = f"{out}.keys()" if writer.author.has("keys") else out
    writer.write(head, f"    if {x} in {where}:", f"        {out}[{x}] += 1", "    else:", f"        {out}[{x}] = 1")
    return out


def word_lengths(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        return writer.assign(op, expr)
    out = writer.start(op.target)
    head, x = writer.loop()
    writer.write(head, f"    {out}[{x}] = len({x})")
    return out


def variety(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    return writer.assign(op, f"len(set([x for x in {writer.value}]))" if writer.author.has("list_argument") else expr)


def keys(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    return writer.assign(op, f"sorted({writer.value}.keys())" if writer.author.has("keys") else expr)


def show(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if writer.author.has("format"):
        expr = f'"value: %d" % {writer.value}' if writer.author.loops else f'"value: {{}}".format({writer.value})'
    return writer.assign(op, expr)


def label(writer: Writer, op: Op, k: int | None, expr: str) -> str:
    if not writer.author.loops:
        return writer.assign(op, expr)
    out = writer.target(op.target, in_loop=True)
    condition = f"({writer.value} > {k})" if writer.author.has("parens") else f"{writer.value} > {k}"
    writer.write(f"if {condition}:", f'    {out} = "yes"', "else:", f'    {out} = "no"')
    return out


# operation -> function(writer, op, k, expr) that writes it and returns the name of its result
IDIOMS: dict[str, Callable[..., str]] = {
    "distinct": distinct,
    "unique_words": distinct,
    "gaps": gaps,
    "lengths": lengths,
    "digits": digits,
    "digit_sum": digit_sum,
    "letter_counts": letter_counts,
    "word_lengths": word_lengths,
    "variety": variety,
    "keys": keys,
    "show": show,
    "label": label,
}
