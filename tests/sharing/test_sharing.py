"""`cptlab push` and `cptlab pull` against a stand-in of the hub, and what a stranger can do with what was pushed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_stand_in import Hub
from made_runs import evaluate_run, make_evaluated_run, make_run

import cptlab
from cptlab.adapters import Prefix, load_prefix, save_prefix
from cptlab.backbone import load_backbone
from cptlab.commands import pull, push
from cptlab.errors import UserError
from cptlab.records import Completion
from cptlab.sharing.pulled import arrange
from cptlab.storage.jsonl import read_jsonl

REPO = "me/tidy"
ROOT = Path(cptlab.__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(directory, training run, its evaluation)."""
    return make_evaluated_run(tmp_path_factory.mktemp("sharing"))


@pytest.fixture(scope="module")
def pushed(made, tmp_path_factory):
    """(hub, environment of its user, folder, what the commands said): the run was pushed to the stand-in, and pulled."""
    folder, home = made[0] / "folder", tmp_path_factory.mktemp("home")
    with Hub() as hub:
        user = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | user
        lines = (
            f"push logs={made[0]}/logs repo={REPO} output={folder} upload=true",
            f"pull repo={REPO} output={made[0]}/pulled",
        )
        said = python(environment, commands(*lines))
        yield hub, environment, folder, said


@pytest.fixture(scope="module")
def pulled(made, pushed):
    return made[0] / "pulled"


def commands(*lines: str) -> str:
    """Code that runs some commands one after the other, and says how each ended."""
    return f"from cptlab.commands.cli import main\nfor line in {lines!r}: print('exit code', main(line.split()), flush=True)"


def python(environment, code) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_uploaded_is_the_folder(pushed):
    hub, _, folder, said = pushed
    assert hub.repos[REPO].files == files(folder) and f"Uploaded: {hub.url}/{REPO}" in said
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "training/config.yaml"} <= files(
        folder
    ).keys()
    assert {"evaluations/kata/metrics.json", "evaluations/kata/report.html"} <= files(folder).keys()


def test_no_file_and_no_output_holds_the_token_or_a_path_of_this_machine(made, pushed):
    hub, environment, folder, said = pushed
    assert f"Bearer {hub.token}" in {authorization for _, _, authorization in hub.requests}
    for content in (*files(folder).values(), said.encode()):
        assert hub.token.encode() not in content
    for name, content in files(folder).items():
        assert str(made[0]).encode() not in content and str(ROOT).encode() not in content, name
    hub_files = files(Path(environment["HF_HOME"]))
    assert not [name for name, content in hub_files.items() if hub.token.encode() in content]


def test_a_pulled_run_is_evaluated_to_the_same_programs(made, pulled, tmp_path):
    again = evaluate_run(tmp_path, pulled)
    for system in ("base", "tuned"):
        one, two = (list(read_jsonl(run / system / "completions.jsonl", Completion)) for run in (made[2], again))
        assert one == two


def test_a_pulled_run_a_clone_and_the_run_load_as_the_same_model(made, pushed, pulled):
    expected = cptlab.load(made[1])
    for place in (pulled, pulled / "prefix", pushed[2]):
        found = cptlab.load(place)
        assert found.prefix.digest() == expected.prefix.digest()
        assert found.backbone.fingerprint == expected.backbone.fingerprint


def test_the_card_says_what_the_evaluation_found(made, pushed):
    card = (pushed[2] / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "peft", "pipeline_tag": "text-generation", "license": "apache-2.0",
        "tags": ["cptlab", "code", "pylint", "prefix-tuning"],
    }  # fmt: skip
    metrics = json.loads((made[2] / "metrics.json").read_text())
    shift = metrics["differences"]["tuned"]["all" if "all" in metrics["differences"]["tuned"] else "introductory"]
    low, high = shift["pylint_mean_ci"]
    assert (
        f"mean pylint score {shift['pylint_mean']:+.2f} [{low:+.2f}, {high:+.2f}]; pass@1 {100 * shift['pass@1']:+.1f} points"
        in body
    )
    assert "A prefix of 5 positions of keys and values for `kata-lm`" in body and "greedy" in body
    for heading in ("How to use it", "How it was trained", "Results", "Limits", "Licence"):
        assert f"\n## {heading}\n" in body
    assert "The backbone has the licence apache-2.0." in body


