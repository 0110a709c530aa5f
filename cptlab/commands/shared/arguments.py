"""The arguments of commands that compose no config: `name=value` as Hydra writes it, or `--name value`.

    given, texts = read_arguments(Options, arguments, "cptlab push", __doc__)

`Options` is a dataclass whose fields are declared as settings are (cptlab/settings/setting.py). What is neither form is a
text: a prompt, or the name of a file.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from cptlab.errors import UserError
from cptlab.settings.setting import REQUIRED, declarations, shown, value_of

T = TypeVar("T")
STDIN = "-"  # the text that stands for standard input
ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def read_arguments(
    options: type[T], arguments: Sequence[str] | None, prog: str, about: str | None, texts: str = "", escape: str = ""
) -> tuple[T, list[str]]:
    """Return the options that were given, and the texts. `texts` is how these are called; "": none may be given.
    `escape` says how to write a text that looks like a setting.

    Raises UserError for a value that cannot be, for an unknown name, and for a setting that is missing.
    """
    declared = declarations(options)
    parser = argparse.ArgumentParser(
        prog=prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name, declaration in declared.items():
        default = "" if declaration.default in (REQUIRED, None) else f" Default: {shown(declaration.default)}."
        flag: dict[str, Any] = (
            {"action": "store_const", "const": "true"} if declaration.type is bool else {"metavar": "VALUE"}
        )
        help_text = f"{declaration.setting.meaning}{default}".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, help=help_text, **flag)
    if texts:
        parser.add_argument("texts", nargs="*", metavar=texts, help=argparse.SUPPRESS)
    written, rest = _split(sys.argv[1:] if arguments is None else arguments, declared, escape)
    found = vars(parser.parse_intermixed_args(rest))
    free = found.pop("texts", [])
    written |= {name: text for name, text in found.items() if text is not None}
    values = {name: _value(declared[name], name, text) for name, text in written.items()}
    missing = [name for name, one in declared.items() if one.default is REQUIRED and name not in values]
    if missing:
        raise UserError(f"{missing[0]}=… is missing. {declared[missing[0]].setting.meaning} `{prog} --help` says more.")
    return options(**values), free


def decoded(content: bytes, where: str, what: str = "it") -> str:
    """Return the text of a file or of standard input. Raises UserError for another encoding than UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start}). Save {what} as UTF-8.") from None


def _split(arguments: Sequence[str], declared: Any, escape: str) -> tuple[dict[str, str], list[str]]:
    """Take out the `name=value` arguments; return them, and the others in order."""
    written, rest = {}, []
    for argument in arguments:
        match = ASSIGNED.fullmatch(argument)
        if match is None:
            rest.append(argument)
        elif match[1] in declared:
            written[match[1]] = match[2]
        else:
            near = difflib.get_close_matches(match[1], declared, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(declared)}."
            raise UserError(f"There is no setting {match[1]}. {hint} {escape}".strip())
    return written, rest


def _value(declaration: Any, name: str, text: str) -> Any:
    """Read a value: as a text where that will do, else as a number, true, false or null."""
    read = value_of(text)
    for value in (read, text):
        if declaration.problem(name, value) is None:
            return value
    raise UserError(declaration.problem(name, read))
