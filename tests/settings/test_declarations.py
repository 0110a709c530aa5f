"""One declaration says a setting's type, default, range and meaning: read from the source as Python itself has it."""

import importlib
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from omegaconf import OmegaConf

from cptlab.errors import UserError
from cptlab.settings.commands import COMMANDS
from cptlab.settings.config_source import compose_config, config_directory
from cptlab.settings.debug import leaves
from cptlab.settings.declared import PACKAGE, declared
from cptlab.settings.listing import lines, markdown
from cptlab.settings.setting import REQUIRED, Setting, check_settings, declarations, parts


@dataclass(frozen=True)
class Example:
    count: Annotated[int, Setting("A count.", at_least=1)] = 3
    share: Annotated[float | None, Setting("A share.", above=0, at_most=1)] = None
    name: Annotated[str, Setting("A name.", choices=("a", "b"))] = "a"
    weight: Annotated[float | Literal["tuned"], Setting("A weight.")] = 1
    several: Annotated[Sequence[int], Setting("Some.", at_least=2, below=9)] = ()
    switch: Annotated[bool | Literal["never"], Setting("A switch.")] = False
    other: object = None

    def __post_init__(self):
        check_settings(self)


@pytest.mark.parametrize(
    "name, allowed, refused, expected",
    [
        ("count", [1, 10**9], [0, True, 1.0, "1", None], "a whole number from 1 up"),
        ("share", [None, 1, 0.5], [0, 1.5, float("nan"), False], "a number above 0 and at most 1, or null"),
        ("name", ["a", "b"], ["c", "", None, 1], "a or b"),
        ("weight", [-1, 0.5, "tuned"], ["much", float("inf"), None], "a number or tuned"),
        ("several", [[], [2, 8], (3,)], [[1], [9], 3, "23", None], "a list of whole numbers from 2 to below 9"),
        ("switch", [True, False, "never"], [0, 1, "sometimes"], "true or false or never"),
    ],
)
def test_types_and_ranges(name, allowed, refused, expected):
    for value in allowed:
        Example(**{name: value})
    for value in refused:
        with pytest.raises(UserError, match=re.escape(f"it must be {expected}.")):
            Example(**{name: value})


def test_a_parameter_without_setting_is_no_setting():
    assert "other" not in declarations(Example)
    Example(other="anything")


def targets() -> list[str]:
    """Every `_target_` of ours in conf/."""
    found = set()
    for path in config_directory().glob("**/*.yaml"):
        found |= set(re.findall(rf"_target_: ({PACKAGE.name}\.[\w.]+)", path.read_text()))
    return sorted(found)


@pytest.mark.parametrize("target", targets())
def test_the_source_says_what_python_has(target):
    module, _, name = target.rpartition(".")
    made = getattr(importlib.import_module(module), name)
    assert dict(declared(target).settings) == declarations(made)
    assert dict(declared(target).parts) == parts(made)


@pytest.mark.parametrize("target", targets())
def test_a_setting_has_a_default_that_it_allows_and_a_meaning(target):
    for name, one in declared(target).settings.items():
        assert one.default is REQUIRED or one.problem(name, one.default) is None
        assert re.fullmatch(r"[A-Za-z8\[].*[.]", one.setting.meaning, re.DOTALL), (name, one.setting.meaning)


@pytest.mark.parametrize("path", sorted(config_directory().glob("**/*.yaml")), ids=lambda path: path.stem)
def test_no_file_repeats_a_default(path):
    """Where a file names a `_target_`, it holds only values that differ from the declaration."""

    def check(node):
        if isinstance(node, dict):
            found = declared(node["_target_"]) if "_target_" in node else None
            for name, one in (found.settings if found else {}).items():
                default = list(one.default) if isinstance(one.default, tuple) else one.default
                assert name not in node or node[name] != default, name
            for value in node.values():
                check(value)

    check(OmegaConf.to_container(OmegaConf.load(path)))


def test_an_unmentioned_setting_can_be_overridden():
    assert compose_config("train").decoding.sampling.top_p == 0.95
    assert compose_config("train", "decoding.sampling.top_p=0.5").decoding.sampling.top_p == 0.5


def test_files_of_the_user_have_the_defaults_too(tmp_path):
    (tmp_path / "decoding").mkdir()
    (tmp_path / "decoding" / "mine.yaml").write_text("sampling:\n  _target_: cptlab.decoding.Sampling\n  top_k: 7\n")
    config = compose_config("pairs", f"hydra.searchpath=[file://{tmp_path}]", "decoding=mine")
    assert (config.decoding.sampling.top_k, config.decoding.sampling.top_p) == (7, 0.95)


def test_composing_imports_no_torch():
    code = (
        "import sys; import cptlab.settings.setting; assert not {'hydra', 'omegaconf'} & set(sys.modules);"
        "from cptlab.settings.config_source import compose_config; from cptlab.settings.entry import prepare;"
        "prepare(compose_config('train', 'print_config=false'));"
        "assert not {'torch', 'transformers', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("name, expected", [
    ("stages.second_learning_rate", ["stages.second_learning_rate=0.0002: … [cptlab train]"]),  # as conf/train.yaml has it
    ("grpo.steps", ["grpo.steps=60: … [cptlab grpo]"]),
    ("epochs", ["stages.first_epochs=3: … [cptlab train]", "stages.second_epochs=1: … [cptlab train]"]),
    ("benchmark.path", ["benchmark.path=null: … [benchmark=jsonl]", "benchmark.path=null: … [benchmark=livecodebench]"]),
    ("radon", ["scorer.measure=maintainability: … [scorer=radon]", "scorer.complex_from=11: … [scorer=radon]"]),
    ("split_fallback", []),
])  # fmt: skip
def test_settings_that_are_asked_for_say_where_they_are(name, expected):
    assert [re.sub(r": .* \[", ": … [", line) for line in lines(name)] == expected


def test_every_setting_of_a_composed_command_is_listed():
    listed = {line.partition("=")[0] for line in lines()}
    for command in COMMANDS:
        config = compose_config(command)
        for name, target in leaves(OmegaConf.to_container(config)):
            found = declared(target) if name.endswith("._target_") and isinstance(target, str) else None
            for setting in () if found is None else found.settings:
                assert name.removesuffix("_target_") + setting in listed, f"cptlab {command}"


def test_the_page_of_settings_is_up_to_date():
    page = PACKAGE.parent / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == markdown(), "Run: cptlab settings --markdown > docs/settings.md"
