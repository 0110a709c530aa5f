"""The tables of a record, drawn from made-up runs: every kind, against plain loops over the same JSON."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from cptlab.analysis.record.draw import draw
from cptlab.analysis.record.ledger import HOLDS, NOT_ASKED, Record, judge_claims
from cptlab.analysis.record.ledger_page import ledger_page
from cptlab.errors import UserError
from cptlab.metrics import statistics
from cptlab.records import Completion, Message, Prompt, Quality, Task, Verdict
from cptlab.reporting.packing import pack_run
from cptlab.review.store import REVIEW_FILE, Review
from cptlab.settings.record_plan import plan
from cptlab.storage.atomic import write_json
from cptlab.storage.jsonl import write_jsonl

SYMBOLS = {"R1705": "no-else-return", "C0200": "consider-using-enumerate", "W0612": "unused-variable"}
HOSTILE = "</pre><script>alert(1)</script>"
N, LEVELS = 5, ("introductory", "interview", "competition")
TASKS = [
    Task(f"toy/{i}", "toy", "test", LEVELS[i % 3], "call", Prompt(f"Do {HOSTILE}\ndef f():", "def f():"), "f")
    for i in range(12)
]


def store_run(directory, system, seed):
    """One system's programs: the same for the same seed."""
    at_random = random.Random(seed)
    rows = []
    for task in TASKS:
        for sample in range(N):
            codes = [code for code in SYMBOLS for _ in range(at_random.randint(0, 2))]
            messages = tuple(Message(code, SYMBOLS[code], at_random.randint(1, 2)) for code in codes)
            status = at_random.choice(["passed", "failed"])
            program = f"def f():\n    return '{HOSTILE}', {seed}, {sample}"
            rows.append(
                (
                    Completion(task.id, sample, program, program, 10 + sample, True),
                    Quality(max(0.0, 10 - 1.5 * len(messages)), 6, False, messages),
                    Verdict(status),
                )
            )
    write_jsonl(directory / "tasks.jsonl", TASKS)
    for name, records in zip(("completions", "quality", "verdicts"), zip(*rows, strict=True), strict=True):
        write_jsonl(directory / system / f"{name}.jsonl", records)
    (directory / "config.yaml").write_text("n: 5\n")
    facts = {"n": N, "machine": {"cores": 2}, "sampling_seconds": {system: 1.0 + seed % 7}}
    results = {system: {"all": {"tasks": len(TASKS), "pass@1": 0.5, "pass@5": 0.9}}}
    cost = {system: {"programs": 1.0, "tokens": 12.0}}
    write_json(directory / "metrics.json", {"systems": [system], "results": results, "cost": cost} | facts)


def store_training(directory, seed):
    facts = {"trainable_parameters": 1000 + seed, "adapter_numbers": 100, "epochs": 4, "training_seconds": 480.0}
    write_json(directory / "metrics.json", facts | {"estimate": {"parameters": 10**6}, "machine": {"cores": 2}})


def made(name, record, seeds="[0,1]"):
    """Store made-up runs for every step of a table and draw it; (table, folder, figures.json)."""
    (table,) = plan([name], "kata", [f"seeds={seeds}"])
    for number, step in enumerate(table.steps()):
        if step.command == "train":
            store_training(record / step.name, number)
        else:
            store_run(record / step.name, "made", number)
    folder = draw(table, record, f"cptlab record {name}")
    return table, folder, json.loads((folder / "figures.json").read_text())


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(statistics.bootstrap_ci, "__defaults__", (0.95, 0, 50))
    monkeypatch.setattr(statistics.hierarchical_ci, "__defaults__", (0.95, 0, 50))


def rows_of(table, record, label, seed):
    """(quality, verdict) of every program of a row under its seed-th seed, as plain JSON."""
    step = next(row for row in table.rows if row.label == label).steps[seed]
    files = [
        (record / step.name / "made" / f"{name}.jsonl").read_text().splitlines() for name in ("quality", "verdicts")
    ]
    return [(json.loads(quality), json.loads(verdict)) for quality, verdict in zip(*files, strict=True)]


def per_task(rows):
    return [rows[start : start + N] for start in range(0, len(rows), N)]


def found(figures, **wanted):
    (one,) = [one for one in figures["figures"] if all(one[key] == value for key, value in wanted.items())]
    return one


