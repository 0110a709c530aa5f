"""Tables, figures and report of stored evaluation runs, against plain loops over the same records."""

from __future__ import annotations

import ast
import csv
import functools
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cptlab.commands.report import main
from cptlab.errors import UserError
from cptlab.metrics import definitions, statistics, summary
from cptlab.metrics.definitions import CORRECTNESS, LENGTH, MESSAGES, QUALITY
from cptlab.records import Completion, Message, Prompt, Quality, Task, Test, Verdict
from cptlab.reporting import issues, layout, make_report, read_evaluation, side_by_side, tables
from cptlab.reporting.curves import read_curves
from cptlab.reporting.evaluation import compute_metrics
from cptlab.reporting.figures import add_captions
from cptlab.reporting.layout import Table
from cptlab.reporting.page.table import to_html
from cptlab.storage.jsonl import write_jsonl

ISSUES = {
    "R1705": "no-else-return",
    "C0200": "consider-using-enumerate",
    "W0612": "unused-variable",
    "E0602": "undefined-variable",
    "W0622": "redefined-builtin",
}
HOSTILE = "</pre><script>alert('x')</script> | <b>"


def store_run(directory: Path, tasks: int = 9, samples: int = 6, seed: int = 0, systems=("base", "tuned")) -> Path:
    """A run of random records; a program that is 'not_parsed' carries E0001 and scores 0."""
    draw = random.Random(seed)
    levels = ("introductory", "interview", "competition")
    found = [
        Task(
            f"kata/{i}",
            "kata",
            "test",
            levels[i % 3],
            "call",
            Prompt(f"Do {i}. {HOSTILE}\ndef f(x):", "def f(x):"),
            "f",
        )
        for i in range(tasks)
    ]
    write_jsonl(directory / "tasks.jsonl", found)
    for number, system in enumerate(systems):
        completions, qualities, verdicts = [], [], []
        for task in found:
            for sample in range(samples):
                broken = draw.random() < 0.15
                codes = [code for code in ISSUES if draw.random() < (0.3 if number else 0.5)]
                messages = [
                    Message(code, ISSUES[code], draw.randint(1, 3)) for code in codes for _ in range(draw.randint(1, 2))
                ]
                if broken:
                    messages = [Message("E0001", "syntax-error", 2)]
                cost = sum(5 if m.id[0] == "E" else 1 for m in messages)
                score = 0.0 if broken else max(0.0, 10 - 10 * cost / 12)
                status = "not_parsed" if broken else draw.choice(["passed", "passed", "failed", "error", "timeout"])
                more = "\n\n    y += 1" * (sample % 2)
                text = f"\n    y = {sample}  # {HOSTILE}{more}\n    return x"
                program = task.prompt.code + text
                completions.append(Completion(task.id, sample, text, program, 9 + sample, draw.random() < 0.9))
                qualities.append(
                    Quality(score, (12 + sample) * (not broken), False, tuple(messages), draw.randint(0, 1))
                )
                verdicts.append(Verdict(status, HOSTILE if status == "error" else ""))
        write_jsonl(directory / system / "completions.jsonl", completions)
        write_jsonl(directory / system / "quality.jsonl", qualities)
        write_jsonl(directory / system / "verdicts.jsonl", verdicts)
    (directory / "config.yaml").write_text(f"seed: {seed}\nnote: {HOSTILE}\n")
    provenance = {
        "versions": {"pylint": "4.1.4"},
        "git": {"commit": "abc", "dirty": False},
        "seeds": [seed],
        "wall_seconds": 3.5,
    }
    (directory / "metrics.json").write_text(json.dumps({"results": {}, "differences": {}} | provenance))
    return directory


def raw_rows(directory: Path, system: str) -> list[tuple[dict, dict, dict]]:
    """(completion, quality, verdict) as plain JSON, for references that share no code with the package."""
    names = ("completions", "quality", "verdicts")
    return list(
        zip(*([json.loads(line) for line in open(directory / system / f"{n}.jsonl")] for n in names), strict=True)
    )


