"""The pylint checks that the score counts (CPT V-B), and the version of that list."""

from __future__ import annotations

from collections.abc import Sequence

from cptlab.errors import UserError

CHECKS_VERSION = "1"  # raise it when DISABLED_CHECKS changes
PYLINT_VERSION = "4.1.4"  # the list was checked against this version; 3.3.9 gives the same scores on 400 real files

DISABLED_CHECKS = (
    # naming
    *("C0103", "C0104", "C0105", "C0131", "C0132"),
    # docstrings (none appears in CPT Table XII)
    *("C0114", "C0115", "C0116"),
    # whitespace and newlines
    *("C0301", "C0302", "C0303", "C0304", "C0305", "C0327", "C0328", "W0301", "W0311"),
    # imports
    *("E0401", "E0402", "C0410", "C0411", "C0412", "C0413", "C0414", "C0415", "R0402", "R0401"),
    *("W0401", "W0404", "W0406", "W0407", "W0410", "W0416", "W0611"),
    # duplicate code between files, and too few public methods
    *("R0801", "R0903"),
)
# Absent from CPT Table XII as well: redefined-outer-name and undefined-variable. A named option: `extra_disabled`.
ABSENT_FROM_TABLE_XII = ("W0621", "E0602")


def pylint_flags(extra_disabled: Sequence[str] = ()) -> list[str]:
    """Return the arguments with which the `pylint` command scores as cptlab does."""
    disabled = ",".join((*DISABLED_CHECKS, *extra_disabled))
    return ["--rcfile=/dev/null", "--persistent=n", "-j1", f"--disable={disabled}"]


def check_names(extra_disabled: Sequence[str]) -> None:
    """Raise UserError for what is no message of pylint's. pylint itself would charge it to every program, as W0012."""
    if not extra_disabled:
        return
    from pylint.exceptions import UnknownMessageError  # takes half a second
    from pylint.lint import PyLinter

    linter = PyLinter()
    linter.load_default_plugins()
    for name in extra_disabled:
        try:
            linter.msgs_store.get_message_definitions(name)
        except UnknownMessageError:
            raise UserError(
                f"extra_disabled has {name}, and pylint has no such message. Give ids such as W0621,E0602."
            ) from None
