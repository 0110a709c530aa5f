"""What a command says where Hydra refuses an override, and its help."""

import pytest

from cptlab.commands import pairs, pretrain, settings
from cptlab.settings.config_source import compose_config
from cptlab.settings.explanations import explain


def said(command, *overrides):
    with pytest.raises(Exception) as error:
        compose_config(command, *overrides)
    return explain(error.value, command)


@pytest.mark.parametrize(
    "command, overrides, expected",
    [
        ("pairs", ["n=3"], "cptlab pairs has no n: it belongs to cptlab evaluate and cptlab omega. Leave it out."),
        ("evaluate", ["objective=cpt"], "cptlab evaluate has no objective: it belongs to cptlab train. Leave it out."),
        ("train", ["sede=3"], "There is no setting 'sede' here. Did you mean seed?"),
        ("evaluate", ["system=[base,tunde]"], "There is no system=tunde. Choose one of: base, best_of_n, "),
        ("evaluate", ["decoding/gate=entropy"], "This decoding has no decoding/gate. Choose another decoding first"),
    ],
)
def test_the_sentence(command, overrides, expected):
    assert said(command, *overrides).startswith(expected)


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