def take_few_resamples(patch: pytest.MonkeyPatch) -> None:
    """Bootstrap intervals from 100 resamples in place of 2000: what is tested here is not how narrow they are."""
    for name in ("bootstrap_ci", "paired_difference"):
        patch.setattr(summary, name, functools.partial(getattr(statistics, name), resamples=100))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    take_few_resamples(monkeypatch)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return store_run(tmp_path_factory.mktemp("reporting") / "run")


@pytest.fixture(scope="module")
def run(stored):
    return read_evaluation(stored)


def test_levels_and_samples_of_a_run(run):
    assert list(run.systems) == ["base", "tuned"] and run.baseline == "base" and run.others == ("tuned",)
    assert {level: len(tasks) for level, tasks in run.levels.items()} == {
        "introductory": 3,
        "interview": 3,
        "competition": 3,
        "all": 9,
    }
    assert run.samples_per_task == "6 samples"
    assert run.provenance["git"] == {"commit": "abc", "dirty": False} and "results" not in run.provenance


@pytest.mark.parametrize("per_task", [None, 1, 3])
def test_issue_counts_and_scores_are_those_of_a_plain_loop(run, stored, per_task):
    for system in ("base", "tuned"):
        counts, scores, kept = {}, {}, {}
        for completion, quality, verdict in raw_rows(stored, system):
            if verdict["status"] == "not_parsed" or kept.get(completion["task_id"], 0) == per_task:
                continue
            kept[completion["task_id"]] = kept.get(completion["task_id"], 0) + 1
            seen = []
            for message in quality["messages"]:
                counts[message["id"]] = counts.get(message["id"], 0) + 1
                if message["id"] not in seen:
                    seen.append(message["id"])
                    scores.setdefault(message["id"], []).append(quality["score"])
        found = issues.count_issues(issues.valid_programs(run, system, per_task))
        assert {code: issue.count for code, issue in found.items()} == counts
        assert {code: issue.programs for code, issue in found.items()} == {c: len(s) for c, s in scores.items()}
        for code, issue in found.items():
            assert issue.score == pytest.approx(sum(scores[code]) / len(scores[code])) and issue.symbol == ISSUES[code]


def test_issue_table_is_grouped_and_its_changes_add_up(run):
    table = issues.issues_table(run)
    assert [row[0][:3] for row in table.rows if len(row) == 1] == ["[E]", "[R]", "[C]", "[W]"]
    section = ""
    for row in table.rows:
        if len(row) == 1:
            section = row[0][1]
            continue
        code, _, before, after, change, *_ = row
        difference = int(after) - int(before)
        assert code[0] == section
        assert change == (f"↓{-difference}" if difference < 0 else f"↑{difference}" if difference else "0")
    assert "54 base" not in table.note  # some programs do not parse
    top = issues.top_issues_table(run, 2)
    assert len(top.rows) == 2
    most = sorted((row for row in table.rows if len(row) > 1), key=lambda row: -max(int(n) for n in row[2:4]))[0]
    assert top.rows[0] == (*most[:3], f"{most[3]} ({most[4]})")


def test_an_issue_that_one_system_lacks_has_no_score(tmp_path):
    directory = store_run(tmp_path, tasks=3, samples=1)
    write_jsonl(directory / "base/quality.jsonl", [Quality(5.0, 4, False, (Message("W0702", "bare-except", 1),))] * 3)
    write_jsonl(directory / "tuned/quality.jsonl", [Quality(10.0, 4, False)] * 3)
    for system in ("base", "tuned"):
        write_jsonl(directory / system / "verdicts.jsonl", [Verdict("passed")] * 3)
    table = issues.issues_table(read_evaluation(directory))
    assert table.rows[1:] == (("W0702", "bare-except", "3", "0", "↓3", "5.00", "–"),)
    assert list(csv.DictReader(layout.to_csv(table).splitlines()))[0]["tuned_mean_score"] == ""


