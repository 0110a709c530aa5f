"""The wheel, installed elsewhere: the library without the clone."""

import json
import shutil
import subprocess
import sys
import zipfile

from run_commands import ROOT

USE = """
import sys
import cptlab
assert cptlab.__file__.startswith(sys.argv[1]), cptlab.__file__
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


def test_the_wheel_works_without_the_clone(tmp_path):
    source = tmp_path / "source"  # a copy: setuptools leaves its build folder beside the code
    shutil.copytree(ROOT / "cptlab", source / "cptlab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            tmp_path / "dist",
            "--disable-pip-version-check",
            source,
        ],
        check=True,
        cwd=tmp_path,
    )
    wheel = next((tmp_path / "dist").glob("cptlab-*.whl"))
    assert wheel.stat().st_size < 20_000_000
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "elsewhere")
    elsewhere = str(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {elsewhere!r})\n" + USE, elsewhere],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_notebook_runs(tmp_path):
    cells = json.loads((ROOT / "notebooks" / "walkthrough.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "FilterCounts(tasks=1, samples=20" in done.stdout, done.stderr
