"""What a command says of an error of the user's: one or two sentences, with how to write it right."""

from __future__ import annotations

import difflib
import re
import shlex

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import InterpolationKeyError

from cptlab.errors import UserError
from cptlab.settings.commands import COMMANDS
from cptlab.settings.contradictions import TRAINERS
from cptlab.settings.listing import groups, names_of, options, owners_of

EXTRAS = {  # the files of Hydra's plugins, and the extra that installs them
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "submitit",
    "hydra/launcher/submitit_slurm": "submitit",
}
PAIRS = {"[": "]", "{": "}", "(": ")"}
UNQUOTED = set("/-\\+.$%*@?|:_ ")  # what a value may hold without quotes, beside ASCII letters and digits


def explain(error: BaseException, command: str) -> str:
    """One or two sentences for an error of the user's, Hydra's or OmegaConf's."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override))
    text = str(error)
    for pattern, sentence in (
        (r"(?s)Error parsing override '(.*?)'\n", _unreadable),
        (r"(?s)Ambiguous value for argument '(.*?)'\n", _several),
        (r"Could not (?:find|load) '([^']+)'", _no_file),
        (r"Could not (?:override|append to config)[^']*'([^']+)'", lambda name: _no_setting(name, command)),
        (r"Could not delete[^']*'([^']+)'", lambda name: f"There is no {name} to remove. Leave ~{name} out."),
        (r"Error merging override (\S+)", lambda override: _not_merged(override, error)),
    ):
        found = re.search(pattern, text)
        said = sentence(found.group(1)) if found else None
        if said:
            return said
    missing = re.search(r"Interpolation key '([^']+)' not found\n\s*full_key: (\S+)", text)
    if missing and isinstance(error, InterpolationKeyError):
        name, user = missing.groups()
        return f"{user} refers to a setting {name} that is not there. Put it back, or correct {user}."
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def refused_option(arguments: list[str], command: str) -> str | None:
    """What is wrong where an argument looks like an option, such as --limit 2, and Hydra has none of that name."""
    _, unknown = get_args_parser().parse_known_args(arguments)
    flag = next((one for one in unknown if one.startswith("-") and one != "-"), None)
    if flag is None:
        return None
    name, _, value = flag.lstrip("-").replace("-", "_").partition("=")
    behind = arguments[arguments.index(flag) + 1 :]
    value = value or next((one for one in behind[:1] if "=" not in one and not one.startswith("-")), "…")
    return f"cptlab {command} has no option {flag}: settings are given as name=value. Write {name}={value}."


def refused_group(arguments: list[str]) -> str:
    """What is wrong where Hydra refuses the value of a group, such as adapter=null: the first such argument is named."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in groups() and not re.fullmatch(r"[\w/.-]*[a-zA-Z_][\w/.-]*", value.replace("null", "")):
            files = ", ".join(option.name for option in options(name))
            return f"{argument} cannot be: {name} is a group. Name one of its files: {files}."
    return "A group of settings has a value that is no name. Name one of the group's files."


def _unreadable(override: str) -> str:
    """Hydra's grammar refuses an override: say why, and how to write it."""
    name, equals, value = override.partition("=")
    override = override if override.isprintable() else repr(override)
    if not equals or not name:
        return f"{override!r} is no setting with a value. Write name=value, such as seed=1."
    if not re.fullmatch(r"[+~]*[\w/.@:$-]+", name, re.ASCII):
        return f"There is no setting {name!r}. `cptlab settings` lists them."
    open_bracket = _open_bracket(value)
    if open_bracket:
        return f"{override} cannot be read: a {open_bracket} is not closed. Close it with {PAIRS[open_bracket]}."
    for quote in "'\"":
        if value.startswith(quote) and value.count(quote) == 1:
            return f"{override} cannot be read: a {quote} is not closed. Close it, or leave it out."
    if value.startswith("~/"):
        return (
            f"{override} cannot be read: a shell puts the home directory in the place of ~ only where a word begins with "
            f"it. Write {name}=$HOME{value[1:]}."
        )
    odd = " ".join(dict.fromkeys(char if char.isprintable() else repr(char) for char in value if not _is_plain(char)))
    return (
        f"{override} cannot be read: Hydra reads {odd or 'such a value'} only in quotes. Write {_quoted(name, value)}"
    )


