"""The operations that kata tasks are composed of.

A task is a typed pipeline of operations, such as ints -> (keep_even) -> ints -> (square) -> ints -> (total) -> int.
An operation's `form` says how code for it is written:
  filter  `expr` is a condition on an element {x}, `opposite` its negation; keeps the elements
  map     `expr` is the new element made from {x}
  reduce  `expr` is a whole-value expression of {v} ('' where Python has none); `init` and `update` are the loop
          that does the same, with '|' before a nested line
  whole   `expr` is a whole-value expression of {v}
{k} is the operation's constant, where it has one. Text is filtered and mapped by character, a table by its items
({x} is the value and {key} the key).
"""

from __future__ import annotations

from dataclasses import dataclass

TYPES = ("int", "ints", "text", "words", "table")


@dataclass(frozen=True)
class Op:
    """One operation from type `source` to type `target`; `phrases` say it in an instruction."""

    name: str
    source: str
    target: str
    form: str
    phrases: tuple[str, ...]
    expr: str
    opposite: str = ""
    init: str = ""
    update: str = ""
    constants: tuple[int, ...] = ()


def _filters(kind: str, rows: list[tuple]) -> list[Op]:
    return [
        Op(name, kind, kind, "filter", phrases, expr, opposite, constants=constants)
        for name, phrases, expr, opposite, constants in rows
    ]


def _maps(kind: str, rows: list[tuple]) -> list[Op]:
    return [Op(name, kind, kind, "map", phrases, expr, constants=constants) for name, phrases, expr, constants in rows]


def _wholes(kind: str, target: str, rows: list[tuple]) -> list[Op]:
    return [
        Op(name, kind, target, "whole", phrases, expr, constants=constants) for name, phrases, expr, constants in rows
    ]


def _reduces(kind: str, rows: list[tuple]) -> list[Op]:
    return [
        Op(name, kind, "int", "reduce", phrases, expr, init=init, update=update)
        for name, phrases, expr, init, update in rows
    ]


SMALL = (2, 3, 4, 5, 6, 7, 8, 9)
TINY = (1, 2, 3)