def test_scores_are_means_over_tasks_and_seeds(tmp_path):
    table, folder, figures = made("cpt_table_7", tmp_path)
    lowest = {
        label: [
            [min(q["score"] for q, _ in task) for task in per_task(rows_of(table, tmp_path, label, s))] for s in (0, 1)
        ]
        for label in ("no_rank", "ours")
    }
    mean = {label: sum(map(sum, seeds)) / 24 for label, seeds in lowest.items()}
    one = found(figures, row="no_rank", difficulty="all", metric="pylint_min")
    assert one["value"] == pytest.approx(mean["no_rank"])
    assert one["change"] == pytest.approx(mean["no_rank"] - mean["ours"])
    assert one["seeds"] == 2 and one["tasks"] == 12 and one["change_lo"] <= one["change"] <= one["change_hi"]
    assert "change" not in found(figures, row="ours", difficulty="all", metric="pylint_min")
    text = (folder / "cpt_table_7.md").read_text()
    assert all(row.label in text for row in table.rows) and "Means over 2 seeds" in text


def test_messages_are_counted_as_a_plain_loop_does(tmp_path):
    table, folder, figures = made("cpt_table_12", tmp_path)
    counts = {
        label: [
            Counter(m["id"] for q, _ in rows_of(table, tmp_path, label, seed) for m in q["messages"]) for seed in (0, 1)
        ]
        for label in ("base", "ours")
    }
    for code in SYMBOLS:
        one = found(figures, row="ours", metric=f"count/{code}")
        means = {label: (first[code] + second[code]) / 2 for label, (first, second) in counts.items()}
        assert one["value"] == pytest.approx(means["ours"]) and one["change"] == pytest.approx(
            means["ours"] - means["base"]
        )
    shares = [sum(counts["ours"][s][code] <= counts["base"][s][code] for code in SYMBOLS) / 3 for s in (0, 1)]
    assert found(figures, row="ours", metric="share_of_messages_not_more_frequent")["value"] == pytest.approx(
        sum(shares) / 2
    )
    assert (
        f"| {counts['base'][0]['R1705']} | {counts['ours'][0]['R1705']} |" in (folder / "cpt_table_12.md").read_text()
    )


def test_messages_that_are_named_stand_there_even_where_nobody_has_them(tmp_path):
    _, folder, _ = made("cpt_fig_8", tmp_path)
    lines = (folder / "cpt_fig_8.md").read_text().splitlines()
    assert sum(line.startswith(("| W", "| R", "| C0")) for line in lines) == 8
    assert "highest score" in lines[-1]


