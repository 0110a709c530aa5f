"""Every file in conf/ composes with the commands that can use it, passes validation, and says how it is used."""

import re

import pytest

from cptlab.settings.config_source import compose_config, config_directory
from cptlab.settings.entry import prepare
from cptlab.settings.instantiate import instantiate

EVALUATED = ("backbone", "benchmark", "decoding")
USES = {
    "train": ("*",),
    "evaluate": (*EVALUATED, "logger", "paths", "system", "judge", "ray", "experiment", "decoding/*"),
    "omega": (*EVALUATED, "system", "judge"),
    "dilution": EVALUATED,
    "pairs": (*EVALUATED, "pairs", "judge", "ray"),
    "grpo": (*EVALUATED, "judge", "experiment"),
    "tasks": ("benchmark", "judge"),
}
NOT_OF_TRAIN = {
    "hydra",
    "hparams_search",
    "ray",
    "scale",
    "system",
    *(f"decoding/{part}" for part in ("negative", "gate", "rule", "strategy")),
}


def groups() -> list[str]:
    return sorted({str(path.parent.relative_to(config_directory())) for path in config_directory().glob("*/**/*.yaml")})


def cases() -> list[tuple[str, str, str]]:
    """(command, group, file): each file with the first command that can use it, and one file of each group with the others."""
    found, composed = [], set()
    for group in groups():
        for command, uses in USES.items():
            everything = "*" in uses and group not in NOT_OF_TRAIN
            if everything or group in uses or (f"{group.partition('/')[0]}/*" in uses and "/" in group):
                options = sorted(path.stem for path in (config_directory() / group).glob("*.yaml"))
                options = [option for option in options if _is_for(command, group, option)]
                new = [option for option in options if (group, option) not in composed]
                found += [(command, group, option) for option in new or options[:1]]
                composed |= {(group, option) for option in options}
    return found


def _is_for(command: str, group: str, option: str) -> bool:
    """Whether the file can be used with the command: an experiment is for the one in its first line."""
    line = (config_directory() / group / f"{option}.yaml").read_text().split("\n")[1]
    return group != "experiment" or f"# python {command}.py" in line or f"# cptlab {command} " in line


@pytest.mark.parametrize("command, group, option", cases())
def test_every_shipped_config_composes(command, group, option):
    guided = ["decoding=spa"] if group.startswith("decoding/") else []
    config = compose_config(command, "print_config=false", *guided, f"{group}={option}")
    prepare(config)
    if group.startswith("decoding"):
        for part in ("sampling", "guidance", "strategy"):
            assert config.decoding[part] is None or instantiate(config.decoding[part], part)


def test_every_group_is_composed_by_some_command():
    assert set(groups()) - {group for _, group, _ in cases()} == {"hydra", "hparams_search", "scale"}


@pytest.mark.parametrize("path", sorted(config_directory().glob("**/*.yaml")), ids=lambda path: path.stem)
def test_the_first_line_is_a_command(path):
    first = path.read_text().splitlines()
    opening = first[1] if first[0].startswith("# @package") else first[0]
    assert re.match(r"# (python (train|evaluate)\.py|cptlab \w+)", opening)
