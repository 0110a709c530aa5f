"""Tasks and pairs that the context does not hold are left out, counted and listed; pairs of another tokenizer are recut."""

import json
from dataclasses import replace

import pytest
from run_commands import TINY, command

from cptlab.backbone import load_backbone
from cptlab.commands.shared.common import EXCLUDED, TOO_LONG
from cptlab.decoding import Sampling, positions_needed
from cptlab.pairs import read_pairs, write_pairs
from cptlab.tasks.kata import kata

QUIET = ["logger=none", "print_config=false", "workers=1"]
BASE = ["run=null", "backbone=kata_lm", "benchmark=kata", "system=[base,spa]", "n=1", *QUIET]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    where = tmp_path_factory.mktemp("built")
    command("pairs", where, *TINY[:3], "workers=1", "print_config=false")
    return where


def lengths(tasks):
    backbone, one = load_backbone("kata-lm"), Sampling(max_new_tokens=1)
    return {task.id: positions_needed(backbone, task.prompt, one) - 1 for task in tasks}


def test_an_evaluation_leaves_out_long_tasks_and_says_so(tmp_path, capsys):
    tasks = kata().split("test", 6)
    prompt = lengths(tasks)
    most = sorted(prompt.values())[3]
    fits = [task.id for task in tasks if prompt[task.id] <= most]
    long = [task.id for task in tasks if prompt[task.id] > most]
    assert long and fits
    command("evaluate", tmp_path, *BASE, "limit=6", f"decoding.sampling.max_new_tokens={1024 - most}")
    run = tmp_path / "logs/evaluate/runs/now"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["left_out"] == {EXCLUDED: [], TOO_LONG: long}
    assert metrics["results"]["base"]["all"]["tasks"] == len(fits)
    for name in ("tasks", "base/completions", "spa/verdicts"):
        assert len((run / f"{name}.jsonl").read_text().splitlines()) == len(fits)
    printed = capsys.readouterr()
    assert f"{len(long)} of 6 tasks, such as {long[0]}" in printed.err
    noted = f"Tasks left out: {len(long)} {TOO_LONG}."
    assert noted in printed.out and noted in (run / "tables/quality.md").read_text()
    assert noted in (run / "report.html").read_text()


def test_where_no_task_fits_the_remedy_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("evaluate", tmp_path, *BASE, "limit=3", "decoding.sampling.max_new_tokens=1024")
    said = capsys.readouterr().err
    assert "None of the 3 tasks fits into the 1024 tokens of kata-lm together with 1024 new ones" in said
    assert "Lower decoding.sampling.max_new_tokens" in said and not (tmp_path / "logs/evaluate/runs/now").exists()


@pytest.mark.slow
def test_pairs_are_built_of_the_tasks_that_fit(built, tmp_path):
    benchmark = kata()
    prompt = lengths(benchmark.split("train", 9) + benchmark.split("validation", 3))
    most = sorted(prompt.values())[9]
    command("pairs", tmp_path, *TINY[:3], "workers=1", f"decoding.sampling.max_new_tokens={1024 - most}")
    statistics = json.loads(next(tmp_path.glob("cache/pairs/*/statistics.json")).read_text())
    assert statistics["left_out"] == {TOO_LONG: [task for task, length in prompt.items() if length > most]}
    assert statistics["filters"]["tasks"] == sum(length <= most for length in prompt.values())


@pytest.mark.slow
def test_pairs_are_made_by_the_checks_that_count(built):
    """Without the messages that most programs have, other pairs are found, and kept apart."""
    before = {path: path.read_bytes() for path in built.glob("cache/pairs/*/pairs.jsonl")}
    ids = {line["id"] for path in built.glob("cache/quality-*/0*.jsonl") for row in path.read_text().splitlines()
           for line in json.loads(row).get("messages", [])}  # fmt: skip
    directory = command("pairs", built, *TINY[:3], "workers=1", f"extra_disabled=[{','.join(sorted(ids)[:3])}]")
    assert directory / "pairs.jsonl" not in before and len(before) == 1
    assert {path: path.read_bytes() for path in before} == before
    scores = [
        {pair.task_id: pair.worse_score for pair in read_pairs(path)} for path in (*before, directory / "pairs.jsonl")
    ]
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_pairs_of_another_tokenizer_are_cut_and_masked_anew(built, tmp_path, capsys):
    own = next(built.glob("cache/pairs/*/pairs.jsonl"))
    by_letters = [
        replace(pair, better_mask=(1,) * len(pair.better), worse_mask=(1,) * len(pair.worse))
        for pair in read_pairs(own)
    ]
    write_pairs(tmp_path / "other.jsonl", by_letters)
    command("train", tmp_path, *TINY, *QUIET, f"data.pairs_file={tmp_path}/other.jsonl")
    assert "other.jsonl was made with another tokenizer" in capsys.readouterr().err
    assert next(tmp_path.glob("cache/pairs/*/pairs.jsonl")).read_bytes() == own.read_bytes()


@pytest.mark.slow
def test_training_leaves_out_long_pairs(built, tmp_path, capsys):
    pairs = read_pairs(next(built.glob("cache/pairs/*/pairs.jsonl")))
    long = replace(pairs[0], task_id="kata/long", instruction="x = 1\n" * 400)
    write_pairs(tmp_path / "mine.jsonl", [*pairs, long])
    command("train", tmp_path, *TINY, *QUIET, f"data.pairs_file={tmp_path}/mine.jsonl")
    assert f"1 of {len(pairs) + 1} pairs, such as kata/long" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "logs/train/runs/now/metrics.json").read_text())
    assert metrics["left_out"] == {TOO_LONG: ["kata/long"]}