# fmt: off
OPS: tuple[Op, ...] = tuple(
    _filters("ints", [
        ("keep_even", ("keep the even numbers", "drop the odd numbers"), "{x} % 2 == 0", "{x} % 2 != 0", ()),
        ("keep_odd", ("keep the odd numbers", "drop the even numbers"), "{x} % 2 != 0", "{x} % 2 == 0", ()),
        ("keep_positive", ("keep the positive numbers", "keep the numbers above zero"), "{x} > 0", "{x} <= 0", ()),
        ("keep_negative", ("keep the negative numbers", "keep the numbers below zero"), "{x} < 0", "{x} >= 0", ()),
        ("keep_above", ("keep the numbers greater than {k}", "drop the numbers up to {k}"),
         "{x} > {k}", "{x} <= {k}", SMALL),
        ("keep_below", ("keep the numbers less than {k}", "drop the numbers from {k} up"),
         "{x} < {k}", "{x} >= {k}", SMALL),
        ("keep_multiples", ("keep the multiples of {k}", "keep the numbers divisible by {k}"),
         "{x} % {k} == 0", "{x} % {k} != 0", SMALL[1:]),
        ("drop_multiples", ("drop the multiples of {k}", "drop the numbers divisible by {k}"),
         "{x} % {k} != 0", "{x} % {k} == 0", SMALL[1:]),
        ("keep_within", ("keep the numbers between 0 and {k}0", "keep the numbers from 0 to {k}0"),
         "0 <= {x} <= {k}0", "{x} < 0 or {x} > {k}0", SMALL),
        ("drop_value", ("drop every {k}", "remove all values equal to {k}"), "{x} != {k}", "{x} == {k}", SMALL),
    ])
    + _maps("ints", [
        ("square", ("square each number", "replace each number by its square"), "{x} ** 2", ()),
        ("double", ("double each number", "multiply each number by two"), "{x} * 2", ()),
        ("add", ("add {k} to each number", "increase each number by {k}"), "{x} + {k}", SMALL),
        ("subtract", ("subtract {k} from each number", "decrease each number by {k}"), "{x} - {k}", SMALL),
        ("multiply", ("multiply each number by {k}", "scale each number by {k}"), "{x} * {k}", SMALL[1:]),
        ("negate", ("negate each number", "flip the sign of each number"), "-{x}", ()),
        ("absolute", ("take the absolute value of each number", "drop the sign of each number"), "abs({x})", ()),
        ("remainder", ("take each number modulo {k}", "replace each number by its remainder modulo {k}"),
         "{x} % {k}", SMALL[1:]),
        ("halve", ("halve each number rounding down", "divide each number by two rounding down"), "{x} // 2", ()),
    ])
    + _wholes("ints", "ints", [
        ("ascend", ("sort the numbers in ascending order", "sort from smallest to largest"), "sorted({v})", ()),
        ("descend", ("sort the numbers in descending order", "sort from largest to smallest"),
         "sorted({v}, reverse=True)", ()),
        ("reverse", ("reverse the order of the numbers", "turn the numbers around"), "{v}[::-1]", ()),
        ("distinct", ("remove repeated numbers", "keep the first of equal numbers"), "list(dict.fromkeys({v}))", ()),
        ("skip", ("skip the first {k} numbers", "drop the first {k} numbers"), "{v}[{k}:]", TINY),
        ("take", ("take the first {k} numbers", "keep the first {k} numbers"), "{v}[:{k}]", (2, 3, 4)),
        ("alternate", ("take every second number", "keep every other number"), "{v}[::2]", ()),
        ("gaps", ("take the differences of neighbours", "subtract each number from the next one"),
         "[b - a for a, b in zip({v}, {v}[1:])]", ()),
    ])
    + _reduces("ints", [
        ("total", ("take the sum", "add the numbers up"), "sum({v})", "0", "{acc} += {x}"),
        ("size", ("count the numbers", "take the number of elements"), "len({v})", "0", "{acc} += 1"),
        ("product", ("multiply the numbers together", "take the product"), "", "1", "{acc} *= {x}"),
        ("maximum", ("take the largest number or 0", "find the maximum or 0 if there is none"),
         "max({v}, default=0)", "max", "{x} > {acc}"),
        ("minimum", ("take the smallest number or 0", "find the minimum or 0 if there is none"),
         "min({v}, default=0)", "min", "{x} < {acc}"),
    ])
    + _wholes("ints", "int", [
        ("variety", ("count the distinct numbers", "take the number of different values"), "len(set({v}))", ()),
        ("edges", ("add the first and the last number or take 0", "take the sum of both ends or 0"),
         "{v}[0] + {v}[-1] if {v} else 0", ()),
    ])
    + _wholes("int", "int", [
        ("plus", ("add {k}", "increase it by {k}"), "{v} + {k}", SMALL),
        ("times", ("multiply by {k}", "scale it by {k}"), "{v} * {k}", SMALL),
        ("modulo", ("take the remainder modulo {k}", "reduce it modulo {k}"), "{v} % {k}", SMALL[1:]),
        ("digit_sum", ("take the sum of the digits", "add up its digits"), "sum(int(d) for d in str(abs({v})))", ()),
        ("squared", ("square it", "take its square"), "{v} ** 2", ()),
        ("magnitude", ("take its absolute value", "drop its sign"), "abs({v})", ()),
    ])
    + _wholes("int", "ints", [
        ("digits", ("list its digits", "split it into digits"), "[int(d) for d in str(abs({v}))]", ()),
        ("series", ("list its first five multiples", "multiply it by 1 to 5"), "[{v} * i for i in range(1, 6)]", ()),
    ])
    + _wholes("int", "text", [
        ("label", ('say "yes" if it is greater than {k} and "no" otherwise',
                   'give "yes" when it is above {k} and else "no"'), '"yes" if {v} > {k} else "no"', SMALL),
        ("show", ('write it as "value: " and the number', 'put "value: " before it'), 'f"value: {{{v}}}"', ()),
    ])
    + _filters("text", [
        ("drop_vowels", ("remove the vowels", "drop all vowels"), '{x} not in "aeiou"', '{x} in "aeiou"', ()),
        ("keep_vowels", ("keep only the vowels", "drop everything but vowels"), '{x} in "aeiou"',
         '{x} not in "aeiou"', ()),
        ("keep_letters", ("keep only the letters", "drop everything but letters"), "{x}.isalpha()",
         "not {x}.isalpha()", ()),
        ("drop_spaces", ("remove the spaces", "drop all spaces"), '{x} != " "', '{x} == " "', ()),
        ("drop_letter", ('remove every "e"', 'drop each "e"'), '{x} != "e"', '{x} == "e"', ()),
    ])
    + _maps("text", [
        ("stutter", ("repeat each character twice", "double each character"), "{x} * 2", ()),
        ("dash_spaces", ("replace spaces by dashes", "turn each space into a dash"), '"-" if {x} == " " else {x}', ()),
    ])
    + _wholes("text", "text", [
        ("shout", ("make it upper case", "convert it to upper case"), "{v}.upper()", ()),
        ("backwards", ("reverse the characters", "write it backwards"), "{v}[::-1]", ()),
        ("head", ("take the first {k} characters", "cut it to {k} characters"), "{v}[:{k}]", (3, 4, 5, 6)),
        ("letter_sort", ("sort the characters", "put the characters in order"), '"".join(sorted({v}))', ()),
    ])
    + _reduces("text", [
        ("length", ("count the characters", "take the length"), "len({v})", "0", "{acc} += 1"),
        ("count_vowels", ("count the vowels", "take the number of vowels"), 'sum({x} in "aeiou" for {x} in {v})',
         "0", 'if {x} in "aeiou"|{acc} += 1'),
        ("count_a", ('count how often "a" occurs', 'take the number of "a"'), '{v}.count("a")',
         "0", 'if {x} == "a"|{acc} += 1'),
    ])
    + _wholes("text", "words", [
        ("split", ("split it into words", "take the list of its words"), "{v}.split()", ()),
    ])
    + _wholes("text", "table", [
        ("letter_counts", ("count each character", "map each character to its count"),
         "{{c: {v}.count(c) for c in {v}}}", ()),
    ])
    + _filters("words", [
        ("keep_long", ("keep the words longer than {k} letters", "drop the words of up to {k} letters"),
         "len({x}) > {k}", "len({x}) <= {k}", (2, 3, 4, 5)),
        ("keep_short", ("keep the words shorter than {k} letters", "drop the words of {k} or more letters"),
         "len({x}) < {k}", "len({x}) >= {k}", (4, 5, 6)),
        ("keep_with_a", ('keep the words that contain "a"', 'drop the words without "a"'), '"a" in {x}',
         '"a" not in {x}', ()),
        ("vowel_start", ("keep the words that start with a vowel", "drop the words that start with a consonant"),
         '{x}[0] in "aeiou"', '{x}[0] not in "aeiou"', ()),
    ])
    + _maps("words", [
        ("capitalise", ("capitalize each word", "make the first letter of each word upper case"),
         "{x}.capitalize()", ()),
        ("flip_words", ("reverse each word", "write each word backwards"), "{x}[::-1]", ()),
        ("first_two", ("cut each word to two letters", "take the first two letters of each word"), "{x}[:2]", ()),
        ("plural", ('add "s" to each word', 'append "s" to every word'), '{x} + "s"', ()),
    ])
    + _wholes("words", "words", [
        ("alphabetical", ("sort the words", "put the words in alphabetical order"), "sorted({v})", ()),
        ("by_length", ("sort the words by length", "order the words from short to long"), "sorted({v}, key=len)", ()),
        ("unique_words", ("remove repeated words", "keep the first of equal words"), "list(dict.fromkeys({v}))", ()),
        ("last_first", ("reverse the order of the words", "turn the word order around"), "{v}[::-1]", ()),
    ])
    + _wholes("words", "ints", [
        ("lengths", ("take the length of each word", "replace each word by its length"), "[len(w) for w in {v}]", ()),
    ])
    + _reduces("words", [
        ("word_count", ("count the words", "take the number of words"), "len({v})", "0", "{acc} += 1"),
        ("letters", ("add up the word lengths", "take the total length of the words"),
         "sum(len({x}) for {x} in {v})", "0", "{acc} += len({x})"),
    ])
    + _wholes("words", "text", [
        ("join", ("join the words with spaces", "put the words into one string with spaces"), '" ".join({v})', ()),
        ("dashed", ("join the words with dashes", "put dashes between the words"), '"-".join({v})', ()),
        ("initials", ("take the first letter of each word", "join the initials"), '"".join(w[0] for w in {v})', ()),
    ])
    + _wholes("words", "table", [
        ("word_lengths", ("map each word to its length", "make a dictionary from word to length"),
         "{{w: len(w) for w in {v}}}", ()),
    ])
    + _filters("table", [
        ("values_above", ("keep the entries with a value greater than {k}", "drop the entries with a value up to {k}"),
         "{x} > {k}", "{x} <= {k}", (1, 2, 3, 4, 5)),
        ("even_values", ("keep the entries with an even value", "drop the entries with an odd value"),
         "{x} % 2 == 0", "{x} % 2 != 0", ()),
    ])
    + _maps("table", [
        ("double_values", ("double each value", "multiply the values by two"), "{x} * 2", ()),
        ("raise_values", ("add {k} to each value", "increase the values by {k}"), "{x} + {k}", SMALL),
        ("square_values", ("square each value", "replace each value by its square"), "{x} ** 2", ()),
    ])
    + _wholes("table", "words", [
        ("keys", ("list the keys in alphabetical order", "take the sorted keys"), "sorted({v})", ()),
    ])
    + _wholes("table", "ints", [
        ("values", ("list the values in ascending order", "take the sorted values"), "sorted({v}.values())", ()),
    ])
    + _reduces("table", [
        ("value_sum", ("add up the values", "take the sum of the values"), "sum({v}.values())", "0", "{acc} += {x}"),
        ("entries", ("count the entries", "take the number of keys"), "len({v})", "0", "{acc} += 1"),
        ("top_value", ("take the largest value or 0", "find the maximum value or 0 if there is none"),
         "max({v}.values(), default=0)", "max", "{x} > {acc}"),
    ])
)
# fmt: on

BY_NAME: dict[str, Op] = {op.name: op for op in OPS}
assert len(BY_NAME) == len(OPS), "operation names are unique"