def _is_plain(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char in UNQUOTED)


def _open_bracket(value: str) -> str | None:
    """Return the first bracket that a list, a dictionary or a call at the start of a value does not close."""
    if value[:1] not in PAIRS:
        return None
    waiting = []
    for char in value:
        if char in PAIRS:
            waiting.append(char)
        elif waiting and char == PAIRS[waiting[-1]]:
            waiting.pop()
    return waiting[0] if waiting else None


def _quoted(name: str, value: str) -> str:
    """Return the argument as a POSIX shell takes it, with the value in quotes for Hydra."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), value)
    argument = f'{name}="{escaped}"'
    try:
        fits = OverridesParser.create().parse_override(argument).value() == value
    except HydraException:
        fits = False
    return shlex.quote(argument) if fits else f"""'{name}="…"' (with \\ before each " and \\ in it)."""


def _several(override: str) -> str:
    name, _, value = override.partition("=")
    return (
        f"{override} is several values. Write {shlex.quote(f'{name}=[{value}]')} for a list, {_quoted(name, value)} for "
        "one text with a comma, or add -m to run each of them."
    )


def _no_file(place: str) -> str | None:
    """What to say where a group has no such file; None for what is no group."""
    if extra := EXTRAS.get(place):
        return (
            f"{place.replace('launcher/', 'launcher=')} needs a plugin. Install it with: pip install 'cptlab[{extra}]'"
        )
    group = max((group for group in groups() if place.startswith(f"{group}/")), key=len, default=None)
    if group is None:
        return None
    names = ", ".join(option.name for option in options(group))
    single = " Its settings have names of their own, such as paths.logs=DIR." if group == "paths" else ""
    return f"There is no {group}={place.removeprefix(f'{group}/')}. Choose one of: {names}.{single}"


def _no_setting(name: str, command: str) -> str:
    """Why a command does not know a name that was overridden, and what to do."""
    if name in groups() and "/" in name:
        group = name.split("/")[0]
        return f"This {group} has no {name}. Choose another {group} first, such as {group}=guided, or leave it out."
    users = [f"cptlab {other}" for other in COMMANDS if name in names_of(other)]
    if users and f"cptlab {command}" not in users:
        return f"cptlab {command} has no {name}: it belongs to {' and '.join(users)}. Leave it out."
    names = names_of(command)
    if "trainer" in names and name.startswith("trainer."):
        argument = name.removeprefix("trainer.")
        remedy = TRAINERS.get(argument, f"Lightning's Trainer may have it: write +{name}=…")
        return f"There is no setting {name!r} here. {remedy}."
    owners = [] if name not in names else [f"{group}={option}" for group, option in owners_of(name)]
    if owners:
        some = ", ".join(owners[:4]) + (", …" if len(owners) > 4 else "")
        return f"{name} belongs to {some}, and no such file is chosen here. Name one, too, or leave {name} out."
    near = sorted(one for one in names if one.endswith(f".{name}"))[:3] or difflib.get_close_matches(name, names, 1)
    hint = f"Did you mean {' or '.join(near)}?" if near and near[0] != name else "`cptlab settings` lists them."
    return f"There is no setting {name!r} here. {hint}"


def _not_merged(override: str, error: BaseException) -> str:
    cause = error.__cause__ or error.__context__
    reason = str(cause).splitlines()[0] if cause is not None and str(cause) else "its value does not fit"
    return f"{override} cannot be: {reason}. Leave it out, or correct its value."
