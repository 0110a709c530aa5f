"""The command `cptlab pretrain`: its arguments, and a training of two batches."""

import pytest

from cptlab.backbone import load_backbone
from cptlab.commands.pretrain import main, parse
from cptlab.errors import UserError


def test_arguments_are_parsed(tmp_path):
    output, options = parse([f"output={tmp_path}", "steps=7"])
    assert output == tmp_path and options == {"steps": 7, "batch": 32, "seed": 0}


@pytest.mark.parametrize("wrong", ["steps=many", "epochs=2", "output=", "steps=0", "batch=0"])
def test_a_wrong_argument_is_the_users_mistake(tmp_path, wrong, capsys):
    with pytest.raises(UserError):
        parse([f"output={tmp_path / 'lm'}", wrong])
    assert main([f"output={tmp_path / 'lm'}", wrong]) == 2 and capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "lm").exists()


def test_the_output_is_needed():
    with pytest.raises(UserError, match="No output directory was given. Use output=DIR"):
        parse(["steps=7"])


@pytest.mark.slow
def test_training_repeats_itself_and_loads_as_a_backbone(tmp_path):
    for name in ("one", "two"):
        assert main([f"output={tmp_path / name}", "steps=2", "batch=2"]) == 0
    one, two = (load_backbone(str(tmp_path / name)) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint and one.mask_id is not None