@pytest.mark.slow
def test_the_code_of_the_card_runs_and_gives_the_prefix(made, pushed):
    """In PEFT, from the stand-in: the first tokens of the model with our prefix."""
    code = re.search(r"```python\n(.*?)```", (pushed[2] / "README.md").read_text(), re.DOTALL)[1]
    ids = load_backbone("kata-lm").encode_prompt("def solve(words):")
    code += f"\nimport torch\nprint('LOGITS', model(torch.tensor([{ids}])).logits[0, -1].topk(3).indices.tolist())"
    said = python(pushed[1], code)
    model = cptlab.load(made[1])
    ones = torch.ones(1, len(ids), dtype=torch.long)
    ours = model.backbone.logits(torch.tensor([ids]), ones, model.prefix)[0, -1]
    assert f"LOGITS {ours.topk(3).indices.tolist()}" in said
    assert (
        ours.topk(3).indices.tolist()
        != model.backbone.logits(torch.tensor([ids]), ones)[0, -1].topk(3).indices.tolist()
    )


@pytest.mark.slow
def test_a_second_push_replaces_and_what_is_not_ours_is_left_alone(made, pushed):
    """Refusals of the hub are one sentence each."""
    hub, environment, folder, _ = pushed
    hub.repos["me/else"] = type(hub.repos[REPO])(files={"model.bin": b"x"})
    hub.repos[REPO].files["evaluations/gone/metrics.json"] = b"{}"
    asked = [
        [f"push logs={made[0]}/logs repo={REPO} output={folder} upload=true", "Uploaded:"],
        [f"push logs={made[0]}/logs repo=me/else output={folder}2 upload=true", "me/else holds a model that this command did not make (model.bin)"],
        [f"push logs={made[0]}/logs repo=others/x output={folder}2 upload=true", "The hub does not let you write to others/x"],
        [f"pull repo=me/nothing output={made[0]}/nothing", "The hub shows you no model me/nothing"],
        [f"pull repo={REPO} revision=v9 output={made[0]}/nothing", f"{REPO} has no such revision"],
        [f"pull repo=me/else output={made[0]}/nothing", "me/else holds no prefix and no LoRA in PEFT's format"],
    ]  # fmt: skip
    done = python(environment, commands(*(line for line, _ in asked)))
    assert re.findall("^exit code (.)$", done, re.MULTILINE) == ["0", "2", "2", "2", "2", "2"], done
    assert [sentence for _, sentence in asked if sentence not in done] == []
    assert hub.token not in done
    assert hub.repos[REPO].files == files(folder) and hub.repos["me/else"].files == {"model.bin": b"x"}
    assert not (made[0] / "nothing").exists()


