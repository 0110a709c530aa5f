"""What a setting is: the one place that says its meaning and range, beside its type and default.

    @dataclass(frozen=True)
    class Compute:
        token_budget: Annotated[int, Setting("Padded tokens that are in memory at once.", at_least=1)] = 4096

        def __post_init__(self) -> None:
            check_settings(self)

A parameter of a function is declared the same way. One that takes an object has `Part` instead: a config has a node
there that describes the object. A parameter with neither cannot be given in a config: the code gives it. Configs are
checked against these declarations before any work (validation.py), and objects made in Python when they are made.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cptlab.errors import UserError


@dataclass(frozen=True)
class Setting:
    """The meaning of a setting, one sentence, and the values that it can have. Limits and choices hold for each item of
    a list; `null` is not compared with them."""

    meaning: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()

    def allows(self, value: float | str) -> bool:
        """Whether a number lies within the limits, or a text is one of the choices."""
        if isinstance(value, str):
            return value in self.choices if self.choices else value != ""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
            and (not self.choices or value in self.choices)
        )


@dataclass(frozen=True)
class Part:
    """A parameter that is given an object, which a config describes by a node with a `_target_`."""

    optional: bool = False  # null will do
    partial: bool = False  # the code adds arguments of its own: `_partial_: true`
    many: Literal["", "list", "names"] = ""  # a list of such nodes, or names with such nodes
    node: str = ""  # no `_target_`, but the settings of this node in commands.py


@dataclass(frozen=True)
class Declaration:
    """A setting with its type and its default (`REQUIRED` where it has none)."""

    type: Any
    default: Any
    setting: Setting

    def problem(self, name: str, value: Any) -> str | None:
        """One sentence about a value that cannot be, or None."""
        if _fits(value, self.type, self.setting):
            return None
        return f"{name}={_as_given(value)} cannot be: it must be {self.expected}. {self._remedy(name, value)}"

    def _remedy(self, name: str, value: Any) -> str:
        """How to write the value that was probably meant."""
        if value == "":
            return "Give it a value, or leave it out."
        if isinstance(value, str):
            read = value_of(value)
            if not isinstance(read, str) and _fits(read, self.type, self.setting):
                return f"Quotes make it a text: write {name}={value}."
            if _fits([value], self.type, self.setting):
                return f"Write {name}=[{value}]."
        elif value is not None and _is_scalar(value) and _fits(shown(value), self.type, self.setting):
            kind = "true or false" if isinstance(value, bool) else "a number"
            text = value if type(value) is int else "…"  # others lose their spelling
            return (
                f"Without quotes it is read as {kind}: write '{name}=\"{text}\"', with both quotes; a path can begin with "
                "./ instead."
            )
        elif isinstance(value, float) and value.is_integer() and _fits(int(value), self.type, self.setting):
            return f"Write {name}={int(value)}."
        elif isinstance(value, list) and value and all(map(_is_scalar, value)):
            texts = [one if isinstance(one, str) else shown(one) for one in value]
            if _fits(texts, self.type, self.setting):
                quoted = ",".join(f'"{text}"' for text in texts)
                return f"Without quotes some are read as numbers: write '{name}=[{quoted}]', with both quotes."
        return "Correct that value."

    @property
    def expected(self) -> str:
        """The type and range in words, such as "a whole number from 1 up, or null"."""
        return _described(self.type, self.setting)


REQUIRED: Any = inspect.Parameter.empty


@functools.cache
def declarations(target: Callable[..., Any]) -> dict[str, Declaration]:
    """The settings among the parameters of a function or class, in order."""
    defaults = inspect.signature(target).parameters
    return {
        name: Declaration(kind, defaults[name].default, mark)
        for name, kind, mark in _marked(target)
        if isinstance(mark, Setting)
    }


@functools.cache
def parts(target: Callable[..., Any]) -> dict[str, Part]:
    """The parameters of a function or class that take an object, in order."""
    return {name: mark for name, _, mark in _marked(target) if isinstance(mark, Part)}


def _marked(target: Callable[..., Any]) -> Iterator[tuple[str, Any, Setting | Part]]:
    """Name, type and mark of the parameters that have one."""
    of_fields = not isinstance(target, type) or is_dataclass(target)
    hints = get_type_hints(target if of_fields else target.__init__, include_extras=True)
    for name in inspect.signature(target).parameters:
        for mark in getattr(hints.get(name), "__metadata__", ()):
            if isinstance(mark, (Setting, Part)):
                yield name, get_args(hints[name])[0], mark


def check_settings(made: Any, **values: Any) -> None:
    """Raise UserError for the first value that its declaration does not allow.

    `made` is an instance of a dataclass; or a function or class, with the values of its parameters.
    """
    target = made if values else type(made)
    for name, declaration in declarations(target).items():
        if values and name not in values:
            continue
        problem = declaration.problem(name, values[name] if values else getattr(made, name))
        if problem:
            raise UserError(f"{target.__name__}: {problem}")


def _fits(value: Any, kind: Any, setting: Setting) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fits(value, parts[0], setting)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part, setting) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if kind is Any:
        return True
    if kind is None or kind is types.NoneType:
        return value is None
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return number and setting.allows(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and setting.allows(value)
    if kind is bool:
        return isinstance(value, bool)
    if kind is str:
        return isinstance(value, str) and setting.allows(value)
    if origin is tuple:
        parts = parts[:1]
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is not None and issubclass(origin, Sequence):
        several = isinstance(value, Sequence) and not isinstance(value, str)  # OmegaConf's lists are sequences, too
        return several and all(_fits(item, parts[0], setting) for item in value)
    raise TypeError(f"{kind} is no type of a setting")


def _described(kind: Any, setting: Setting) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _described(parts[0], setting)
    if origin in (Union, types.UnionType):
        null = [part for part in parts if part is types.NoneType]
        others = [_described(part, setting) for part in parts if part is not types.NoneType]
        return " or ".join(others) + (", or null" if null else "")
    if origin is Literal:
        return _listed(parts)
    if kind is bool:
        return "true or false"
    if kind in (int, float, str) and setting.choices:
        return _listed(setting.choices)
    if kind is str:
        return "a text"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _range(setting)
    if origin is not None and issubclass(origin, Mapping):
        return "names with values"
    if origin is not None:
        item = parts[0]
        if setting.choices:
            return f"a list of some of {', '.join(map(shown, setting.choices))}"
        plural = {int: "whole numbers", float: "numbers", str: "texts"}[item]
        return f"a list of {plural}" + (_range(setting) if item is not str else "")
    return "anything"


def _range(setting: Setting) -> str:
    low, high = setting.at_least, setting.at_most
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    lower = f" from {low:g} up" if low is not None else "" if setting.above is None else f" above {setting.above:g}"
    if high is not None:
        return f"{lower} and at most {high:g}" if lower else f" of at most {high:g}"
    if setting.below is not None:
        return f" from {low:g} to below {setting.below:g}" if low is not None else f"{lower} below {setting.below:g}"
    return lower


def _listed(choices: Sequence[Any]) -> str:
    words = [shown(choice) for choice in choices]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def value_of(text: str) -> Any:
    """What a text would be without quotes: true, false, null, a number, or itself."""
    word = {"true": True, "false": False, "null": None}.get(text.lower(), text)
    if word is not text:
        return word
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _as_given(value: Any) -> str:
    """A value as the user gave it: a text that reads like something else in its quotes."""
    if isinstance(value, str) and not isinstance(value_of(value), str):
        return repr(value)
    return shown(value)


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(shown, value))}]"
    return str(value)
