"""`cptlab record`: steps that are run once, a failure that stops no other, tables from stored results; killed and resumed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cptlab.analysis.record import steps
from cptlab.commands import record
from cptlab.storage.atomic import write_json

SMALL = ["scale=debug", "seeds=[0]", "train.workers=1", "evaluate.workers=1"]


class Process:
    """In the place of a process: ended at the second look, so that steps can run side by side."""

    steps: list = []
    most_at_once = 0
    logs = None

    def __init__(self, line, stdout, env, **_):
        arguments = line[3:]
        self.steps.append((arguments, env))
        self.looks, self.returncode = 0, 0
        directory = next(one for one in arguments if one.startswith("hydra.run.dir=")).partition("=")[2]
        if any("no_kl" in one for one in arguments):
            stdout.write("Going well so far\nerror: The disk is full.\n")
            self.returncode = 1
        else:
            write_json(self.logs / directory / "run.json", {"digest": "d", "finished": True})

    def poll(self):
        self.looks += 1
        return self.returncode if self.looks > 1 else None


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The command in a directory of its own, nothing in the place of its processes: a list of what was run, with the environment."""
    monkeypatch.setenv("CPTLAB_LOGS", str(tmp_path))
    monkeypatch.setattr(Process, "steps", [])
    monkeypatch.setattr(Process, "logs", tmp_path)
    monkeypatch.setattr(steps.subprocess, "Popen", Process)
    monkeypatch.setattr(steps, "POLL_SECONDS", 0)
    monkeypatch.setattr(record, "draw", lambda table, *_: table.name)
    return Process.steps


def test_a_failed_step_is_named_and_stops_only_what_needs_it(ran, capsys):
    assert record.main(["cpt_table_7", "cpt_table_2", "scale=debug", "seeds=[0]"]) == 1
    said = capsys.readouterr()
    assert (
        "no_kl" in said.err
        and "The disk is full." in said.err
        and "not drawn, for want of a step: cpt_table_7" in said.err
    )
    assert "cpt_table_2" in said.out and "cpt_table_7" not in said.out
    commands = [arguments[0] for arguments, _ in ran]
    assert commands.count("train") == 6 and commands.count("evaluate") == 6  # five tuned, and base; not that of no_kl


def test_finished_steps_are_not_run_again(ran):
    assert record.main(["cpt_table_2", "scale=debug"]) == 0
    before = len(ran)
    assert record.main(["cpt_table_3", "cpt_fig_8", "scale=debug"]) == 0
    assert (
        before == 6 and len(ran) == before
    )  # base, training and evaluation, for two seeds; the other tables need no more


def test_steps_side_by_side_come_after_what_they_need_and_make_no_pairs_twice(ran, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    running, most, starts, init, poll = [], [0], [], Process.__init__, Process.poll

    def start(process, line, **kind):
        init(process, line, **kind)
        starts.append((line[3], list(running)))
        running.append((process, line[3]))
        most[0] = max(most[0], len(running))

    def look(process):
        code = poll(process)
        if code is not None:
            running[:] = [one for one in running if one[0] is not process]
        return code

    monkeypatch.setattr(Process, "__init__", start)
    monkeypatch.setattr(Process, "poll", look)
    assert record.main(["cpt_table_4", "scale=debug", "--jobs", "2"]) == 0
    assert most == [2] and len(starts) == 16  # four trainings and their evaluations, with two seeds
    assert {env["CUDA_VISIBLE_DEVICES"] for _, env in ran} == {"4,6", "5,7"}
    trainings = [others for command, others in starts if command == "train"]
    assert not trainings[0] and all(name != "train" for _, name in trainings[1])  # the first makes the pairs
    done = set()
    for arguments, _ in ran:
        needed = [one.partition("=")[2] for one in arguments if one.startswith("run=") and one != "run=null"]
        assert all(one in done for one in needed)
        done |= {one.partition("=")[2] for one in arguments if one.startswith("hydra.run.dir=")}


def test_jobs_share_the_cores_and_are_at_least_one(ran, capsys, monkeypatch):
    assert record.main(["cpt_table_2", "--jobs", "0"]) == 2
    assert "--jobs must be at least 1, got 0" in capsys.readouterr().err and not ran
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 8, 9})
    assert steps._shares(2) == [({2, 3}, None), ({5, 8, 9}, None)]
    assert all(len(cores) == 1 for cores, _ in steps._shares(7))


