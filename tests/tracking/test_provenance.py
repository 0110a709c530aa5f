"""A result names the commit of the clone that it was made with, and of no other."""

import subprocess

from cptlab.tracking.provenance import collect_provenance, version_of


def git(root, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_and_dirty_flag_of_a_clone(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert collect_provenance(tmp_path)["git"] == {"commit": commit, "dirty": False}
    (tmp_path / "file").write_text("2")
    assert collect_provenance(tmp_path, seed=3)["git"] == {"commit": commit, "dirty": True}
    inside = tmp_path / ".venv/lib/site-packages"  # a wheel that is installed inside somebody's clone
    inside.mkdir(parents=True)
    assert collect_provenance(inside)["git"] == {"commit": None, "dirty": False}


def test_facts_and_versions(tmp_path):
    found = collect_provenance(tmp_path, seed=3)
    assert found["seed"] == 3 and found["git"]["commit"] is None and found["peak_memory_mb"] > 0
    assert found["versions"]["numpy"] == version_of("numpy") != version_of("no-such-package") is None