@pytest.mark.parametrize("name, rule", [("cpt_fig_12", "repaired"), ("cpt_fig_13", "left"), ("spa_fig_5", "solved")])
def test_programs_side_by_side_are_those_of_the_rule(tmp_path, name, rule):
    table, folder, figures = made(name, tmp_path, "[0]")
    (before, after) = (per_task(rows_of(table, tmp_path, row.label, 0)) for row in table.rows)

    def middle(task):
        return len(sorted((q for q, _ in task), key=lambda q: q["score"])[(N - 1) // 2]["messages"])

    def change(number):
        if rule == "solved":
            passed = [sum(v["status"] == "passed" for _, v in side[number]) for side in (before, after)]
            return passed[1] - passed[0]
        return middle(before[number]) - middle(after[number]) if rule == "repaired" else middle(after[number])

    text = (folder / f"{name}.md").read_text()
    for level, offset in zip(LEVELS, range(3), strict=True):
        most = max(range(offset, 12, 3), key=change)
        assert (
            change(most) <= 0
            or f"## toy/{most} ({level})" in text
            or sum(change(i) == change(most) for i in range(offset, 12, 3)) > 1
        )
    assert "<script>" not in text
    assert found(figures, metric="tasks_with_this_change")["value"] == sum(change(i) > 0 for i in range(12))


def test_a_review_sheet_does_not_say_whose_a_program_is(tmp_path):
    table, folder, figures = made("cpt_table_11", tmp_path, "[0]")
    sheet, key = (folder / "review_sheet.md").read_text(), (folder / "review_key.csv").read_text().splitlines()
    assert len(key) - 1 == len(TASKS) == sheet.count("## Pair ")  # all of their programs run
    assert "ours" not in sheet and "base" not in sheet and "<script>" not in sheet
    assert {line.split(",")[2] for line in key[1:]} == {"base", "ours"}  # neither is always on the left
    shares = [found(figures, metric=f"{name}_by_pylint")["value"] for name in ("better", "worse", "same")]
    assert sum(shares) == pytest.approx(1)
    assert not [one for one in figures["figures"] if one["metric"].endswith("_by_reviewers")]
    assert "No person has reviewed all pairs yet" in (folder / "cpt_table_11.md").read_text()


def c16(record):
    """The verdict and the evidence on claim C16."""
    (finding,) = [one for one in judge_claims(Record(record)) if one.claim.id == "C16"]
    return finding.verdict, [one.figures for one in finding.evidence]


def test_votes_of_those_who_finished_make_table_xi_and_decide_c16(tmp_path):
    table, folder, _ = made("cpt_table_11", tmp_path, "[0]")
    assert c16(tmp_path) == (NOT_ASKED, []) and "It needs people" in ledger_page([Record(tmp_path)])
    review = Review(tmp_path / REVIEW_FILE)
    key = [line.split(",") for line in (folder / "review_key.csv").read_text().splitlines()[1:]]
    for name, worse in (("Ada", 1), ("Bo", 2), ("Cy", None)):
        reviewer = review.add_reviewer(name)
        for number, (_, _, left, _) in enumerate(key[: 12 if worse else 5], 1):
            wanted = "base" if worse and number <= worse else "ours"
            review.vote(reviewer, number, "same" if number == 12 else "left" if left == wanted else "right")
    draw(table, tmp_path, "cptlab record cpt_table_11")
    figures, text = json.loads((folder / "figures.json").read_text()), (folder / "cpt_table_11.md").read_text()
    assert (
        "| Ada | 12 of 12 | 10 | 1 | 1 | 91.7 |" in text and "| Bo | 12 of 12 | 9 | 2 | 1 | 91.7 |" in text
    )  # pair 2 ties
    assert "Cy (5 of 12)" in text and "| Cy |" not in text and "pylint's score (no person)" in text
    values = {
        name: found(figures, row="ours", metric=f"{name}_by_reviewers") for name in ("better", "worse", "same", "lead")
    }
    assert [one["value"] for one in values.values()] == pytest.approx([19 / 24, 3 / 24, 2 / 24, 16 / 24])
    assert all(one["lo"] <= one["value"] <= one["hi"] and one["reviewers"] == 2 for one in values.values())
    verdict, (evidence,) = c16(tmp_path)
    assert verdict == HOLDS and evidence.startswith("+66.7 points [")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    draw(table, tmp_path, "cptlab record cpt_table_11")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(UserError, match="votes about other pairs"):
        draw(replace(table, options={"pairs": 4}), tmp_path, "cptlab record cpt_table_11")


def test_costs_are_those_of_the_trainings(tmp_path):
    _, folder, figures = made("cpt_table_6", tmp_path)
    one = found(figures, row="ours", metric="minutes_per_epoch")
    assert one["value"] == 2.0 and one["seeds"] == 2
    assert "2.00" in (folder / "cpt_table_6.md").read_text()


def test_every_baseline_has_a_line_with_its_cost(tmp_path):
    table, folder, figures = made("baselines", tmp_path, "[0]")
    text = (folder / "baselines.md").read_text()
    assert all(f"| {row.label} |" in text for row in table.rows)
    trained = {one["row"] for one in figures["figures"] if one["metric"] == "training_minutes"}
    assert trained == {row.label for row in table.rows if row.steps[0].needs is not None} and len(trained) == 10


def test_the_overhead_is_the_ratio_of_seconds_a_token(tmp_path):
    _, _, figures = made("spa_overhead", tmp_path)
    one = found(figures, row="spa", metric="times")
    assert [one["lo"], one["hi"]] == sorted([(1.0 + 2) / (1.0 + 0), (1.0 + 3) / (1.0 + 1)])


def test_the_same_results_give_the_same_bytes(tmp_path):
    table, folder, _ = made("cpt_fig_10", tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"cpt_fig_10.svg", "cpt_fig_10.png", "changes.md", "figures.json"} <= set(before)
    draw(table, tmp_path, "cptlab record cpt_fig_10")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_packed_record_gives_the_same_ledger_and_holds_no_program(tmp_path):
    record, packed = tmp_path / "made" / "kata", tmp_path / "kata"
    for name in ("cpt_table_7", "cpt_table_6", "cpt_fig_12", "cpt_table_11"):
        _, folder, _ = made(name, record)
        content = json.loads((folder / "figures.json").read_text())
        write_json(
            folder / "figures.json",
            content | {"command": f"cptlab record {name} backbone.path=/models/my/qwen seeds=[0]"},
        )
    pack_run(record, packed)
    assert ledger_page([Record(packed)]) == ledger_page([Record(record)]).replace("/models/my/qwen", "qwen")
    kept = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    assert {"cpt_table_7/cpt_table_7.md", "cpt_table_7/changes.csv", "cpt_fig_12/figures.json"} <= kept
    assert not [
        name
        for name in kept
        if "review" in name or name == "cpt_fig_12/cpt_fig_12.md" or name.startswith(("train/", "evaluate/"))
    ]
    assert all(HOSTILE not in path.read_text() for path in packed.rglob("*") if path.is_file())
