"""Shards and Ray workers make the same files as one process, whoever is killed on the way."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from cptlab.adapters import Policy
from cptlab.backbone import load_backbone
from cptlab.commands.shared.many_machines import load_policy
from cptlab.decoding import Sampling
from cptlab.errors import UserError
from cptlab.estimate.programs import measure
from cptlab.systems.decoding import Decoding
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.ray_workers import RayWorkers
from cptlab.systems.samples import SystemPrograms
from cptlab.systems.shards import fill_shard
from cptlab.tasks.kata import kata

ROOT = Path(__file__).parents[2]
N, TASKS = 2, 5
NODE = {"_target_": "cptlab.backbone.load_backbone", "path": "kata-lm"}


@functools.cache
def backbone():
    return load_backbone("kata-lm")


def programs_in(cache: Path, second_try: bool = False) -> SystemPrograms:
    """The programs of five tasks in chunks of one."""
    decoding = Decoding(Sampling(), second_try=second_try)
    system = LoadedSystem("base", Policy(backbone()), decoding)
    return SystemPrograms(system, kata().split("validation", TASKS), N, Judge(cache, workers=1), 3, chunk_programs=N)


def stored(cache: Path) -> dict[str, bytes]:
    files = [path for path in cache.glob("*-*/*") if not path.name.startswith("made_on")]
    return {str(path.relative_to(cache)): path.read_bytes() for path in files if path.name != "lock"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    cache = tmp_path_factory.mktemp("whole")
    programs_in(cache).fill()
    return cache


def test_shards_leave_the_files_of_one_process(whole, tmp_path):
    assert [fill_shard(programs_in(tmp_path), shard, 3) for shard in (2, 0)] == [["2"], ["0", "3"]]
    half = programs_in(tmp_path)
    assert half.missing() == ["1", "4"] and stored(tmp_path).items() < stored(whole).items()
    fill_shard(half, 1, 3)
    assert stored(tmp_path) == stored(whole)
    assert half.judged() == programs_in(whole).judged()
    (note,) = map(
        json.loads, half.stages[-1].store.directory.joinpath("made_on-shard-0-of-3.jsonl").read_text().splitlines()
    )
    assert note["chunks"] == ["0", "3"] and note["sandbox"] == half.judging.judge.level
    assert fill_shard(half, 5, 6) == []  # more shards than chunks


JOB = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/systems")
from test_shards import fill_shard, programs_in

fill_shard(programs_in(Path(sys.argv[1])), int(sys.argv[2]), 2)
"""


@pytest.mark.slow
def test_two_processes_at_once_and_one_killed(whole, tmp_path):
    def start(shard: int) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path), str(shard)], cwd=ROOT)

    jobs = [start(0), start(1)]
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("completions-*/0000[024].journal")):  # of shard 0
        assert jobs[0].poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    jobs[0].kill()
    assert [job.wait() for job in jobs] == [-signal.SIGKILL, 0]
    assert 0 < len(programs_in(tmp_path).missing()) <= 3
    assert start(0).wait() == 0
    assert stored(tmp_path) == stored(whole)


def test_one_chunk_is_measured_and_kept(whole, tmp_path):
    programs = programs_in(tmp_path)
    found = measure(programs)
    assert programs.missing() == ["1", "2", "3", "4"] and stored(tmp_path).items() < stored(whole).items()
    assert (found.tasks, found.each, found.chunks, found.measured) == (TASKS, N, TASKS, N)
    assert found.tokens == sum(one.tokens for one in programs.sampling.store.read("0"))
    assert list(found.seconds) == ["sampling programs", "cleaning programs", "scoring with pylint", "running the tests"]
    expected = {"completions", "programs", "quality", "verdicts"}
    sizes = {path.parent.name.rsplit("-", 1)[0]: path.stat().st_size for path in tmp_path.glob("*/00000.jsonl")}
    assert set(sizes) == expected and sorted(found.stored.values()) == sorted(sizes.values())
    lines = "\n".join(found.lines())
    assert f"{TASKS * N} " in lines and "Machines for a day" in lines
    there = measure(programs_in(whole))
    assert there.seconds == {} and "every chunk was there already" in "\n".join(there.lines())


def workers_of(parent: int) -> list[int]:
    """The processes below `parent` that are Ray's sampling actors."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title, pid = (path / "cmdline").read_text(), int(path.name)
            above = pid
            while above not in (0, parent):
                above = int(Path(f"/proc/{above}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if above == parent and title.startswith("ray::") and "_Sampler" in title:
            found.append(pid)
    return found


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'cptlab[ray]'")
@pytest.mark.parametrize("second_try", [False, True])
def test_ray_leaves_the_files_of_one_process_with_a_worker_killed(tmp_path, second_try):
    programs_in(tmp_path / "whole", second_try).fill()
    programs, killed = programs_in(tmp_path / "ray", second_try), []

    def kill_a_sampler() -> None:
        while not killed:
            if list(tmp_path.glob("ray/completions-*/*.journal")):
                for pid in workers_of(os.getpid())[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.002)

    thread = threading.Thread(target=kill_a_sampler, daemon=True)
    thread.start()
    import ray

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)  # whatever the machine has
    try:
        RayWorkers(samplers=2).fill(programs, functools.partial(load_policy, NODE, None))
        assert ray.is_initialized()  # it is the caller's
    finally:
        ray.shutdown()
    assert killed and programs.missing() == []
    assert stored(tmp_path / "ray") == stored(tmp_path / "whole")
    rows = [
        json.loads(line)
        for line in programs.stages[-1].store.directory.joinpath("made_on-ray.jsonl").read_text().splitlines()
    ]
    assert sorted(row["chunk"] for row in rows) == programs.chunks.keys
    assert {row["sandbox"] for row in rows} == {programs.judging.judge.level}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'cptlab[ray]'")
def test_what_ray_cannot_do_is_a_sentence(tmp_path):
    programs = programs_in(tmp_path)
    with pytest.raises(
        UserError, match="The Ray cluster has .* CPUs, and 1000 sampling and 1 judging actors need 1001"
    ):
        RayWorkers(samplers=1000).fill(programs, functools.partial(load_policy, NODE, None))
    other = functools.partial(load_policy, NODE | {"dtype": "bfloat16"}, None)
    with pytest.raises(UserError, match=r"cannot take part .*: its backbone is \w+, and that of the machine that asks"):
        RayWorkers().fill(programs, other)


def test_settings_that_contradict_each_other():
    with pytest.raises(UserError, match="samplers=0 cannot be"):
        RayWorkers(samplers=0)
