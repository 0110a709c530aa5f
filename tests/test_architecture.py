"""The plan of the house: imports point one way, and the contract in pyproject.toml notices where they do not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "cptlab").rglob("*.py"))
LIGHT = ["errors", "progress", "records", "storage", "settings", "tracking", "metrics", "kata", "tasks", "judging",
         "pairs", "reporting", "review", "systems.completions"]  # fmt: skip


def lint(root: Path) -> subprocess.CompletedProcess:
    """Check the contracts of pyproject.toml on the package below `root`."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()",
               "--config", str(ROOT / "pyproject.toml"), "--no-cache"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_the_contract_is_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module, line", [
    ("storage/atomic.py", "from cptlab.training.loop import stages"),
    ("progress.py", "import cptlab.systems.samples"),
    ("metrics/summary.py", "from cptlab.judging.lint import pylint_score"),
    ("kata/ops.py", "import torch"),
    ("settings/setting.py", "import torch"),
    ("kata/ops.py", "from cptlab.kata import benchmark"),  # a circle inside one room
    ("pairs/selection.py", "from cptlab.reporting import tables"),
    ("judging/workers/server_pool.py", "from cptlab.judging.verdicts import verdict"),
    ("reporting/tables.py", "import wandb"),
    ("decoding/engine.py", "import hydra"),
    ("judging/cleaning/clean.py", "def late():\n    from cptlab.backbone import model"),  # also inside a function
])  # fmt: skip
def test_a_wrong_import_breaks_it(tmp_path, module, line):
    shutil.copytree(ROOT / "cptlab", tmp_path / "cptlab", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    with open(tmp_path / "cptlab" / module, "a") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and "BROKEN" in done.stdout, done.stdout


@pytest.mark.parametrize("room", LIGHT)
def test_a_light_room_imports_no_torch(room):
    """In a fresh interpreter, every module of it."""
    path = ROOT / "cptlab" / room.replace(".", "/")
    modules = [path] if not path.is_dir() else [file.with_suffix("") for file in path.rglob("*.py")]
    names = [".".join(module.relative_to(ROOT).parts).removesuffix(".__init__") for module in modules]
    servers = ("candidate_server", "linter_server", "linter_forks")  # they run in processes of their own
    chosen = ("mlflow_logger", "tensorboard_logger")  # Lightning's own, imported where a user chose them
    names = [name for name in names if not name.endswith((*servers, *chosen))]
    code = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\n" + (
        "print([name for name in ('torch', 'transformers', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_no_module_imports_a_package_that_contains_it():
    """That would be a circle which a contract between siblings cannot see."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("cptlab", cache_dir=None)
    found = [
        (module, target)
        for module in graph.modules
        for target in graph.find_modules_directly_imported_by(module)
        if module.startswith(f"{target}.") and target != "cptlab"
    ]
    assert found == []


def test_modules_stay_small():
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: size for path, size in sizes.items() if size > 300} == {}
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "misc")]


def test_the_drawing_of_the_rooms_is_up_to_date():
    pytest.importorskip("grimp")
    done = subprocess.run([sys.executable, "docs/rooms.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