def test_verdict_counts_are_those_of_a_plain_loop(run, stored):
    table = {(r["difficulty"], r["system"]): r for r in tables.verdicts_table(run).records}
    level_of = {json.loads(line)["id"]: json.loads(line)["difficulty"] for line in open(stored / "tasks.jsonl")}
    for system in ("base", "tuned"):
        rows = raw_rows(stored, system)
        for level in ("interview", "all"):
            mine = [r for r in rows if level == "all" or level_of[r[0]["task_id"]] == level]
            record = table[level, system]
            assert record["programs"] == len(mine) == sum(record[status] for status in tables.STATUSES)
            for status in ("passed", "timeout", "not_parsed"):
                assert record[status] == sum(1 for _, _, v in mine if v["status"] == status)
            assert record["cut_off"] == sum(1 for c, _, _ in mine if not c["finished"])
            assert record["with_pragmas"] == sum(1 for _, q, _ in mine if q["pragmas"])


def test_scores_and_pass_rates_are_those_of_a_plain_loop(run, stored):
    metrics = compute_metrics(run)
    quality, correct, length, messages = (
        {(r["system"], r["difficulty"], r["metric"]): r for r in tables.family_table(run, metrics.results, one).records}
        for one in (QUALITY, CORRECTNESS, LENGTH, MESSAGES)
    )
    level_of = {json.loads(line)["id"]: json.loads(line)["difficulty"] for line in open(stored / "tasks.jsonl")}
    for system in ("base", "tuned"):
        for level in ("introductory", "interview", "competition", "all"):
            scores, passes, counts, statements = {}, {}, {}, {}
            for completion, found, verdict in raw_rows(stored, system):
                task = completion["task_id"]
                if level in ("all", level_of[task]):
                    scores.setdefault(task, []).append(found["score"])
                    passes.setdefault(task, []).append(verdict["status"] == "passed")
                    unread, codes = verdict["status"] == "not_parsed", [m["id"][0] for m in found["messages"]]
                    row = [codes.count(category) * (not unread) for category in "EWRC"]
                    lines = completion["program"].replace("\n\n", "\n").count("\n") + 1
                    counts.setdefault(task, []).append([*row, unread, completion["tokens"], lines])
                    if not unread:
                        statements.setdefault(task, []).append(found["statements"])
            counts = np.array(list(counts.values())).mean(axis=1).mean(axis=0)
            kinds = [f"pylint_{kind}" for kind in ("errors", "warnings", "refactors", "conventions")]
            for metric, value in zip((*kinds, "not_parsed"), 100 * counts[:5], strict=True):
                assert messages[system, level, metric]["value"] == pytest.approx(value)
            expected = {"statements": np.mean([np.mean(some) for some in statements.values()])}
            expected |= {"tokens": counts[5], "lines": counts[6]}
            assert {name: length[system, level, name]["value"] for name in expected} == pytest.approx(expected)
            for metric, take in (("mean", lambda s: sum(s) / len(s)), ("max", max), ("min", min)):
                record = quality[system, level, f"pylint_{metric}"]
                expected = sum(take(s) for s in scores.values()) / len(scores)
                assert record["value"] == pytest.approx(expected) and record["lo"] <= expected <= record["hi"]
                assert record["tasks"] == len(scores)
            # k = 5 of n = 6 fails only where fewer than one of every five passes: average over what is left out
            subsets = [[any(p[:i] + p[i + 1 :]) for i in range(6)] for p in passes.values()]
            assert correct[system, level, "pass@1"]["value"] == pytest.approx(
                sum(sum(p) / 6 for p in passes.values()) / len(passes)
            )
            assert correct[system, level, "pass@5"]["value"] == pytest.approx(
                sum(sum(s) / 6 for s in subsets) / len(subsets)
            )
    differences = {
        (r["difficulty"], r["metric"]): r for r in tables.differences_table(run, metrics.differences).records
    }
    for (level, metric), record in differences.items():
        both = quality | correct | length | messages
        expected = both["tuned", level, metric]["value"] - both["base", level, metric]["value"]
        assert record["value"] == pytest.approx(expected, abs=1e-12) and record["lo"] <= expected <= record["hi"]


