"""Pairs and evaluations with other scorers than pylint: the scores are theirs, and nothing calls them pylint's."""

import json

import pytest
from run_commands import TINY, command

from cptlab.judging.scorers.bandit import Bandit
from cptlab.judging.scorers.ruff import Ruff
from cptlab.judging.scorers.scorer import score_all
from cptlab.pairs import read_pairs
from cptlab.records import Completion, Quality
from cptlab.reporting.comparison import ComparedSystem, combine
from cptlab.storage.jsonl import read_jsonl
from cptlab.tasks.kata import kata


def evaluated(where, *overrides):
    """Evaluate programs of three tasks, of which every second one starts a shell; return the run directory."""
    rows = []
    for task in kata().split("test", 3):
        for ending in ("", "\nimport os\nos.system('ls')  # nosec\n"):
            rows.append(json.dumps({"task_id": task.id, "solution": task.canonical_solution + ending}))
    (where / "mine.jsonl").write_text("\n".join(rows) + "\n")
    quiet = ("logger=none", "workers=1", "print_config=false", "benchmark=kata")
    command("evaluate", where, *quiet, f"completions={where}/mine.jsonl", *overrides)
    return where / "logs/evaluate/runs/now"


@pytest.mark.slow
def test_an_evaluation_with_bandit(tmp_path, capsys):
    run = evaluated(tmp_path, "scorer=bandit", "optimized_metric=given/all/bandit_mean")
    printed = capsys.readouterr().out
    programs = [one.program for one in read_jsonl(run / "given/completions.jsonl", Completion)]
    qualities = list(read_jsonl(run / "given/quality.jsonl", Quality))
    assert qualities == score_all(Bandit(), programs, workers=1)
    metrics = json.loads((run / "metrics.json").read_text())
    found = metrics["results"]["given"]["all"]
    assert found["bandit_mean"] == pytest.approx(sum(one.score for one in qualities) / len(qualities))
    assert found["bandit_max"] == 10 > found["bandit_min"] and found["bandit_messages"] > 0 and found["lines"] > 0
    assert metrics["scorer"]["name"] == "bandit"
    files = [*(run / "tables").iterdir(), *(run / "figures").glob("*.svg"), run / "given/quality.jsonl"]
    assert len(files) > 10
    for text in (printed, *(file.read_text() for file in files)):
        assert "pylint" not in text.lower()
    page = (run / "report.html").read_text()
    assert "bandit score" in page and "Bandit issues" in page and page.lower().count("pylint") == 1  # its version


@pytest.mark.slow
def test_scores_of_two_scorers_are_not_compared(tmp_path):
    from cptlab.errors import UserError

    runs = []
    for scorer in ("ruff", "pylint"):
        (tmp_path / scorer).mkdir()
        runs.append(evaluated(tmp_path / scorer, f"scorer={scorer}"))
    with pytest.raises(UserError, match="Evaluate both with one scorer"):
        combine([ComparedSystem(run, label=str(i)) for i, run in enumerate(runs)])


@pytest.mark.slow
def test_pairs_by_ruff(tmp_path):
    directory = command(
        "pairs", tmp_path, *TINY[:3], "workers=1", "print_config=false", "scorer=ruff", "pairs.refine=message_lines"
    )
    pairs = list(read_pairs(directory / "pairs.jsonl"))
    assert pairs
    programs = {}
    for file in tmp_path.glob("cache/kept-*/*.jsonl"):
        programs |= {one.program: one for one in read_jsonl(file, Completion)}
    by_id = {task.id: task for task in kata().split("train", 9) + kata().split("validation", 3)}
    for pair in pairs:
        for side in ("better", "worse"):
            program = (
                by_id[pair.task_id].prompt.code + getattr(pair, side).removesuffix(pair.closing).rstrip("\n") + "\n"
            )
            (quality,) = score_all(Ruff(), [program], workers=1)
            assert quality.score == pytest.approx(getattr(pair, f"{side}_score")), program
        assert pair.better_score - pair.worse_score > 1
    assert json.loads((directory / "statistics.json").read_text())["scorer"] == "ruff"


def test_extra_disabled_is_about_pylint(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("evaluate", tmp_path, "benchmark=kata", "backbone=kata_lm", "run=null", "system=base", "scorer=ruff",
                "extra_disabled=[W0612]")  # fmt: skip
    assert "this scorer is another" in capsys.readouterr().err
