"""What a command says where Hydra refuses an override, and its help."""

import re
import shlex

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cptlab.commands import pairs, pretrain, settings
from cptlab.errors import UserError
from cptlab.settings.config_source import compose_config
from cptlab.settings.explanations import explain, refused_group, refused_option
from cptlab.settings.validation import validate


def said(command, *overrides):
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as error:
        validate(compose_config(command, *overrides))
    return explain(error.value, command)


@pytest.mark.parametrize(
    "command, overrides, expected",
    [
        ("pairs", ["n=3"], "cptlab pairs has no n: it belongs to cptlab evaluate and cptlab omega. Leave it out."),
        ("evaluate", ["objective=cpt"], "cptlab evaluate has no objective: it belongs to cptlab train. Leave it out."),
        ("train", ["sede=3"], "There is no setting 'sede' here. Did you mean seed?"),
        ("evaluate", ["system=[base,tunde]"], "There is no system=tunde. Choose one of: base, best_of_n, "),
        ("evaluate", ["decoding/gate=entropy"], "This decoding has no decoding/gate. Choose another decoding first"),
        (
            "evaluate",
            ["paths=/data"],
            "There is no paths=/data. Choose one of: default. Its settings have names of their",
        ),
        ("evaluate", ["tags=[a"], "tags=[a cannot be read: a [ is not closed. Close it with ]."),
        ("evaluate", ["ks=[1,{2]"], "ks=[1,{2] cannot be read: a [ is not closed."),
        ("evaluate", ["run='a"], "run='a cannot be read: a ' is not closed. Close it, or leave it out."),
        (
            "evaluate",
            ["completions=~/s.jsonl"],
            "completions=~/s.jsonl cannot be read: a shell puts the home directory",
        ),
        ("evaluate", ["seed"], "'seed' is no setting with a value. Write name=value, such as seed=1."),
        ("evaluate", ["système=3"], "There is no setting 'système'. `cptlab settings` lists them."),
        (
            "evaluate",
            ["ks=1,10"],
            "ks=1,10 is several values. Write 'ks=[1,10]' for a list, 'ks=\"1,10\"' for one text",
        ),
        ("evaluate", ["~sede"], "There is no sede to remove. Leave ~sede out."),
        ("evaluate", ["run=${HOME}"], "run refers to a setting HOME that is not there."),
        (
            "train",
            ["seed='3'"],
            "seed='3' cannot be: it must be a whole number from 0 up. Quotes make it a text: write seed=3.",
        ),
        (
            "evaluate",
            ["limit='3'"],
            "limit='3' cannot be: it must be a whole number from 1 up, or null. Quotes make it a",
        ),
        ("evaluate", ["n=5.0"], "n=5.0 cannot be: it must be a whole number from 1 up, or null. Write n=5."),
        ("evaluate", ["tags=abc"], "tags=abc cannot be: it must be a list of texts. Write tags=[abc]."),
        ("evaluate", ["paths.logs=null"], "paths.logs=null cannot be: it must be a text."),
        ("evaluate", ["paths.cache="], "paths.cache= cannot be: it must be a text."),
        ("evaluate", ["~task_name"], "task_name=null cannot be: the command gives its own name."),
        ("train", ["~backbone"], "backbone is not set."),
        (
            "train",
            ["trainer.max_epochs=2"],
            "There is no setting 'trainer.max_epochs' here. Set stages.first_epochs and",
        ),
        (
            "train",
            ["trainer.max_time=1"],
            "There is no setting 'trainer.max_time' here. Lightning's Trainer may have it",
        ),
        (
            "tasks",
            ["benchmark.path=a"],
            "benchmark.path belongs to benchmark=jsonl, benchmark=livecodebench, and no such",
        ),
        ("tasks", ["benchmark=jsonl", "path=a"], "There is no setting 'path' here. Did you mean benchmark.path?"),
        ("train", ["learning_rate=1"], "There is no setting 'learning_rate' here. Did you mean stages.learning_rate?"),
    ],
)
def test_the_sentence(command, overrides, expected):
    assert said(command, *overrides).startswith(expected)


