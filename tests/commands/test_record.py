"""`cptlab record`: steps that are run once, a failure that stops no other, tables from stored results; killed and resumed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cptlab.commands import record
from cptlab.storage.atomic import write_json

SMALL = ["scale=debug", "seeds=[0]", "train.workers=1", "evaluate.workers=1"]


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The command in a directory of its own, its steps in the place of processes: a list of what was run."""
    monkeypatch.setenv("CPTLAB_LOGS", str(tmp_path))
    steps = []

    def run(arguments, log):
        steps.append(arguments)
        directory = next(one for one in arguments if one.startswith("hydra.run.dir=")).partition("=")[2]
        if any("no_kl" in one for one in arguments):
            log.write_text("Going well so far\nerror: The disk is full.\n")
            return 1
        write_json(tmp_path / directory / "run.json", {"digest": "d", "finished": True})
        return 0

    monkeypatch.setattr(record, "_run", run)
    monkeypatch.setattr(record, "draw", lambda table, *_: table.name)
    return steps


def test_a_failed_step_is_named_and_stops_only_what_needs_it(ran, capsys):
    assert record.main(["cpt_table_7", "cpt_table_2", "scale=debug", "seeds=[0]"]) == 1
    said = capsys.readouterr()
    assert (
        "no_kl" in said.err
        and "The disk is full." in said.err
        and "not drawn, for want of a step: cpt_table_7" in said.err
    )
    assert "cpt_table_2" in said.out and "cpt_table_7" not in said.out
    commands = [arguments[0] for arguments in ran]
    assert commands.count("train") == 6 and commands.count("evaluate") == 6  # five tuned, and base; not that of no_kl


def test_finished_steps_are_not_run_again(ran):
    assert record.main(["cpt_table_2", "scale=debug"]) == 0
    before = len(ran)
    assert record.main(["cpt_table_3", "cpt_fig_8", "scale=debug"]) == 0
    assert (
        before == 6 and len(ran) == before
    )  # base, training and evaluation, for two seeds; the other tables need no more


def test_a_dry_run_prints_commands_and_runs_none(ran, capsys, tmp_path):
    assert record.main(["cpt_table_8", "--dry-run", "scale=qwen", "backbone.path=/models/my model"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert not ran and len(lines) == 12 and "12 steps, 0 of them finished" in said.err
    assert all("'backbone.path=/models/my model'" in line for line in lines)


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
