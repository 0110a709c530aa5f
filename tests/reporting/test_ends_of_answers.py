"""How answers ended, what training pairs were like, and what the user is told, on small stored runs."""

import json

import pytest
from test_reporting import raw_rows, store_run

from cptlab.records import Completion, Quality, Verdict
from cptlab.reporting import answers, make_report, read_evaluation, tables
from cptlab.reporting.evaluation import compute_metrics
from cptlab.reporting.report import print_tables
from cptlab.storage.jsonl import write_jsonl

STATISTICS = {
    "pairs": {"all": {"train": 8, "validation": 2, "test": 1, "all": 11}},
    "empty_mask_rate": {"better": 0.25, "worse": 0.5, "both": 0.125},
    "masked_share": {"better": 0.1, "worse": 0.2, "both": 0.15},
    "masked_without_message": 0.934,
    "filters": {"samples": 1234, "small_gap": 5},
}


def stored(directory, endings, **facts):
    """A run of one system and task whose answers are (status, finished, cleaned, tokens)."""
    store_run(directory, tasks=1, samples=len(endings), systems=("base",))
    rows = [
        (Completion("kata/0", i, "x", "x = 1", tokens, finished, cleaned), Quality(5.0, 1, False), Verdict(status))
        for i, (status, finished, cleaned, tokens) in enumerate(endings)
    ]
    for name, records in zip(("completions", "quality", "verdicts"), zip(*rows, strict=True), strict=True):
        write_jsonl(directory / "base" / f"{name}.jsonl", records)
    found = json.loads((directory / "metrics.json").read_text())
    (directory / "metrics.json").write_text(json.dumps(found | facts))
    return read_evaluation(directory)


PASSED = ("passed", True, False, 9)
CUT_OFF = ("not_parsed", False, False, 64)
NO_PROGRAM = ("not_parsed", True, False, 30)


def test_the_answers_of_a_run_are_those_of_a_plain_loop(tmp_path):
    run = read_evaluation(store_run(tmp_path, seed=3))
    table = {(record["difficulty"], record["system"]): record for record in answers.answers_table(run).records}
    for system in ("base", "tuned"):
        rows = raw_rows(tmp_path, system)
        unread = [verdict["status"] == "not_parsed" for _, _, verdict in rows]
        finished = [completion["finished"] for completion, _, _ in rows]
        assert table["all", system] == {
            "difficulty": "all",
            "system": system,
            "programs": 54,
            "cut_off": finished.count(False),
            "not_parsed": unread.count(True),
            "no_program": [u and f for u, f in zip(unread, finished, strict=True)].count(True),
            "cleaned": 0,
        }
        levels = ("introductory", "interview", "competition")
        assert sum(table[level, system]["cut_off"] for level in levels) == finished.count(False)


def test_the_note_says_what_there_is(tmp_path):
    endings = [PASSED, ("passed", True, True, 9), CUT_OFF, NO_PROGRAM, NO_PROGRAM]
    run = stored(tmp_path / "some", endings)
    note = (
        "Of 5 answers of base: 1 cut off at the limit of new tokens, 2 with no program that Python can read, "
        "1 cleaned of text around the program."
    )
    assert answers.answers_note(run) == f"\n{note}"
    make_report(run.directory)
    pages = [(run.directory / name).read_text() for name in ("tables/correctness.md", "report.html")]
    assert all(note in page for page in pages) and note not in (run.directory / "tables/quality.md").read_text()
    assert answers.answers_note(stored(tmp_path / "none", [PASSED])) == ""


def test_what_to_do_is_said_where_many_answers_hold_no_program(tmp_path, capsys):
    few = [PASSED] * 19 + [CUT_OFF], [PASSED] * 19 + [NO_PROGRAM]  # 5% is not many
    for number, endings in enumerate(few):
        assert answers.advice(stored(tmp_path / f"few{number}", endings, decoding={})) == []
    cut_off = stored(tmp_path / "cut_off", [PASSED] * 3 + [CUT_OFF], decoding={})
    (said,) = answers.advice(cut_off)
    assert said.startswith("25% of the answers of base were cut off") and "max_new_tokens=128" in said
    (said,) = answers.advice(stored(tmp_path / "no_program", [PASSED, NO_PROGRAM], decoding={}))
    assert "50% of the answers of base" in said and "prompting=chat" in said and "base/completions.jsonl" in said
    (said,) = answers.advice(stored(tmp_path / "given", [PASSED, NO_PROGRAM]))  # no model of ours wrote them
    assert "prompting" not in said
    print_tables(cut_off.directory)
    assert capsys.readouterr().out.rstrip().endswith("decoding.sampling.max_new_tokens=128.")


def test_programs_of_other_tools_have_no_tokens(tmp_path):
    run = stored(tmp_path, [("passed", True, False, 0), ("failed", True, False, 0)])
    results = compute_metrics(run).results
    assert results["base"]["all"]["tokens"] is results["base"]["all"]["tokens_ci"] is None
    assert "Tokens" not in tables.family_table(run, results, tables.find_metric("lines").family).note
    assert tables.family_table(run, results, tables.find_metric("lines").family).columns == (
        "System",
        "Statements",
        "Lines",
        "Distinct",
    )


def test_the_pairs_of_each_training_run_are_shown(tmp_path):
    other = {name: found for name, found in STATISTICS.items() if name != "filters"}
    run = stored(tmp_path, [PASSED], pair_statistics={"tuned": STATISTICS, "mine": {}, "lora": other})
    table = tables.pairs_table(run)
    assert table.rows == (
        ("tuned", "8", "2", "1", "11", "15.0", "93.4", "25.0", "50.0"),
        ("lora", "8", "2", "1", "11", "15.0", "93.4", "25.0", "50.0"),
    )
    assert table.records[0]["masked_without_message"] == 0.934 and "1,234 samples, 5 small gap" in table.note
    page = make_report(run.directory).read_text()
    assert "Training pairs by split" in page and "93.4" in (tmp_path / "tables/pairs.md").read_text()


@pytest.mark.parametrize("statistics", [None, {}, {"tuned": {}}])
def test_a_run_that_knows_no_pairs_has_no_table_of_them(tmp_path, statistics):
    run = stored(tmp_path, [PASSED], **({} if statistics is None else {"pair_statistics": statistics}))
    assert (
        "Training pairs" not in make_report(run.directory).read_text() and not (tmp_path / "tables/pairs.md").exists()
    )
