"""The report of a sweep against plain loops over the stored records, and what tells configurations apart."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from test_reporting import raw_rows, store_run
from wandb_file import read_offline_run

from cptlab.commands.report import main
from cptlab.errors import UserError
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.reporting.sweep.configurations import facts_of, find_reference, label_all
from cptlab.reporting.sweep.report import make_sweep_report
from cptlab.reporting.sweep.results import read_sweeps

DEFAULTS = {"ablation": "full", "objective": "cpt", "adapter": "prefix"}
JOBS = [("full", 1), ("full", 2), ("no_rank", 1), ("no_rank", 2)]


def training_record(ablation, seed, *overrides, **choices):
    choices = {"ablation": ablation, "objective": "cpt", "adapter": "prefix", "benchmark": "kata"} | choices
    return {"choices": choices, "overrides": [f"ablation={ablation}", f"seed={seed}", *overrides], "seed": seed}


def store_job(sweep, number, ablation, seed, *, finished=True, benchmark="kata", overrides=()):
    """An evaluation of base and tuned, whose base programs are those of every other job."""
    run = store_run(sweep / str(number), seed=100 * seed + len(ablation), systems=("base", "tuned"))
    base = store_run(sweep.parent / "base", seed=0, systems=("base",))
    for file in (base / "base").iterdir():
        (run / "base" / file.name).write_bytes(file.read_bytes())
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {
        "benchmark": benchmark, "split": "test", "seed": 0,
        "run": {"choices": {"decoding": "paper", "system": ["base", "tuned"]}, "overrides": ["n=6"], "benchmark": benchmark},
        "training": {"tuned": training_record(ablation, seed, *overrides)},
        "parts": {"tuned": {"run": f"/logs/train/multiruns/s/{number}"}, "base": {"run": None}},
    }  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "run.json").write_text(json.dumps({"digest": str(number), "finished": finished}))
    return run


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    where = tmp_path_factory.mktemp("sweeps") / "evaluations"
    for number, job in enumerate(JOBS):
        store_job(where, number, *job)
    store_job(where, 4, "no_lm", 1, finished=False)
    (where / "failures").mkdir()
    (where / "failures" / "5.json").write_text(
        json.dumps({"number": 5, "overrides": "run=x", "sentence": "The disk is full.", "code": 1})
    )
    return where


def of_tasks(run, system):
    """metric -> difficulty -> the value of each task, by a plain loop."""
    tasks = {task["id"]: task for task in map(json.loads, (run / "tasks.jsonl").read_text().splitlines())}
    scores, passed = {}, {}
    for completion, quality, verdict in raw_rows(run, system):
        scores.setdefault(completion["task_id"], []).append(quality["score"])
        passed.setdefault(completion["task_id"], []).append(verdict["status"] == "passed")
    values = {
        "pylint_mean": {task: np.mean(found) for task, found in scores.items()},
        "pylint_max": {task: max(found) for task, found in scores.items()},
        "pylint_min": {task: min(found) for task, found in scores.items()},
        "pass@1": {task: np.mean(found) for task, found in passed.items()},
    }
    levels = {None: "all"} | {task["difficulty"]: task["difficulty"] for task in tasks.values()}
    return {
        metric: {
            level: [found[task] for task in tasks if difficulty in (None, tasks[task]["difficulty"])]
            for difficulty, level in levels.items()
        }
        for metric, found in values.items()
    }


def records(folder, name):
    return list(csv.DictReader((folder / "tables" / f"{name}.csv").open()))


def test_means_intervals_and_paired_differences_are_those_of_a_plain_loop(sweep, tmp_path):
    make_sweep_report([sweep], tmp_path, defaults=DEFAULTS)
    loops = {
        "base": [of_tasks(sweep / "0", "base")],
        "full": [of_tasks(sweep / str(i), "tuned") for i in (0, 1)],
        "no_rank": [of_tasks(sweep / str(i), "tuned") for i in (2, 3)],
    }
    found = records(tmp_path, "quality") + records(tmp_path, "correctness")
    assert {row["configuration"] for row in found} == set(loops)
    for row in found:
        if row["metric"] not in loops["base"][0]:
            continue
        table = np.array([one[row["metric"]][row["difficulty"]] for one in loops[row["configuration"]]], dtype=float)
        assert float(row["value"]) == pytest.approx(table.mean()) and int(row["seeds"]) == len(table)
        assert (float(row["lo"]), float(row["hi"])) == pytest.approx(hierarchical_ci(table))
    changes = records(tmp_path, "differences")
    assert {row["configuration"] for row in changes} == {"base", "no_rank"}  # against full
    for row in changes:
        if row["metric"] not in loops["base"][0]:
            continue
        place = row["metric"], row["difficulty"]
        full = np.array([one[place[0]][place[1]] for one in loops["full"]], dtype=float)
        other = np.array([one[place[0]][place[1]] for one in loops[row["configuration"]]], dtype=float)
        assert float(row["value"]) == pytest.approx((other - full).mean())  # base pairs with both seeds
        assert (float(row["lo"]), float(row["hi"])) == pytest.approx(hierarchical_ci(other - full))


def test_the_report_is_complete_names_what_is_left_out_and_is_the_same_each_time(sweep, tmp_path, capsys):
    assert main([str(sweep), "--output", str(tmp_path / "one")]) == 0
    said = capsys.readouterr().out
    assert "Change against full, paired by seed and task" in said
    assert re.search(r"Left out: .*/4 is not finished", said) and "job 5 (run=x): The disk is full." in said
    failed = sweep / "5" / "run.json"  # as a job that fails on the way leaves it
    failed.parent.mkdir()
    failed.write_text('{"finished": false}')
    assert main([str(sweep), "--output", str(tmp_path / "again")]) == 0
    assert "/5 is not finished" not in capsys.readouterr().out
    shutil.rmtree(failed.parent)
    make_sweep_report([sweep], tmp_path / "two", defaults=DEFAULTS)
    files = [sorted(path for path in (tmp_path / side).rglob("*") if path.is_file()) for side in ("one", "two")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert {"tradeoff.svg", "quality.csv", "differences.md", "seeds.csv", "runs.md", "report.html"} <= {
        path.name for path in files[0]
    }
    for first, second in zip(*files, strict=True):
        assert first.name in ("report.html",) or first.read_bytes() == second.read_bytes()
    page = files[0][[path.name for path in files[0]].index("report.html")].read_text()
    assert "The disk is full." in page and not re.search(r"(?:src|href)=['\"]https?:", page)


def test_another_reference(sweep, tmp_path):
    (report,), _ = make_sweep_report([sweep], tmp_path, "no_rank", DEFAULTS)
    assert set(report.differences) == {"base", "full"} and "no_rank" in report.tables["differences"].title
    with pytest.raises(UserError, match="Choose one of base, full, no_rank"):
        make_sweep_report([sweep], tmp_path, "no_kl", DEFAULTS)


def test_seeds_and_runs_are_named(sweep, tmp_path):
    make_sweep_report([sweep], tmp_path, defaults=DEFAULTS)
    seeds = records(tmp_path, "seeds")
    assert [(row["configuration"], row["training_seed"]) for row in seeds] == [
        ("base", ""),
        *((a, str(s)) for a, s in JOBS),
    ]
    runs = records(tmp_path, "runs")
    assert [row["training_run"] for row in runs] == ["–", *(f"multiruns/s/{i}" for i in range(4))]


def test_benchmarks_are_reported_apart(tmp_path):
    store_job(tmp_path / "sweep", 0, "full", 1)
    store_job(tmp_path / "sweep", 1, "full", 1, benchmark="humaneval")
    results, _ = read_sweeps([tmp_path / "sweep"])
    assert [one.about for one in results] == ["kata, test tasks", "humaneval, test tasks"]
    make_sweep_report([tmp_path / "sweep"], tmp_path / "out", defaults=DEFAULTS)
    assert (tmp_path / "out/tables/kata_test_tasks_quality.csv").is_file()
    assert (tmp_path / "out/figures/humaneval_test_tasks_tradeoff.svg").is_file()


def test_only_the_tasks_that_all_have_count_and_that_is_said(tmp_path):
    store_job(tmp_path / "sweep", 0, "full", 1)
    run = store_job(tmp_path / "sweep", 1, "full", 2)
    lines = (run / "tasks.jsonl").read_text().splitlines(keepends=True)
    first = json.loads(lines[0])["id"]
    (run / "tasks.jsonl").write_text("".join(lines[1:]))
    for system in ("base", "tuned"):
        kept = [
            i for i, row in enumerate((run / system / "completions.jsonl").read_text().splitlines())
            if json.loads(row)["task_id"] != first
        ]  # fmt: skip
        for name in ("completions", "quality", "verdicts"):
            file = run / system / f"{name}.jsonl"
            rows = file.read_text().splitlines(keepends=True)
            file.write_text("".join(rows[i] for i in kept))
    ((results,), _) = read_sweeps([tmp_path / "sweep"])
    assert len(results.levels["all"]) == len(lines) - 1 and "of up to" in results.notes[0]


def test_a_sweep_of_training_runs_is_to_be_evaluated_first(tmp_path):
    (tmp_path / "train" / "0" / "prefix").mkdir(parents=True)
    (tmp_path / "train" / "0" / "run.json").write_text('{"digest": "x", "finished": true}')
    with pytest.raises(UserError, match="cptlab evaluate runs="):
        read_sweeps([tmp_path / "train"])
    assert main([str(tmp_path / "none")]) == 2


@pytest.mark.slow
def test_the_sweep_has_a_run_in_wandb_that_is_linked_to_its_jobs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for number, job in enumerate(JOBS[:2]):
        run = store_job(tmp_path / "sweep", number, *job)
        record = {"digest": "x", "finished": True, "name": f"evaluate-seed{job[1]}", "group": "the-sweep"}
        (run / "run.json").write_text(json.dumps(record))
    assert main([str(tmp_path / "sweep")]) == 0
    assert not (tmp_path / "sweep" / "wandb").exists()  # its jobs were not logged to W&B
    for number in range(2):
        (tmp_path / "sweep" / str(number) / "wandb.json").write_text(json.dumps({"id": f"job{number}"}))
    assert main([str(tmp_path / "sweep"), "--logger", "none"]) == 0
    assert not (tmp_path / "sweep" / "wandb").exists()
    assert main([str(tmp_path / "sweep")]) == 0 and "W&B: " in capsys.readouterr().out
    found = read_offline_run(tmp_path / "sweep")
    assert (found.runs[0].run_group, found.runs[0].job_type) == ("the-sweep", "report")
    assert {(job["name"], job["id"]) for job in found.config["jobs"]} == {
        ("evaluate-seed1", "job0"), ("evaluate-seed2", "job1")
    }  # fmt: skip
    (row,) = (r for r in records(tmp_path / "sweep", "quality")
              if (r["configuration"], r["difficulty"], r["metric"]) == ("tuned", "all", "pylint_mean"))  # fmt: skip
    assert found.summary["tuned/all/pylint_mean"] == pytest.approx(float(row["value"]))
    assert found.summary["tuned/all/pylint_mean_low"] == pytest.approx(float(row["lo"]))
    media = {re.sub(r"_\d+_[0-9a-f]+", "", path.name) for path in found.files}
    assert {"quality.table.json", "differences.table.json", "jobs.table.json", "tradeoff.png", "report.html"} <= media


EVALUATION = {"choices": {"decoding": "paper"}, "overrides": ["n=5"], "backbone": "kata_lm", "benchmark": "kata"}


def labels(*trainings, systems=None):
    systems = systems or ["tuned"] * len(trainings)
    facts = [facts_of(name, EVALUATION, one) for name, one in zip(systems, trainings, strict=True)]
    return label_all([facts_of("base", EVALUATION, None), *facts])


@pytest.mark.parametrize(
    ("trainings", "expected", "reference"),
    [
        ([training_record("full", 1), training_record("full", 2)], ["tuned", "tuned"], "tuned"),
        ([training_record("no_lm", 1), training_record("full", 1)], ["no_lm", "full"], "full"),
        (
            [training_record("full", 1, objective="dpo"), training_record("full", 1, objective="orpo")],
            ["dpo", "orpo"],
            "base",  # none of them is the default
        ),
        (
            [training_record("full", 1, "adapter.length=4"), training_record("full", 1)],
            ["adapter.length=4", "adapter.length=default"],
            "adapter.length=default",
        ),
        (
            [training_record("full", 1), training_record("no_kl", 1, adapter="lora")],
            ["ablation=full, adapter=prefix", "ablation=no_kl, adapter=lora"],
            "ablation=full, adapter=prefix",
        ),
    ],
)
def test_configurations_are_told_apart_by_what_differs(trainings, expected, reference):
    found = labels(*trainings)
    assert [one.label for one in found] == ["base", *expected]
    assert find_reference(found, DEFAULTS) == reference


def test_systems_of_one_training_run_are_told_apart():
    one = training_record("full", 1)
    assert [f.label for f in labels(one, one, systems=["tuned", "tuned_ruff_fix"])] == [
        "base",
        "tuned",
        "tuned_ruff_fix",
    ]