def test_a_dry_run_asks_no_hub_and_says_what_would_be_uploaded(made, tmp_path, capsys):
    assert push.main([f"run={made[1]}", f"logs={tmp_path}", f"repo={REPO}", f"output={tmp_path / 'folder'}"]) == 0
    said = capsys.readouterr().out
    assert "Nothing was uploaded" in said and "adapter_model.safetensors" in said
    assert "the card has no results" in said  # no evaluation below those logs
    assert "nothing is known of what it does" in (tmp_path / "folder" / "README.md").read_text()
    shutil.rmtree(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    assert push.main([f"run={made[1]}", f"logs={tmp_path}", f"repo={REPO}", f"output={tmp_path / 'folder'}"]) == 2
    assert files(tmp_path / "folder") == {"thesis.tex": b"mine"}


@pytest.mark.parametrize("arguments, sentence", [
    ([], "repo=… is missing"),
    (["repo=tidy"], "repo=tidy cannot be: it must be OWNER/NAME"),
    (["repo=me/x", "token=hf_abc"], "There is no setting token"),
    (["repo=me/x", "upload=yes"], "upload=yes cannot be: it must be true or false"),
    (["repo=me/x", "run=nowhere"], "nowhere is no finished training run"),
    (["repo=me/x", "base_model=codellama"], "base_model=codellama cannot be"),
    (["repo=me/x", "evaluation=nowhere"], "nowhere holds no finished evaluation"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(made, arguments, sentence, capsys):
    named = [] if any(one.startswith("run") for one in arguments) else [f"run={made[1]}"]
    assert push.main([*named, f"logs={made[0]}/logs", f"output={made[0]}/unused", *arguments]) == 2
    assert sentence in capsys.readouterr().err and not (made[0] / "unused").exists()


def test_without_a_token_nothing_is_begun(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cptlab.sharing.hub.get_token", lambda: None)
    assert push.main([f"run={made[1]}", f"output={tmp_path / 'x'}", "repo=me/x", "upload=true"]) == 2
    assert "You are not logged in to the hub" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_backbone_of_this_machine_is_named_for_others(tmp_path, capsys):
    """A prefix of a model in a directory: refused without a hub id, and with it no path is left."""
    run = make_run(tmp_path)
    model = tmp_path / "private-model"
    model.mkdir()
    config = (run / "config.yaml").read_text().replace("path: kata-lm", f"path: {model}")
    (run / "config.yaml").write_text(config)
    asked = [f"run={run}", f"logs={tmp_path}", "repo=me/x", f"output={tmp_path / 'folder'}", "licence=mit"]
    assert push.main(asked) == 2 and "base_model=OWNER/NAME" in capsys.readouterr().err
    assert push.main([*asked, "base_model=Qwen/Coder"]) == 0
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "base_model: Qwen/Coder\n" in card and 'from_pretrained("Qwen/Coder")' in card and "licence mit" in card
    assert (
        json.loads((tmp_path / "folder" / "adapter_config.json").read_text())["base_model_name_or_path"] == "Qwen/Coder"
    )
    for name, content in files(tmp_path / "folder").items():
        assert b"private-model" not in content and str(tmp_path).encode() not in content, name


@pytest.mark.parametrize("change, sentence", [
    ({"backbone": {"_target_": "os.system", "command": "true"}}, "the backbone in its config calls os.system"),
    ({"backbone": {"_target_": "cptlab.backbone.load_backbone", "path": {"_target_": "os.system"}}}, "calls os.system"),
    ({"benchmark": {"_target_": "cptlab.tasks.files.os.system"}}, "the benchmark in its config calls"),
    ({"benchmark": {"_target_": ["os.system"]}}, "the benchmark in its config calls"),
    ({"seed": "${oc.env:HF_TOKEN}"}, "a config that refers to your machine"),
    ({"backbone": "kata-lm"}, "cannot be read"),
])  # fmt: skip
def test_a_strangers_config_makes_nothing_but_backbones_and_benchmarks(pushed, tmp_path, change, sentence):
    snapshot = shutil.copytree(pushed[2], tmp_path / "snapshot")
    config = yaml.safe_load((snapshot / "training" / "config.yaml").read_text())
    (snapshot / "training" / "config.yaml").write_text(yaml.safe_dump(config | change))
    with pytest.raises(UserError, match=re.escape(sentence)):
        arrange(snapshot, tmp_path / "target", "stranger/x")
    assert not (tmp_path / "target").exists()


def test_a_prefix_of_another_tool_is_pulled_without_a_config(tmp_path):
    snapshot, backbone = tmp_path / "snapshot", load_backbone("kata-lm")
    save_prefix(Prefix(backbone, length=3), snapshot, backbone)
    assert arrange(snapshot, tmp_path / "target", "peft/x") == "prefix"
    assert (
        load_prefix(tmp_path / "target" / "prefix").length == 3 and not (tmp_path / "target" / "config.yaml").exists()
    )
    assert cptlab.load(tmp_path / "target" / "prefix").prefix.length == 3


def test_a_place_that_is_taken_is_refused_before_the_hub_is_asked(tmp_path, capsys):
    assert pull.main(["repo=me/x", f"output={tmp_path}"]) == 2 and "already exists" in capsys.readouterr().err