def test_best_and_median_samples(run, stored):
    best = [sample.quality.score for sample in issues.best_programs(run, "tuned")]
    grouped = {}
    for completion, quality, _ in raw_rows(stored, "tuned"):
        grouped.setdefault(completion["task_id"], []).append(quality["score"])
    assert best == [max(scores) for scores in grouped.values()]
    for task, scores in grouped.items():
        assert side_by_side.median_program(run.systems["tuned"][task]).quality.score == sorted(scores)[2]


def test_examples_are_the_extremes_and_the_median(run):
    chosen = side_by_side.choose_tasks(run, "tuned")
    assert len(chosen) == 9  # three tasks a difficulty: each is one of the three
    for level in ("introductory", "interview", "competition"):
        changes = [example.change for example in chosen if example.task.difficulty == level]
        assert changes == sorted(changes, reverse=True)


def test_the_renderings_of_a_table_agree():
    table = Table(
        "t",
        "T | <i>",
        ("A", "x", "y"),
        (("one|two",), ("a", "1 [0, 2]", "")),
        ({"k": 1.5, "m": None},),
        groups=(("g", 2),),
    )
    lines = layout.to_markdown(table).splitlines()
    assert lines[0] == "**T \\| &lt;i>**" and lines[2] == "| A | g<br>x | g<br>y |"
    assert {line.replace("\\|", "").count("|") for line in lines[2:] if line} == {4}
    assert layout.to_csv(table) == "k,m\n1.5,\n"
    assert "<td>1 <span class='interval'>[0, 2]</span></td>" in to_html(table, "t")
    text = layout.to_text(table).splitlines()
    assert text[1] == text[4] == text[-1] and len(text[1]) == len("A  1 [0, 2]  y") and "one|two" in text


def store_training(directory: Path, steps: tuple[int, int] = (60, 20)) -> Path:
    for number, (total, terms) in enumerate(zip(steps, (("l_rank", "l_lm", "l_kl"), ("l_nll",)), strict=True), 1):
        folder = directory / f"stage{number}"
        folder.mkdir(parents=True)
        rows = [f"{s},1,{','.join(str(1 / (s + i)) for i in range(len(terms)))}" for s in range(1, total + 1)]
        (folder / "steps.csv").write_text("\n".join([f"step,epoch,{','.join(terms)}", *rows]) + "\n")
        head = "step,epoch,val_delta_a_per_token,val_delta_b_per_token,val_accuracy,val_fell_a,val_kl_masked"
        (folder / "epochs.csv").write_text(f"{head}\n{total},1,0.1,-0.2,0.75,0.25,0.01\n")
    return directory


def test_the_second_stage_follows_the_first(tmp_path):
    first, second = read_curves(store_training(tmp_path / "outer").parent)
    assert (first.start, second.start) == (0, 60)
    assert first.of_steps("l_rank")[:2] == [(1, 1.0), (2, 0.5)] and first.of_steps("l_nll") == []
    assert second.of_steps("l_nll")[-1] == (80, 1 / 20) and second.of_epochs("val_accuracy") == [(80, 0.75)]
    with pytest.raises(UserError, match="no training curves"):
        read_curves(tmp_path / "elsewhere")
    (tmp_path / "outer/stage1/steps.csv").write_text("step,l_rank\n1,abc\n")
    with pytest.raises(UserError, match="steps.csv, line 2"):
        read_curves(tmp_path / "outer")


