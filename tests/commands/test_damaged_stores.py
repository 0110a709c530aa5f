"""Damaged files in the cache are named, set aside and made anew: no command ends for them, and no result changes."""

import json
import shutil

import pytest
from files_on_disk import DAMAGE
from run_commands import command

FEW = ["pairs.n=6", "pairs.train_tasks=6", "pairs.validation_tasks=2", "workers=1", "print_config=false"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    where = tmp_path_factory.mktemp("sound")
    return where, command("pairs", where, *FEW)


@pytest.mark.parametrize(
    "damage", ["garbage", *(pytest.param(one, marks=pytest.mark.slow) for one in DAMAGE if one != "garbage")]
)
def test_every_file_of_the_cache_is_damaged(sound, tmp_path, capsys, damage):
    where, pairs = sound
    shutil.copytree(where / "cache", tmp_path / "cache")
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "lock"]
    assert {path.parent.name.split("-")[0] for path in files} >= {"completions", "quality", "verdicts", "pylint"}
    for path in files:
        DAMAGE[damage](path)
    again = command("pairs", tmp_path, *FEW)
    for name in ("pairs.jsonl", "statistics.json"):
        assert (again / name).read_bytes() == (pairs / name).read_bytes()
    said = capsys.readouterr().err
    named = [path for path in files if f"{path} is damaged" in said]
    for path in named:
        assert path.with_name(f"{path.name}.damaged").exists()
    silent = {path.name for path in files} - {path.name for path in named}
    # without its checksums, a directory of pairs is one that is not complete; SQLite begins an empty file anew
    allowed = {"pairs.jsonl", "statistics.json"} if damage != "directory" else set()
    allowed |= {"quality.sqlite"} if damage == "empty" else set()
    allowed |= {"sha256sums"} if damage == "truncated" else set()
    assert silent <= allowed


def test_one_lost_line_of_the_pairs_is_noticed(sound, tmp_path, capsys):
    where, pairs = sound
    shutil.copytree(where / "cache", tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("pairs.jsonl")
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    again = command("pairs", tmp_path, *FEW)
    assert (again / "pairs.jsonl").read_bytes() == (pairs / "pairs.jsonl").read_bytes()
    assert f"{path} is damaged" in capsys.readouterr().err


def test_a_damaged_omega_is_none(tmp_path, capsys):
    from cptlab.errors import UserError
    from cptlab.systems.tuned_omega import OmegaSetting, store, stored

    setting = OmegaSetting("backbone", None, "kata", "tasks", None, "decoding")
    store(tmp_path, setting, [], 0.0)
    assert stored(tmp_path, setting)["omega"] == 0
    file = store(tmp_path, setting, [], 1.2)
    assert stored(tmp_path, setting)["omega"] == 1.2
    whole = file.read_text()
    for text in (whole[:40], "", "[]", "{}", json.dumps({"omega": 1.2}), whole.replace("1.2", '"much"')):
        file.write_text(text)
        with pytest.raises(UserError, match="No ω was tuned"):
            stored(tmp_path, setting)
        assert f"{file} is damaged" in capsys.readouterr().err and not file.exists()
