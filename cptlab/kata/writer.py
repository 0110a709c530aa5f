"""How one author writes the code of a program: names, loops, conditions, and the four forms of an operation."""

from __future__ import annotations

from cptlab.kata.authors import Author
from cptlab.kata.ops import Op

INPUT_NAMES = {"int": "number", "ints": "numbers", "text": "text", "words": "words", "table": "table"}
EMPTY = {"int": "0", "ints": "[]", "text": '""', "words": "[]", "table": "{}"}
RESULT_NAMES = {
    "int": ("total", "value"),
    "ints": ("result", "items"),
    "text": ("output", "letters"),
    "words": ("result", "items"),
    "table": ("counts", "entries"),
}
BUILTIN_NAMES = {"int": "sum", "ints": "list", "text": "str", "words": "list", "table": "dict"}
ELEMENTS = {"ints": ("num", "x"), "text": ("char", "c"), "words": ("word", "w"), "table": ("value", "v")}
VOWEL_CHAIN = " or ".join(f'{{x}} == "{vowel}"' for vowel in "aeiou")


class Writer:
    """Writes one program in the style of `author`, for an input of type `source`.

    `lines` collects the program. `value` is the expression that holds the result so far, and `kind` is its type.
    """

    def __init__(self, author: Author, source: str) -> None:
        self.author = author
        self.lines: list[str] = []
        self.indent = 0
        self.value = INPUT_NAMES[source]
        self.kind = source
        self.helpers = 0

    def write(self, *lines: str) -> None:
        """Add lines at the present indentation."""
        self.lines += ["    " * self.indent + line for line in lines]

    # names -------------------------------------------------------------------------------------------------------

    def target(self, kind: str, in_loop: bool, name: str = "") -> str:
        """Return a name for the next result. A loop still reads the old value, so its result needs another name."""
        if self.author.has("builtin_names") and (name or BUILTIN_NAMES[kind]) != self.value:
            return name or BUILTIN_NAMES[kind]
        if not self.author.fresh and not in_loop:
            return self.value if kind == self.kind else INPUT_NAMES[kind]
        first, second = RESULT_NAMES[kind]
        return second if self.value == first else first

    def element(self) -> str:
        """Return a name for an element of the current value."""
        name = ELEMENTS[self.kind][self.author.short_names]
        return name if name != self.value else "item"

    def empty(self, kind: str) -> str:
        """Return the expression of an empty value of a type."""
        if self.author.has("constructor") and kind in ("ints", "words", "table"):
            return "dict()" if kind == "table" else "list()"
        return EMPTY[kind]

    # pieces ------------------------------------------------------------------------------------------------------

    def loop(self) -> tuple[str, str]:
        """Return the head of a loop over the current value, and the expression of its element."""
        author, value, x = self.author, self.value, self.element()
        if self.kind == "table":
            if author.has("keys"):
                return f"for key in {value}.keys():", f"{value}[key]"
            return f"for key, {x} in {value}.items():", x
        if author.has("range_len"):
            return f"for i in range(len({value})):", f"{value}[i]"
        if author.has("enumerate"):
            return f"for i, {x} in enumerate({value}):", x
        return f"for {x} in {value}:", x

    def branch(self, condition: str, opposite: str, then: str) -> list[str]:
        """Return the lines that do `then` under a condition, inside a loop."""
        author = self.author
        if author.has("not_opposite") and opposite and " or " not in opposite and not opposite.startswith("not "):
            condition = f"not {opposite}"
        if author.has("continue_else") and opposite:
            return [f"if {opposite}:", "    continue", "else:", f"    {then}"]
        if author.has("compare_true"):
            condition = f"({condition}) == True"
        elif author.has("parens"):
            condition = f"({condition})"
        if author.has("one_line"):
            return [f"if {condition}: {then}"]
        return [f"if {condition}:", f"    {then}"]

    def condition(self, op: Op, x: str, k: int | None) -> tuple[str, str]:
        """Return an operation's condition on `x` and its negation, as this author writes them."""
        condition, opposite = (form.format(x=x, k=k, key="key") for form in (op.expr, op.opposite))
        if self.author.has("or_chain") and condition.endswith('in "aeiou"'):
            chain = VOWEL_CHAIN.format(x=condition.split(" ")[0])
            if " not in " not in condition:
                return chain, ""
        if self.author.has("bool_if") and self.author.has("lambda"):
            condition = f"True if {condition} else False"
        return condition, opposite

    def helper(self, x: str, expr: str, opposite: str, is_condition: bool) -> str:
        """Write a nested function or a named lambda for `expr`, and return its name."""
        name = ("check" if is_condition else "change") + (str(self.helpers + 1) if self.helpers else "")
        self.helpers += 1
        if is_condition and self.author.has("helper"):
            self.write(
                f"def {name}({x}):", f"    if {expr}:", "        return True", "    else:", "        return False"
            )
        elif self.author.has("helper") and not self.author.has("lambda"):
            self.write(f"def {name}({x}):", f"    value = {expr}", "    return value")
        else:
            self.write(f"{name} = lambda {x}: {expr}")
        return name

    # operations --------------------------------------------------------------------------------------------------

    def filter(self, op: Op, k: int | None) -> None:
        """Write an operation that keeps some elements."""
        author, value = self.author, self.value
        if author.loops:
            if author.has("helper") and self.kind != "table":
                x = self.element()
                name = self.helper(x, *self.condition(op, x, k), is_condition=True)
                out = self.start(op.target)
                head, x = self.loop()
                body = self.branch(f"{name}({x})", "", self._collect(out, x))
            else:
                out = self.start(op.target)
                head, x = self.loop()
                body = self.branch(*self.condition(op, x, k), self._collect(out, x))
            self.write(head, *("    " + line for line in body))
        else:
            x = self.element()
            condition, opposite = self.condition(op, x, k)
            if author.has("lambda") and self.kind != "table":
                condition = f"{self.helper(x, condition, opposite, is_condition=True)}({x})"
            elif author.has("not_opposite") and opposite and " or " not in opposite and "not " not in opposite:
                condition = f"not {opposite}"
            out = self.target(op.target, in_loop=False)
            self.write(f"{out} = " + self._comprehension(value, x, x, f" if {condition}"))
        self.value = out

    def map(self, op: Op, k: int | None) -> None:
        """Write an operation that changes each element."""
        author, value = self.author, self.value
        if author.loops:
            out = self.start(op.target)
            head, x = self.loop()
            expr = op.expr.format(x=x, k=k, key="key")
            self.write(head, "    " + self._collect(out, expr))
        else:
            x = self.element()
            expr = op.expr.format(x=x, k=k, key="key")
            if author.has("lambda") and self.kind != "table":
                expr = f"{self.helper(x, expr, '', is_condition=False)}({x})"
            out = self.target(op.target, in_loop=False)
            self.write(f"{out} = " + self._comprehension(value, x, expr, ""))
        self.value = out

    def start(self, kind: str) -> str:
        """Write the empty result that a loop fills, and return its name."""
        out = self.target(kind, in_loop=True)
        self.write(f"{out} = {self.empty(kind)}")
        return out

    def _collect(self, out: str, expr: str) -> str:
        if self.kind == "table":
            return f"{out}[key] = {expr}"
        if self.kind == "text":
            if self.author.has("parens"):
                return f"{out} = {out} + " + (f"({expr})" if " if " in expr else expr)
            return f"{out} += {expr}"
        return f"{out}.append({expr})"

    def _comprehension(self, value: str, x: str, expr: str, condition: str) -> str:
        if self.kind == "table":
            return f"{{key: {expr} for key, {x} in {value}.items(){condition}}}"
        if self.kind == "text":
            inner = f"{expr} for {x} in {value}{condition}"
            return f'"".join([{inner}])' if self.author.has("list_argument") else f'"".join({inner})'
        return f"[{expr} for {x} in {value}{condition}]"

    def reduce(self, op: Op, k: int | None) -> None:
        """Write an operation that makes one number of all elements."""
        author, value = self.author, self.value
        extreme = op.init in ("max", "min")
        name = op.init if extreme else "sum" if op.name in ("total", "value_sum") else ""
        if extreme and author.has("bare_except"):
            out = self.target("int", in_loop=True, name="")
            inner = f"{value}.values()" if self.kind == "table" else value
            self.write("try:", f"    {out} = {op.init}({inner})", "except:", f"    {out} = 0")
        elif not op.expr or (author.loops and op.name not in ("count_a", "size", "length", "word_count", "entries")):
            out = self.target("int", in_loop=True, name=name)
            self.write(f"{out} = {self._extreme_start(op) if extreme else op.init}")
            head, x = self.loop()
            if extreme:
                condition = op.update.format(x=x, acc=out)
                if author.has("manual_max") or out == op.init:
                    body = self.branch(condition, "", f"{out} = {x}")
                else:
                    body = [f"{out} = {op.init}({out}, {x})"]
            elif "|" in op.update:
                condition, then = op.update.format(x=x, acc=out).split("|")
                condition = condition.removeprefix("if ")
                if author.has("or_chain") and condition.endswith('in "aeiou"'):
                    condition = VOWEL_CHAIN.format(x=x)
                body = self.branch(condition, "", then)
            else:
                body = [op.update.format(x=x, acc=out)]
            self.write(head, *("    " + line for line in body))
        else:
            out = self.target("int", in_loop=False, name=name)
            expr = op.expr.format(v=value, x=self.element())
            if author.has("list_argument") and op.name in ("total", "letters", "count_vowels"):
                inner = expr[len("sum(") : -1] if " for " in expr else f"x for x in {value}"
                expr = f"sum([{inner}])"
            self.write(f"{out} = {expr}")
        self.value = out

    def _extreme_start(self, op: Op) -> str:
        if self.kind == "table":
            return "0"  # table values are never negative
        return f"{self.value}[0] if {self.value} else 0"

    def assign(self, op: Op, expr: str) -> str:
        """Write one assignment, and return the name assigned to."""
        out = self.target(op.target, in_loop=False)
        self.write(f"{out} = {expr}")
        return out

    # endings -----------------------------------------------------------------------------------------------------

    def result(self) -> None:
        """Write the function's return."""
        if self.author.has("echo"):
            self.write(self.value)
        self.write(f"return ({self.value})" if self.author.has("parens") else f"return {self.value}")

    def finish_label(self, op: Op, k: int) -> None:
        """Write a final yes or no that both branches return."""
        condition = f"({self.value} > {k})" if self.author.has("parens") else f"{self.value} > {k}"
        if self.author.has("else_return"):
            self.write(f"if {condition}:", '    return "yes"', "else:", '    return "no"')
        else:
            self.write(f"if {condition}:", '    return "yes"', 'return "no"')
