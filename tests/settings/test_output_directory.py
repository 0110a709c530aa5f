"""Directories are looked at before Hydra writes to them."""

import sys

import pytest
from files_on_disk import contents, needs_root, open_to_all, other_user
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from cptlab.errors import UserError
from cptlab.settings.entry import hydra_command
from cptlab.settings.output_directory import check_directory, check_paths
from cptlab.storage.run_directory import open_run

STEPS = []


def run(monkeypatch, capsys, *arguments):
    """Run a command that begins and ends a run; return its exit code, the directories, and what it said."""
    STEPS.clear()

    def step(config, fresh):
        opened = open_run(fresh, fresh.parents[1], str(config.seed))
        STEPS.append(opened.directory)
        opened.finish()

    monkeypatch.setattr(sys, "argv", ["cptlab", *arguments])
    try:
        code = hydra_command("evaluate", step)() or 0
    except SystemExit as ended:
        code = ended.code
    return code, list(STEPS), capsys.readouterr().err


@pytest.fixture
def where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CPTLAB_RUN_DIR", raising=False)
    return ["print_config=false", "logger=none", f"paths.logs={tmp_path}/logs"]


def test_a_finished_run_is_left_as_it_is(tmp_path, monkeypatch, capsys, where):
    named = [*where, f"hydra.run.dir={tmp_path}/mine"]
    assert run(monkeypatch, capsys, *named)[:2] == (0, [tmp_path / "mine"])
    before = contents(tmp_path)
    for more in (["seed=3"], [], ["hydra/job_logging=default", "seed=4"], ["hydra.output_subdir=.hydra"]):
        code, steps, said = run(monkeypatch, capsys, *named, *more)
        assert (code, steps) == (2, []) and said.startswith("error: ") and "holds a finished run" in said
        assert contents(tmp_path) == before


def test_two_jobs_of_a_sweep_have_two_directories(tmp_path, monkeypatch, capsys, where):
    sweep = ["-m", *where, f"hydra.sweep.dir={tmp_path}/sweep"]
    code, steps, said = run(monkeypatch, capsys, *sweep, "seed=1,2", "hydra.sweep.subdir=.")
    assert (code, steps) == (2, []) and "gives all jobs of the sweep one directory" in said
    assert contents(tmp_path) == {}
    code, steps, _ = run(monkeypatch, capsys, *sweep, "seed=1,2")
    assert code == 0 and steps == [tmp_path / "sweep/0", tmp_path / "sweep/1"]
    before = contents(tmp_path)
    code, steps, said = run(monkeypatch, capsys, *sweep, "seed=3,4")
    assert (code, steps) == (2, []) and "holds another sweep" in said
    code, steps, said = run(monkeypatch, capsys, "-m", *where, "seed=5", f"hydra.sweep.dir={tmp_path}/sweep/0")
    assert (code, steps) == (2, []) and "holds a finished run" in said
    assert contents(tmp_path) == before


def test_only_a_directory_that_hydra_made_is_removed(tmp_path, monkeypatch, capsys, where):
    for name in ("mine", "new"):
        if name == "mine":
            (tmp_path / name).mkdir()
        code, steps, _ = run(monkeypatch, capsys, *where, f"hydra.run.dir={tmp_path}/{name}", "seed=none")
        assert (code, steps) == (2, [])
    assert (tmp_path / "mine").is_dir() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["paths.logs", "paths.cache", "hydra.run.dir"])
def test_a_place_that_cannot_be_a_directory_is_named(tmp_path, monkeypatch, capsys, where, name):
    (tmp_path / "f").write_text("mine")
    for value in ("f", "f/deeper/still"):
        code, steps, said = run(monkeypatch, capsys, *where, f"{name}={value}")
        assert (code, steps) == (2, []) and said.startswith(f"error: {name}={value} cannot be: ")
        assert f"{tmp_path}/f is no directory" in said and said.count("\n") == 1
    assert contents(tmp_path) == {"f": b"mine"} and not (tmp_path / "logs").exists()


@needs_root
def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    open_to_all(tmp_path, 0o755)
    with other_user():
        for name in ("", "deeper/still"):
            with pytest.raises(UserError, match=f"{tmp_path} cannot be written to by this user"):
                check_directory(tmp_path / name, "paths.logs")
        with pytest.raises(UserError, match="paths.cache=.* cannot be written to"):
            check_paths(OmegaConf.create({"paths": {"logs": "/tmp", "cache": f"{tmp_path}/cache"}}))


def test_hydras_records_are_kept(tmp_path, monkeypatch, capsys, where):
    """They are written once it is known whose directory it is (commands/shared/common.py)."""
    from cptlab.commands.shared.common import begin, write_config

    def step(config, fresh):
        opened = begin(config, fresh, "evaluate")
        write_config(config, opened)
        opened.lock.release()

    monkeypatch.setattr(sys, "argv", ["cptlab", *where, "seed=7", f"hydra.run.dir={tmp_path}/mine"])
    hydra_command("evaluate", step)()
    HydraConfig.instance().cfg = None
    assert OmegaConf.load(tmp_path / "mine/.hydra/overrides.yaml")[-1] == "seed=7"
    assert OmegaConf.load(tmp_path / "mine/.hydra/config.yaml").seed == 7
    assert OmegaConf.load(tmp_path / "mine/.hydra/hydra.yaml").hydra.run.dir == f"{tmp_path}/mine"