def test_curves_of_the_training_run_that_is_named_in_the_metrics(stored, tmp_path):
    directory = shutil.copytree(stored, tmp_path / "run")
    for named, shown in ((tmp_path / "gone", False), (store_training(tmp_path / "train"), True)):
        (directory / "metrics.json").write_text(json.dumps({"training_run": str(named)}))
        make_report(directory)
        assert (directory / "figures/training.svg").exists() == shown


def test_the_k_of_the_metrics_are_shown(stored, tmp_path):
    directory = shutil.copytree(stored, tmp_path / "run")
    (directory / "metrics.json").write_text(
        json.dumps({"results": {"base": {"all": {"pass@6": 1, "pass@6_ci": [0, 1]}}}})
    )
    assert "pass@6 (%)" in make_report(directory).read_text()
    run = read_evaluation(directory)
    assert run.ks == (6,) and set(tables.family_table(run, compute_metrics(run).results, CORRECTNESS).columns) == {
        "System",
        "P@6",
    }
    with pytest.raises(UserError, match="pass@7"):
        compute_metrics(replace(run, ks=(7,)))


@pytest.mark.parametrize("systems", [1, 2, 3])
def test_texts_of_a_narrow_figure_stay_inside_and_apart(systems):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1, 4.0), layout="constrained")
    axes = figure.subplots()
    for number in range(systems):
        axes.bar([number], [1.0], label=f"system {number}")
    title = "Functional correctness: pass@k in percent, 20 samples per task"
    add_captions(figure, title, "bars: mean over tasks; whiskers: 95% bootstrap interval over tasks", axes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [one.get_window_extent() for one in (*figure.texts, *figure.legends)]
    assert len(shown) == 3 and all(axes.bbox.width > 100 for axes in figure.axes)
    assert all(0 <= one.x0 and one.x1 <= figure.bbox.x1 and one.y1 <= figure.bbox.y1 for one in shown)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(shown, 2))


def test_figures_are_over_the_tasks_that_every_system_has_samples_of(stored, tmp_path):
    directory = shutil.copytree(stored, tmp_path / "run")
    rows = {
        name: (directory / f"base/{name}.jsonl").read_text().splitlines(True)
        for name in ("completions", "quality", "verdicts")
    }
    for name, lines in rows.items():  # no sample of kata/0, two of kata/1 fewer, the rest backwards
        (directory / f"base/{name}.jsonl").write_text("".join(lines[8:][::-1]))
    run = read_evaluation(directory)
    assert run.samples_per_task == "4 to 6 samples"
    assert [task.id for task in run.tasks] == [f"kata/{i}" for i in range(1, 9)]
    assert all(set(answers) == {task.id for task in run.tasks} for answers in run.systems.values())
    sample = run.systems["base"]["kata/3"][-1]
    assert (
        sample.completion.sample == 0 and sample.quality == read_evaluation(stored).systems["base"]["kata/3"][0].quality
    )
    metrics = compute_metrics(run)
    assert metrics.results["base"]["all"]["tasks"] == metrics.differences["tuned"]["all"]["tasks"] == 8
    assert "4 to 6 samples per task" in tables.family_table(run, metrics.results, QUALITY).title
    make_report(directory)


def test_tests_that_do_not_count_stand_in_a_column_of_their_own(tmp_path):
    directory = store_run(tmp_path, tasks=4, samples=3)
    hard = {"public_tests": (), "difficulty": "competition"}
    easy = {"public_tests": (Test(code="assert f(1)"),), "difficulty": "introductory"}
    tasks = [
        replace(task, uncounted="public", **(hard if number == 0 else easy))
        for number, task in enumerate(read_evaluation(directory).tasks)
    ]
    write_jsonl(directory / "tasks.jsonl", tasks)
    for system in ("base", "tuned"):
        verdicts = [Verdict("passed", by_rule={} if number < 3 else {"public": "failed"}) for number in range(12)]
        write_jsonl(directory / system / "verdicts.jsonl", verdicts)
    run = read_evaluation(directory)
    metrics = compute_metrics(run)
    table = tables.family_table(run, metrics.results, CORRECTNESS)
    assert table.columns == ("System", *("P@1", "public P@1") * 3)
    assert [cell.split()[0] for cell in table.rows[0][1:]] == ["100.0", "0.0", "100.0", "–", "100.0", "0.0"]
    assert "which do not count in P; over the 3 tasks that have some" in table.note
    make_report(directory)