def test_a_dry_run_prints_commands_and_runs_none(ran, capsys, tmp_path):
    assert record.main(["cpt_table_8", "--dry-run", "scale=qwen", "backbone.path=/models/my model"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert not ran and len(lines) == 12 and "12 steps, 0 of them finished" in said.err
    assert all("'backbone.path=/models/my model'" in line for line in lines)


def test_a_table_that_trains_by_grpo_is_left_out_where_trl_is_missing(ran, capsys, monkeypatch):
    assert record.main(["reinforcement", *SMALL[:2]]) == 0
    commands = [arguments[0] for arguments, _ in ran]
    assert sorted(commands) == ["evaluate", "evaluate", "evaluate", "grpo", "train"]
    (after,) = [one for one, _ in ran if any("run=" in word and "/grpo/" in word for word in one)]
    assert after[0] == "evaluate" and "system=[tuned]" in after
    ran.clear()
    monkeypatch.setattr(record, "find_spec", lambda name: None)
    assert record.main(["reinforcement", "second_answers", *SMALL[:2]]) == 0
    assert "reinforcement: not at scale=debug: GRPO needs TRL" in capsys.readouterr().err
    assert {arguments[0] for arguments, _ in ran} == {"evaluate"}


def test_an_estimate_runs_trainings_alone(ran, capsys):
    assert record.main(["cpt_table_4", "scale=paper", "train.estimate=true", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("cptlab train ") and "estimate=true" in line for line in lines)


def test_mistakes_end_before_any_step(ran, capsys):
    assert record.main(["cpt_tabel_8"]) == 2
    assert "There is no table 'cpt_tabel_8'" in capsys.readouterr().err and not ran


@pytest.mark.slow
def test_two_tables_from_nothing_killed_once_and_resumed(tmp_path):
    where = {**os.environ, "CPTLAB_LOGS": str(tmp_path / "logs"), "CPTLAB_CACHE": str(tmp_path / "cache")}
    command = [
        sys.executable,
        "-c",
        "from cptlab.commands.cli import run; run()",
        "record",
        "cpt_table_2",
        "cpt_table_12",
        *SMALL,
    ]
    folder = tmp_path / "logs" / "record" / "debug"
    process = subprocess.Popen(command, env=where, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not list(folder.glob("train/*/config.yaml")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143 and "goes on from there" in said
    finished = {
        path: path.stat().st_mtime_ns
        for path in folder.glob("*/*/run.json")
        if json.loads(path.read_text())["finished"]
    }
    assert len(finished) == 1  # the base model's evaluation

    again = subprocess.run(command, env=where, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    assert len(list(folder.glob("*/*/run.json"))) == 3
    for table in ("cpt_table_2", "cpt_table_12"):
        assert {f"{table}.{kind}" for kind in ("md", "csv", "svg", "png")} < {
            path.name for path in (folder / table).iterdir()
        }
    stored = json.loads((folder / "cpt_table_2" / "figures.json").read_text())
    assert stored["claims"] == ["C1", "C2", "C3"] and stored["seeds"] == [0]
    ours = next(
        one
        for one in stored["figures"]
        if (one["row"], one["difficulty"], one["metric"]) == ("ours", "all", "pylint_mean")
    )
    (tuned,) = folder.glob("evaluate/*tuned*/metrics.json")
    told = json.loads(tuned.read_text())["results"]["tuned"]["all"]
    assert [ours["value"], ours["lo"], ours["hi"]] == [told["pylint_mean"], *told["pylint_mean_ci"]]
    rows = list(csv.DictReader((folder / "cpt_table_2" / "cpt_table_2.csv").open()))
    assert {row["system"] for row in rows} == {"base", "ours"}
