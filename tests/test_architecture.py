"""Imports point one way (design): read off the source with ast."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "cptlab").rglob("*.py"))
HEAVY = {"torch", "lightning", "transformers"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def uses(path: Path, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imported(path) for package in packages)


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "cptlab").parts
    return parts[0] if len(parts) > 1 else path.stem


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    where = room(path)
    if where in ("tasks", "judging", "reporting", "records", "errors", "pairs", "given", "progress") and path.name != "__main__.py":
        assert not uses(path, *HEAVY)
    if where not in ("settings", "pipeline") and path.name != "__main__.py":
        assert not uses(path, "hydra", "omegaconf")
    if where != "tracking":
        assert not uses(path, "wandb")
    if path.name != "__main__.py" and where != "pipeline":
        assert not uses(path, "cptlab.pipeline")
    allowed = {
        "records": {"errors"}, "errors": set(), "judging": {"records", "errors", "judging"},
        "tasks": {"records", "errors", "tasks", "kata"}, "backbone": {"errors", "backbone", "records"},
        "reporting": {"records", "errors", "judging", "reporting"},
        "decoding": {"records", "errors", "backbone", "decoding"},
        "training": {"records", "errors", "locks", "progress", "backbone", "pairs", "training"},
    }
    if where in allowed:
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("cptlab.")}
        assert rooms <= allowed[where], f"{path} imports {rooms - allowed[where]}"


def test_modules_stay_small():
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: size for path, size in sizes.items() if size > 330} == {}
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "misc")]
