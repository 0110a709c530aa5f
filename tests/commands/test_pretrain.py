"""The command `cptlab pretrain`: its arguments, and a training of two batches."""

import pytest
import torch
from files_on_disk import DAMAGE, contents

from cptlab.backbone import load_backbone
from cptlab.backbone.loading import EMBEDDED
from cptlab.commands import pretrain as commands
from cptlab.commands.pretrain import main, parse
from cptlab.errors import UserError
from cptlab.training.pretraining import MODELS, _begun


def test_arguments_are_parsed(tmp_path):
    output, options = parse([f"output={tmp_path}", "steps=7"])
    assert output == tmp_path and options == {"steps": 7, "batch": 32, "seed": 0}
    assert parse([f"output={tmp_path}", "model=kata-starcoder2"])[1]["model"] == "kata-starcoder2"
    assert tuple(MODELS) == commands.MODELS and set(MODELS) == set(EMBEDDED)


@pytest.mark.parametrize("wrong", ["steps=many", "epochs=2", "output=", "steps=0", "batch=0", "model=gpt"])
def test_a_wrong_argument_is_the_users_mistake(tmp_path, wrong, capsys):
    with pytest.raises(UserError):
        parse([f"output={tmp_path / 'lm'}", wrong])
    assert main([f"output={tmp_path / 'lm'}", wrong]) == 2 and capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "lm").exists()


def test_the_output_is_needed():
    with pytest.raises(UserError, match="No output directory was given. Use output=DIR"):
        parse(["steps=7"])


@pytest.mark.parametrize("name", ["training.json", "config.json"])
def test_a_directory_that_holds_a_model_is_left_as_it_is(tmp_path, name, capsys):
    (tmp_path / name).write_text("{}")
    assert main([f"output={tmp_path}", "steps=2"]) == 2 and "already holds a model" in capsys.readouterr().err
    assert contents(tmp_path) == {name: b"{}"}
    assert main([f"output={tmp_path / name}", "steps=2"]) == 2 and "is no directory" in capsys.readouterr().err


def test_a_state_of_other_settings_is_refused_and_a_damaged_one_set_aside(tmp_path, capsys):
    settings = {"model": "kata-lm", "steps": 400, "batch": 2, "seed": 1}
    torch.save({"settings": settings, "step": 200}, tmp_path / "training_state.pt")
    assert main([f"output={tmp_path}", "steps=400", "batch=2", "seed=3"]) == 2
    assert "steps=400 batch=2 seed=1" in capsys.readouterr().err
    assert _begun(tmp_path, settings) == {"settings": settings, "step": 200}
    for damage in DAMAGE.values():
        damage(tmp_path / "training_state.pt")
        assert _begun(tmp_path, settings) is None and "is damaged" in capsys.readouterr().err
        torch.save([1], tmp_path / "training_state.pt")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_training_repeats_itself_and_loads_as_a_backbone(tmp_path, model):
    for name in ("one", "two"):
        assert main([f"output={tmp_path / name}", f"model={model}", "steps=2", "batch=2"]) == 0
    one, two = (load_backbone(str(tmp_path / name)) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint and one.mask_id is not None
