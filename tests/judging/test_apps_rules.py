import resource
import sys
import time
from collections import Counter, OrderedDict, deque
from decimal import Decimal

import numpy as np
import pytest

from cptlab.judging.verdicts.apps_rules import accepts_output, accepts_value

# (expected, printed, whether APPS's harness takes it); checked against its own code.
OUTPUTS = [
    # text
    ("1\n6\n-1\n", "1\n6\n-1", True),
    (["1", "6", "-1"], "1\n6\n-1\n", True),
    ("Yes\nNo\n", "  Yes\t\r\n No\n\n", True),
    ("Yes", "yes", False),
    ("", "", True),
    ("", "\n \n", True),
    ([], "", True),
    ("1", "", False),
    ("", "0", False),
    ("a\nb", "a\n\n\nb\n", True),  # blank lines are dropped from what was printed,
    ("a\n\n\nb", "a\nb", True),  # and from what was expected,
    ("a\n \nb", "a\nb", False),  # but a line of blanks alone only from what was printed
    ("a\n \nb", "a\n\nb", True),
    ("a\n \nb", "b\n\na", False),
    ("a\nb", "a\x0bb", True),  # lines printed end at more than \n
    ("a\x0bb", "a\nb", False),  # lines expected do not: one line of two tokens
    ("a\x0bb", "b a", True),
    # wrong order, wrong multiplicity
    ("1 2 3", "3 2 1", True),
    ("1 2 3", "3 2 1 1 2", True),
    ("1 2 2", "2 1", True),
    ("a\nb", "b\na\nb", True),
    ("a b\nc", "c\nb a\na b", True),
    ("a b\nc", "a\nb c", False),
    ("a b", "a\nb", False),
    ("ab", "ba", False),
    # numbers, one per line: |printed - expected| <= 1e-8 + 1e-5 |expected|
    ("100000", "100001", True),
    ("100000", "100002", False),
    ("1000000007\n5", "1000000000\n5", True),
    ("1000000007 5", "1000000000 5", False),  # not with two in a line
    ("1e5", "100000.99", True),
    ("1e12", "1000010000000.5", False),
    ("1.5", "1_5e-1", True),
    ("1e999", "inf", True),
    ("1e999", "-inf", False),
    ("1e308\n-1e308", "-1e308\n1e308", True),  # in another order they are still the same set
    ("1e308", "-1e308", False),
    ("nan", "NaN", False),
    ("nan", "nan", True),
    ("nan 1", "1 nan", True),
    ("9" * 4301, "9" * 4300 + "8", True),  # both are infinite
    ("9" * 4301 + " 0", "0 1e400", True),
    # three decimals
    ("0", "0.0004", True),
    ("0", "-0.0004 0.0001", True),
    ("0", "0.0006", False),
    ("0.5 1", "1.0 0.5003", True),
    ("0.5 x", "x 0.5003", False),  # all tokens must be numbers
    ("2.0004\n2.0001", "2", True),
    ("1 2", "1.0001 2\n2.0 1", True),
    # not text
    (5, "5", False),
    (None, "", False),
    (["1", 2], "1\n2", False),
    ([["1"]], "1", False),
    ({"1": "2"}, "1", False),
    ([{"1": "2"}], "1", False),
]


