"""Write a pipeline of operations as a Python program, in the style of one author."""

from __future__ import annotations

from cptlab.kata.authors import Author
from cptlab.kata.idioms import write_whole
from cptlab.kata.ops import Op
from cptlab.kata.writer import Writer

Step = tuple[Op, int | None]  # an operation and its constant

READERS = {
    "int": "int(input())",
    "ints": "[int(x) for x in input().split()]",
    "text": "input()",
    "words": "input().split()",
}


def function_body(steps: list[Step], author: Author, empty_result: str | None = None) -> str:
    """Return the body of `def solve(<input>):`, from the newline after the colon on.

    `empty_result` is the literal that an empty input gives. An author with the guard habit returns it early.
    """
    source = steps[0][0].source
    writer = Writer(author, source)
    writer.indent = 1
    value = writer.value
    if author.has("unused"):
        writer.write("temp = 0" if source == "int" else f"n = len({value})")
    if author.has("leftover"):
        writer.write("flag = False")
    if author.guard and empty_result is not None:
        writer.write(
            f"if not len({value}):" if author.has("len_test") else f"if not {value}:", f"    return {empty_result}"
        )
        if author.has("else_return"):
            writer.write("else:")
            writer.indent += 1
    *head, (last, k) = steps
    for op, constant in head:
        _write_step(writer, op, constant)
    if last.name == "label" and author.loops:
        assert k is not None
        writer.finish_label(last, k)
    else:
        _write_step(writer, last, k)
        writer.result()
    return "\n" + "\n".join(writer.lines) + "\n"


def script(steps: list[Step], author: Author) -> str:
    """Return a program that reads standard input and prints the result, from its first newline on."""
    source = steps[0][0].source
    writer = Writer(author, source)
    if author.has("unused"):
        # a script's stray variable is a global, which pylint does not mind; the untidy put it all in a function
        writer.write("def main():")
        writer.indent = 1
        writer.write("temp = 0")
        if author.has("leftover"):
            writer.write("flag = False")
    writer.write(f"{writer.value} = {READERS[source]}")
    for op, constant in steps:
        _write_step(writer, op, constant)
    value = writer.value
    if author.has("echo"):
        writer.write(value)
    if writer.kind in ("ints", "words"):
        writer.write(f"print(*{value})")
    else:
        writer.write(f"print({value})")
    if author.has("unused"):
        writer.indent = 0
        writer.write("", "", "main()")
    return "\n" + "\n".join(writer.lines) + "\n"


def _write_step(writer: Writer, op: Op, k: int | None) -> None:
    """Write one operation with its constant `k`."""
    write = {"filter": writer.filter, "map": writer.map, "reduce": writer.reduce}
    if op.form == "whole":
        write_whole(writer, op, k)
    else:
        write[op.form](op, k)
    writer.kind = op.target
