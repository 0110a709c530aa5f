"""The wheel in an environment of its own, in another directory: the library and every command without the clone."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from run_commands import ROOT, command, run_notebook

from cptlab.commands.cli import COMMANDS

USE = """
import sys
import cptlab
assert cptlab.__file__.startswith(sys.prefix), cptlab.__file__
from cptlab.backbone import load_backbone
from cptlab.adapters import Prefix, load_prefix, save_prefix
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.pairs import token_masks
from cptlab.training.objectives import losses
import torch
backbone = load_backbone("kata-lm")
prefix = Prefix(backbone.shape, length=4)
ids = torch.tensor([backbone.encode_prompt("def solve(numbers):")])
assert backbone.logits(ids, torch.ones_like(ids), prefix).shape == (1, ids.shape[1], backbone.vocab_size)
assert token_masks([1, 2, 3], [1, 4, 3]) == ((0, 1, 0), (0, 1, 0))
assert losses.rank_loss(torch.zeros(1), torch.zeros(1)).item() > 0.69
assert score_programs(["def f(x):\\n    y = 1\\n    return x\\n"], workers=1)[0].messages[0].id == "W0612"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The `bin` folder of a new environment with the wheel; what the wheel needs comes from the environment of the tests."""
    where = tmp_path_factory.mktemp("wheel")
    source = where / "source"  # a copy without what git ignores
    source.mkdir()
    for name in ("cptlab", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", where, source], check=True, cwd=where)
    (wheel,) = where.glob("cptlab-*.whl")
    assert wheel.stat().st_size < 25_000_000
    assert "cptlab/conf/train.yaml" in zipfile.ZipFile(wheel).namelist()
    venv.create(where / "venv")
    python = where / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True, cwd=where)
    site = next((where / "venv").glob("lib/python*/site-packages"))
    others = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "others.pth").write_text(f"{others}\n")  # behind the wheel's own folder
    return python.parent


def run(installed: Path, where: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(installed / command[0]), *command[1:]], cwd=where, env=environment, capture_output=True, text=True
    )


def test_the_library_works_without_the_clone(installed, tmp_path):
    done = run(installed, tmp_path, "python", "-c", USE)
    assert done.returncode == 0, done.stderr


HYDRAS = ("train", "evaluate", "pairs", "grpo", "tasks", "omega", "dilution", "serve")


@pytest.mark.parametrize("name", ["train", *(pytest.param(name, marks=pytest.mark.slow) for name in HYDRAS[1:])])
def test_a_command_composes_its_configuration(installed, tmp_path, name):
    done = run(installed, tmp_path, "cptlab", name, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert f"task_name: {name}" in done.stdout
    mistake = run(installed, tmp_path, "cptlab", name, "no_such_setting=1")
    assert mistake.returncode == 2 and "no_such_setting" in mistake.stderr and "Traceback" not in mistake.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(HYDRAS)))
def test_another_command_says_what_is_wrong(installed, tmp_path, name):
    done = run(installed, tmp_path, "cptlab", name, "no/such/thing")
    assert done.returncode == 2 and done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_training_and_evaluation_run_from_the_wheel(installed, tmp_path):
    trained = run(installed, tmp_path, "cptlab", "train", "debug=fdr", "workers=1")
    assert trained.returncode == 0, trained.stderr
    assert list(tmp_path.glob("logs/train/runs/*/prefix/adapter_model.safetensors"))
    evaluated = run(installed, tmp_path, "cptlab", "evaluate", "limit=3", "n=2", "logger=none", "workers=1")
    assert evaluated.returncode == 0 and "Report: " in evaluated.stdout, evaluated.stderr


@pytest.mark.slow
def test_the_walkthrough_runs(tmp_path):
    done = run_notebook("walkthrough.ipynb", tmp_path)
    assert done.returncode == 0 and "FilterCounts(tasks=1, samples=20" in done.stdout, done.stderr


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path):
    command("train", tmp_path, "debug=fdr", "workers=1", "logger=none")
    done = run_notebook("quickstart.ipynb", tmp_path)
    assert done.returncode == 0, done.stderr
    scored = [line.split("pylint")[0].strip() for line in done.stdout.splitlines() if " pass " in line]
    assert scored == ["base", "tuned", "ω = 0", "ω = 0.5", "ω = 1", "ω = 1.5"]
