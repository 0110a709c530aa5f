"""Pairs that are injected, rewritten or mixed, through the command; and what a model trained on them prefers."""

import json
from collections import Counter
from pathlib import Path

import pytest
from run_commands import TINY, command, config

from cptlab.commands.prefer import prefer
from cptlab.commands.shared.build_pairs import build_pairs, find_pairs
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.pairs import read_pairs
from cptlab.records import Pair
from cptlab.settings.entry import prepare
from cptlab.settings.instantiate import instantiate
from cptlab.tasks.kata import kata

SMALL = ["pairs.train_tasks=9", "pairs.validation_tasks=3", "workers=1", "print_config=false"]


def programs(pair: Pair) -> tuple[str, str]:
    code = "" if pair.instruction.endswith('"""') else pair.instruction.rpartition("\n")[2]
    return code + pair.better, code + pair.worse


def check(pairs: list[Pair], exactly_one: bool) -> None:
    """What pylint and the tests say of both programs of each pair."""
    tasks = {task.id: task for task in kata().tasks}
    both = [program for pair in pairs for program in programs(pair)]
    qualities = score_programs(both, workers=1)
    verdicts = judge_programs(
        [(program, tasks[pair.task_id]) for pair in pairs for program in programs(pair)], workers=1
    )
    for place, pair in enumerate(pairs):
        better, worse = qualities[2 * place : 2 * place + 2]
        assert (better.score, worse.score) == (pair.better_score, pair.worse_score) and better.score > worse.score
        assert verdicts[2 * place] == verdicts[2 * place + 1]
        more = Counter(one.id for one in worse.messages) - Counter(one.id for one in better.messages)
        assert not exactly_one or len(more) == 1 and not better.messages


def test_injected_pairs_differ_in_one_message_and_in_no_verdict(tmp_path, capsys):
    directory = command("pairs", tmp_path, "pairs=injected", "pairs.per_task=2", *SMALL)
    pairs = read_pairs(directory / "pairs.jsonl")
    assert {pair.split for pair in pairs} == {"train", "validation"}
    assert max(Counter(pair.task_id for pair in pairs).values()) == 2
    check(pairs, exactly_one=True)
    statistics = json.loads((directory / "statistics.json").read_text())
    assert sum(statistics["injected"]["by_message"].values()) == len(pairs)
    assert statistics["both_pass_public"] == 1.0
    before = (directory / "pairs.jsonl").read_bytes()
    (directory / "sha256sums").unlink()  # as a kill before the end leaves it; the stores are there
    again = command("pairs", tmp_path, "pairs=injected", "pairs.per_task=2", *SMALL)
    assert again == directory and (again / "pairs.jsonl").read_bytes() == before


def test_a_message_that_nothing_can_be_given_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("pairs", tmp_path, "pairs=injected", "pairs.messages=[R1723]", *SMALL)
    assert "No pairs are left: of 12 tasks 12 have a program to edit, and of 0 edited" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("pairs", tmp_path, "pairs=injected", "pairs.messages=[R9999]", *SMALL)
    assert "pairs.messages=[R9999] cannot be: it must be a list of some of C0121" in capsys.readouterr().err


@pytest.mark.slow
def test_rewritten_renamed_and_mixed_pairs_and_what_is_learnt_of_them(tmp_path):
    check(read_pairs(command("pairs", tmp_path, "pairs=rewritten", "pairs.n=6", *SMALL) / "pairs.jsonl"), False)
    own = command("pairs", tmp_path, "pairs=injected", "pairs.source=model", "pairs.n=6", *SMALL)
    check(read_pairs(own / "pairs.jsonl"), False)
    plain, aligned, ches = (
        read_pairs(command("pairs", tmp_path, "pairs=kata", "pairs.n=6", *SMALL, *more) / "pairs.jsonl")
        for more in ([], ["pairs.align_names=true"], ["pairs.selection.prefer=ches"])
    )
    assert [(one.task_id, one.better, one.worse_score) for one in aligned] == [
        (one.task_id, one.better, one.worse_score) for one in plain
    ]
    masked = [sum(sum(one.better_mask) + sum(one.worse_mask) for one in some) for some in (plain, aligned)]
    assert masked[1] < masked[0]
    assert {one.task_id for one in ches} == {one.task_id for one in plain}
    parts = [
        f"pairs.parts.{part}.{size}"
        for part in ("sampled", "injected")
        for size in ("train_tasks=9", "validation_tasks=3")
    ]
    mixed = [
        "pairs=mixed",
        *parts,
        "pairs.parts.sampled.n=6",
        "pairs.shares.sampled=0.75",
        "pairs.shares.injected=0.25",
    ]
    options = ["workers=1", "print_config=false"]
    composed = config("train", tmp_path, *mixed, *options, "logger=none")
    prepare(composed)
    backbone = instantiate(composed.backbone, "backbone")
    directory = build_pairs(composed, backbone)
    assert find_pairs(composed, backbone) == directory / "pairs.jsonl"
    counts = json.loads((directory / "statistics.json").read_text())["mixed"]
    assert counts["sampled"] > counts["injected"] > 0
    tiny = [one for one in TINY if not one.startswith("pairs.")]
    margin = command(
        "train", tmp_path, *mixed, *tiny, *options[1:], "logger=none", "optimized_metric=preference/margin"
    )
    (run,) = tmp_path.glob("logs/train/runs/*")
    assert json.loads((run / "metrics.json").read_text())["metrics"]["preference/margin"] == margin
    asked = config("prefer", tmp_path, f"run={run}", "workers=1", "print_config=false", "optimized_metric=tuned/margin")
    prepare(asked)
    assert prefer(asked, tmp_path / "logs/prefer/runs/now") == pytest.approx(margin, abs=1e-5)
    found = json.loads((tmp_path / "logs/prefer/runs/now/preference.json").read_text())
    assert found["systems"]["tuned"]["all"]["margin"] > found["systems"]["base"]["all"]["margin"]
    assert (tmp_path / "logs/prefer/runs/now/tables/preference.md").is_file()


def test_what_is_not_there_to_prefer_is_said(tmp_path):
    for overrides, said in (
        (["run=null"], "Nothing says which backbone to judge"),
        (["run=null", "backbone=kata_lm"], "Nothing says which pairs to judge on"),
        (["run=null", "backbone=kata_lm", "pairs_file=x.jsonl"], "There is no pairs file x.jsonl"),
    ):
        asked = config("prefer", tmp_path, *overrides, "print_config=false")
        prepare(asked)
        with pytest.raises(Exception, match=said):
            prefer(asked, Path(tmp_path) / "now")