def test_an_interval_over_one_task_is_said_to_be_none(tmp_path):
    said = "One task alone has none"
    for count, alone in ((1, True), (9, False)):
        run = read_evaluation(store_run(tmp_path / str(count), tasks=count))
        found = compute_metrics(run)
        assert (said in tables.family_table(run, found.results, QUALITY).note) == alone
        assert (said in tables.differences_table(run, found.differences).note) == alone


def test_tasks_without_difficulty_and_with_a_second_rule(tmp_path):
    directory = store_run(tmp_path, tasks=4, samples=3)
    tasks = [replace(task, difficulty="", rules=("strict", "official")) for task in read_evaluation(directory).tasks]
    write_jsonl(directory / "tasks.jsonl", tasks)
    for system in ("base", "tuned"):
        status = "failed" if system == "base" else "passed"
        verdict = Verdict(status, by_rule={"strict": status, "official": "passed"})
        write_jsonl(directory / system / "verdicts.jsonl", [verdict] * 12)
    run = read_evaluation(directory)
    assert list(run.levels) == ["all"]
    metrics = compute_metrics(run)
    table = tables.family_table(run, metrics.results, CORRECTNESS)
    assert table.columns == ("System", "P@1", "official P@1")
    assert [row[1].split()[0] for row in table.rows] == ["0.0", "100.0"]
    assert [row[2].split()[0] for row in table.rows] == ["100.0", "100.0"]
    changes = tables.differences_table(run, metrics.differences).rows
    assert ("Functional correctness (pass@k, percentage points)",) in changes
    assert ("tuned", "P@1", "+100.0 [+100.0, +100.0]") in changes
    assert ("tuned", "official P@1", "+0.0 [+0.0, +0.0]") in changes
    make_report(directory)


def files_of(directory: Path) -> dict[str, bytes]:
    made = [*directory.glob("tables/*"), *directory.glob("figures/*"), directory / "report.html"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in made}


def test_the_report_is_complete_self_contained_and_the_same_each_time(stored, tmp_path):
    counted = []
    training = store_training(tmp_path / "train")
    page = make_report(stored, train_directory=training, progress=counted.append)
    first = files_of(stored)
    assert sorted(first) == sorted(
        [
            f"tables/{n}.{k}"
            for n in ("quality", "correctness", "length", "messages", "differences", "issues", "verdicts", "answers")
            for k in ("md", "csv")
        ]
        + [f"figures/{n}.{k}" for n in ("quality", "correctness", "issues", "training") for k in ("svg", "png")]
        + ["report.html"]
    )
    assert sum(counted) == 8 + 4 + 1 and not list(stored.rglob("*.partial"))
    again = shutil.copytree(stored, tmp_path / "moved")
    for path in again.glob("*/*.md"):
        path.unlink()
    make_report(again, train_directory=training)
    assert files_of(again) == first
    text = page.read_text()
    assert "versions.pylint" in text and "kata is a synthetic benchmark" in text