@pytest.mark.parametrize("arguments, expected", [
    (["--limit", "2"], "cptlab evaluate has no option --limit: settings are given as name=value. Write limit=2."),
    (["-n", "seed=1"], "cptlab evaluate has no option -n: settings are given as name=value. Write n=…."),
    (["seed=1", "--max-epochs=2"], "has no option --max-epochs=2: settings are given as name=value. Write max_epochs=2."),
    (["--cfg", "job", "-m", "seed=1,2", "--help"], None),
])  # fmt: skip
def test_an_option_that_is_a_setting(arguments, expected):
    text = refused_option(arguments, "evaluate")
    assert text is None if expected is None else expected in str(text)


@pytest.mark.parametrize(
    "value",
    [
        "x=1/s.jsonl",
        "/home/jürgen/s.jsonl",
        "a(1).jsonl",
        "a#b",
        "a'b",
        'a"b',
        "a=b\\",
        "s (copy).jsonl",
        "文件",
        "a,b",
    ],
)
def test_the_argument_that_is_offered_gives_the_value(value):
    text = said("evaluate", f"completions={value}")
    offered = re.search(r"Write (?:.* for a list, )?('completions=\".*?)(?: for one text.*)?$", text)
    assert offered is not None, text
    (argument,) = shlex.split(offered.group(1))
    assert compose_config("evaluate", argument).completions == value


@pytest.mark.parametrize("argument", ["completions=20240101", "experiment_name=7", "tags=[2024,1]"])
def test_a_number_in_the_place_of_a_text_is_given_in_quotes(argument):
    text = said("evaluate", argument, "benchmark=kata")
    offered = re.search(r"write ('.*?'), with both quotes", text)
    assert offered is not None, text
    validate(compose_config("evaluate", *shlex.split(offered.group(1)), "benchmark=kata"))


@pytest.mark.parametrize("group", ["paths", "adapter", "decoding/gate"])
def test_a_group_without_a_name_is_named(group):
    text = refused_group(["evaluate.py", "seed=1", "adapter=prefix", f"{group}=null"])
    assert text.startswith(f"{group}=null cannot be: {group} is a group. Name one of its files: ")


@pytest.mark.parametrize(
    "command, names",
    [
        (
            "train",
            [
                "logger",
                "tags",
                "callbacks",
                "paths",
                "paths.cache",
                "paths.data_dir",
                "seed",
                "print_config",
                "estimate",
                "ablation",
            ],
        ),
        ("evaluate", ["logger", "tags", "extra_disabled", "paths", "paths.cache", "paths.data_dir", "seed", "run"]),
        ("pairs", ["paths.cache", "experiment_name", "decoding.engine"]),
        ("omega", ["tags", "extra_disabled", "low", "decoding.sampling.stop"]),
        ("dilution", ["compare", "gradient", "paths.data_dir"]),
    ],
)
def test_what_is_removed_has_its_declared_default(command, names, monkeypatch, tmp_path):
    monkeypatch.setenv("CPTLAB_DATA_DIR", str(tmp_path))  # Hydra removes nothing that is null
    base = compose_config(command)
    for name in names:
        config = compose_config(command, f"~{name}")
        validate(config)
        parent, _, key = name.rpartition(".")
        value = OmegaConf.select(config, name)
        validate(compose_config(command, f"~{name}", *(["benchmark=kata"] if command in ("evaluate", "omega") else [])))
        assert name in ("ablation",) or key in (OmegaConf.select(config, parent) if parent else config), name
        if name in ("logger", "callbacks", "tags", "extra_disabled", "compare"):
            assert not value, name
        elif name.startswith("paths"):
            assert config.paths.cache and config.paths.logs
        elif name != "ablation":
            assert value == OmegaConf.select(base, name), name


def test_help(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["cptlab"])
    with pytest.raises(SystemExit) as ended:
        pairs.main(["--help"])
    assert not ended.value.code
    page = capsys.readouterr().out
    assert page.startswith("usage: cptlab pairs") and "cptlab settings" in page and "powered by" not in page
    assert pretrain.main(["--help"]) == 0 and "output=DIR" in capsys.readouterr().out
    assert settings.main(["trainer"]) == 0 and "lightning.Trainer" in capsys.readouterr().out


def test_task_name_is_the_commands_own(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["cptlab"])
    with pytest.raises(SystemExit) as ended:
        pairs.main(["task_name=omega", f"paths.logs={tmp_path}"])
    assert ended.value.code == 2 and "Leave task_name out" in capsys.readouterr().err