@pytest.fixture(autouse=True)
def pythons_own_limit_of_digits():
    """The loader of APPS lifts it for the whole process."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(4300)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("expected, printed, taken", OUTPUTS)
def test_standard_output_is_taken_as_by_the_harness(expected, printed, taken):
    assert accepts_output(expected, printed) is taken


def test_the_tolerance_is_relative_to_the_expected_number():
    smaller, greater = "100000", "100001.000005"
    assert accepts_output(greater, smaller)
    assert not accepts_output(smaller, greater)


nan = float("nan")
VALUES = [
    (9, 9, True),
    ([9], 9, True),  # the first item alone will do,
    ([9, 1, 2], 9, True),  # however many follow
    ([[1, 2]], [1, 2], True),
    ([1, 2], [[1, 2]], False),
    ([1, 2], [2, 1], False),
    ([1, 2], (1, 2), True),
    ([[1, 2]], (1, 2), True),
    ([[1, 2], [3]], ([1, 2], [3]), True),
    ([[1, 2], [3]], [(1, 2), (3,)], False),  # tuples inside count as lists in expected[0] only,
    ([[[1, 2], [3]]], [(1, 2), (3,)], True),
    ([[[1, 2], [3]]], ((1, 2), [3]), True),
    ([[[1, 2], [3]]], ([1, 2], (3,)), False),  # if the first item is one,
    ([[[[1], 2]]], [((1,), 2)], False),  # and one level down
    ([[["a"], ["b", "c"]]], [("a",), "bc"], True),
    ([[["a"], ["b", "c"]]], deque([("a",), ("b", "c")]), True),
    ([["a"], ["b"]], deque(["a"]), False),
    ([], [], True),
    ([], (), True),
    ([], None, False),
    ([[]], [], True),
    ("abc", "abc", True),
    ("abc", "a", False),
    (["abc"], "abc", True),
    (1, True, True),
    (1.0, 1, True),
    ([True], 1, True),
    (None, None, True),
    (0.3, 0.1 + 0.2, False),  # numbers must be equal
    (1, "1", False),
    (2**53, 2.0**53, True),
    (2**53 + 1, 2.0**53, False),
    (float("inf"), float("inf"), True),
    (nan, nan, False),
    ({"1": "a"}, {1: "a"}, True),  # keys are made integers
    ({"1": "a"}, {"1": "a"}, False),
    ({"1": "a"}, [{1: "a"}], True),
    ({"1": "a", "x": "b"}, {"1": "a", "x": "b"}, True),  # all of them or none
    ({"1": "a", "x": "b"}, {1: "a", "x": "b"}, False),
    ([{"x": [1]}, {"y": 2}], [{"x": [1]}, {"y": 2}], True),
    ([{"1": 2}, {"3": 4}], [{1: 2}], True),  # the rest is forgotten,
    ([{"1": 2}, {"3": 4}], [{1: 2}, {3: 4}], False),  # so the right answer is refused
    ({"a": {"1": 2}}, {"a": {"1": 2}}, True),
    ({"a": {"1": 2}}, {"a": {1: 2}}, False),
    ({"9" * 4301: 1}, {"9" * 4301: 1}, True),  # too long to be read as an integer
    ({}, {}, True),
    ({"a": 1, "b": 2}, OrderedDict(b=2, a=1), True),
    ({"a": 1, "b": 2}, Counter("abb"), True),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    (["a"], {"a"}, False),
    (1, Decimal(1), True),
    (1, Decimal("sNaN"), False),
    ([1], range(1, 2), False),
]


@pytest.mark.parametrize("expected, value, taken", VALUES)
def test_returned_values_are_taken_as_by_the_harness(expected, value, taken):
    assert accepts_value(expected, value) is taken


def test_neither_side_is_changed():
    expected, value = [{"1": [2]}], ({1: [2]},)
    assert accepts_value(expected, value)
    assert (expected, value) == ([{"1": [2]}], ({1: [2]},))


def test_nan_equals_nothing_even_itself_in_a_list():
    assert not accepts_value([[nan]], [nan])


def test_arrays_equal_nothing_and_are_not_broadcast():
    assert not accepts_value([1, 2], np.array([1, 2]))
    assert not accepts_value([1], np.array([1]))
    assert not accepts_value([[list(range(10_000))]], [np.zeros((1_000_000, 1), np.int8)])


def test_lazy_rows_are_not_unrolled():
    assert not accepts_value([[[1], [0]]], [(1,), range(10**12)])
    assert not accepts_value([[[1], [0]]], [(1,), range(10**30)])
    assert accepts_value([[[1], [0, 1]]], [(1,), range(2)])


@pytest.mark.parametrize(
    "flood",
    [
        "\n" * 8_000_000,
        "1\n" * 4_000_000,
        "1 2 " * 2_000_000,
        "1" * 8_000_000,
        "0." + "0" * 8_000_000 + "1",
        " ".join(map(str, range(1_000_000))),
        "\n".join(map(str, range(1_000_000))),
    ],
    ids=["lines", "same lines", "same tokens", "digits", "decimals", "tokens", "all lines"],
)
def test_a_flood_costs_linear_time_and_little_memory(flood):
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert not accepts_output("1 2\n3\n", flood)
    assert time.process_time() - start < 5  # about 1 s on one slow core; a quadratic step would take minutes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 600 << 10