def test_printing_needs_neither_torch_nor_matplotlib(stored):
    code = (
        "import sys, cptlab.reporting as r; r.print_tables(sys.argv[1]);"
        "print([m for m in ('torch', 'lightning', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code, stored], capture_output=True, text=True, check=True).stdout
    assert out.endswith("[]\n")
    for word in ("Code quality", "Functional correctness", "introductory", "change", "R1705", "not parsed"):
        assert word in out


@pytest.mark.parametrize("systems", [("base",), ("base", "tuned", "with spa")])
def test_one_system_or_three(tmp_path, systems):
    directory = store_run(tmp_path, tasks=3, samples=2, systems=systems)
    page = make_report(directory)
    assert list(read_evaluation(directory).systems) == list(systems)
    assert (directory / "tables/differences.md").exists() == (len(systems) > 1)
    header = (directory / "tables/issues.csv").read_text().splitlines()[0]
    assert all(f"{system}_count" in header and system in page.read_text() for system in systems)


SIX = ("plain", "tuned", "clean_prompt", "best_of_4", "a", "z_and_more")


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six systems in an order that is not the alphabet's, with costs of two of them."""
    directory = store_run(tmp_path_factory.mktemp("six") / "run", tasks=6, samples=3, systems=SIX)
    cost = {"plain": {"programs": 1, "tokens": 20.5}, "best_of_4": {"programs": 4, "tokens": 81.25}}
    facts = json.loads((directory / "metrics.json").read_text()) | {"systems": list(SIX), "cost": cost}
    (directory / "metrics.json").write_text(json.dumps(facts))
    return directory


def test_the_order_of_systems_is_that_of_the_evaluation(six, tmp_path):
    evaluation = read_evaluation(six)
    assert tuple(evaluation.systems) == SIX and evaluation.baseline == "plain" and evaluation.others == SIX[1:]
    assert not {"systems", "cost", "results"} & set(evaluation.provenance)
    older = shutil.copytree(six, tmp_path / "older")
    (older / "metrics.json").write_text(json.dumps({"results": {"z_and_more": {}, "tuned": {}, "gone": {}}}))
    assert list(read_evaluation(older).systems) == ["z_and_more", "tuned", "a", "best_of_4", "clean_prompt", "plain"]
    (older / "metrics.json").write_text(json.dumps({"systems": ["a", "gone"]}))
    with pytest.raises(UserError, match="gone/completions.jsonl is missing"):
        read_evaluation(older)


def test_changes_are_counted_against_any_system(six, tmp_path, capsys):
    directory = shutil.copytree(six, tmp_path / "run")
    forwards, backwards = (
        compute_metrics(read_evaluation(directory, name)).differences for name in ("tuned", "best_of_4")
    )
    assert set(forwards) == set(SIX) - {"tuned"} and set(backwards) == set(SIX) - {"best_of_4"}
    there, back = forwards["best_of_4"]["all"], backwards["tuned"]["all"]
    for metric in ("pylint_mean", "pass@1"):
        assert there[metric] == pytest.approx(-back[metric]) and there[metric] != 0
        assert there[f"{metric}_ci"] == pytest.approx([-end for end in reversed(back[f"{metric}_ci"])])
    assert main([str(directory), "--against", "best_of_4"]) == 0
    out = capsys.readouterr().out
    assert "Changes are against best_of_4" in out and "change against best_of_4" in out
    assert "Change against best_of_4" in (directory / "tables/differences.md").read_text()
    assert "tasks: best_of_4 and plain" in (directory / "report.html").read_text()
    assert main([str(directory), "--against", "worst"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "no system 'worst'" in said


def test_costs_stand_beside_the_quality(six, stored):
    evaluation = read_evaluation(six)
    results = compute_metrics(evaluation).results
    table = tables.cost_table(evaluation, results)
    assert [row[:3] for row in table.rows] == [
        ("plain", "1", "20.5"), ("tuned", "–", "–"), ("clean_prompt", "–", "–"), ("best_of_4", "4", "81.2"),
        ("a", "–", "–"), ("z_and_more", "–", "–"),
    ]  # fmt: skip
    assert table.records[3]["tokens_drawn"] == 81.25
    assert table.records[3]["pylint_mean"] == results["best_of_4"]["all"]["pylint_mean"]
    assert "Tokens drawn" in make_report(six).read_text() and (six / "tables/cost.csv").exists()
    assert "Tokens drawn" not in make_report(stored).read_text()


def test_a_further_metric_is_in_every_table_and_figure(stored, tmp_path, monkeypatch):
    directory = shutil.copytree(stored, tmp_path / "run")

    def lower_median(programs):
        return sorted(program.quality.score for program in programs)[(len(programs) - 1) // 2]

    median = definitions.Metric("pylint_median", "Median", "median pylint score", QUALITY, lower_median)
    monkeypatch.setattr(definitions, "METRICS", (*definitions.METRICS, median))
    make_report(directory)
    for name in ("quality", "differences"):
        assert "Median" in (directory / f"tables/{name}.md").read_text()
    assert (
        "<!-- Median -->" in (directory / "figures/quality.svg").read_text()
    )  # matplotlib names what it draws as paths
    found = compute_metrics(read_evaluation(directory)).results["tuned"]["all"]["pylint_median"]
    scores = {}
    for completion, quality, _ in raw_rows(directory, "tuned"):
        scores.setdefault(completion["task_id"], []).append(quality["score"])
    assert found == pytest.approx(sum(sorted(some)[2] for some in scores.values()) / 9)


def test_nothing_in_reporting_or_metrics_names_a_system():
    package = Path(summary.__file__).parents[1]
    for path in (*(package / "reporting").glob("*.py"), *(package / "metrics").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant):
                assert node.value not in ("base", "tuned", "given"), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "name",
    [
        "tasks.jsonl",
        "metrics.json",
        "config.yaml",
        "base/completions.jsonl",
        "tuned/quality.jsonl",
        "base/verdicts.jsonl",
    ],
)
def test_a_missing_file_is_named_with_a_remedy(stored, tmp_path, capsys, name):
    directory = shutil.copytree(stored, tmp_path / "run")
    (directory / name).unlink()
    if name == "base/completions.jsonl":  # then the folder is no system at all
        (directory / "tuned/completions.jsonl").unlink()
        name = "completions.jsonl"
    before = sorted(directory.rglob("*"))
    with pytest.raises(UserError, match=f"{re.escape(name)}.*cptlab evaluate"):
        read_evaluation(directory)
    assert main([str(directory)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and name in err and err.count("\n") == 1
    assert sorted(directory.rglob("*")) == before


def test_files_that_do_not_fit_together_are_refused(stored, tmp_path):
    with pytest.raises(UserError, match="no directory"):
        read_evaluation(tmp_path / "nowhere")
    directory = shutil.copytree(stored, tmp_path / "run")
    path = directory / "tuned/verdicts.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="54 completions, 54 quality scores, 53 verdicts"):
        read_evaluation(directory)
    path.write_text("".join(lines))
    tasks = (directory / "tasks.jsonl").read_text().splitlines(keepends=True)
    (directory / "tasks.jsonl").write_text("".join(tasks[1:]))
    with pytest.raises(UserError, match="completions.jsonl, record 1: task 'kata/0'"):
        read_evaluation(directory)
    (directory / "tasks.jsonl").write_text(tasks[0].replace("kata/0", "kata/new"))
    for system in ("base", "tuned"):
        for name in ("completions", "quality", "verdicts"):
            (directory / system / f"{name}.jsonl").rename(directory / system / f"{name}.aside")
            (directory / system / f"{name}.jsonl").touch()
    with pytest.raises(UserError, match="no task of which every system has samples"):
        read_evaluation(directory)
    for path in directory.glob("*/*.aside"):
        path.rename(path.with_suffix(".jsonl"))
    (directory / "metrics.json").write_text("{")
    (directory / "tasks.jsonl").write_text("".join(tasks))
    with pytest.raises(UserError, match="metrics.json is not JSON"):
        read_evaluation(directory)
    with pytest.raises(UserError, match="0 programs per task"):
        issues.issues_table(read_evaluation(stored), 0)
