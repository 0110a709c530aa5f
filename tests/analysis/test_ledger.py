"""The ledger: the verdict follows from the intervals, the page from the figures, and every claim finds its table."""

import json
from pathlib import Path

import pytest

from cptlab.analysis.record.claims import CLAIMS, Check, Extreme, Order, claims_of
from cptlab.analysis.record.ledger import FAILS, HOLDS, NOT_ASKED, UNDECIDED, Record, is_row, judge_claims, side
from cptlab.commands.ledger import main
from cptlab.errors import UserError
from cptlab.settings.record_plan import plan


def figure(row, metric, value, change=None, half=0.01, difficulty="all", **more):
    one = {"row": row, "difficulty": difficulty, "metric": metric, "tasks": 60, "seeds": 3,
           "value": value, "lo": value - half, "hi": value + half}  # fmt: skip
    if change is not None:
        one |= {"change": change, "change_lo": change - half, "change_hi": change + half}
    return one | more


def record(where: Path, **tables) -> Record:
    for name, figures in tables.items():
        (where / name).mkdir(parents=True)
        content = {"table": name, "command": f"cptlab record {name}", "about": {"backbone": "a model", "n": 20}}
        (where / name / "figures.json").write_text(json.dumps(content | {"figures": figures}))
    return Record(where)


def verdicts(found: Record) -> dict[str, str]:
    return {finding.claim.id: finding.verdict for finding in judge_claims(found)}


@pytest.mark.parametrize(
    ("expect", "low", "high", "verdict"),
    [
        ("higher", 0.1, 0.5, HOLDS),
        ("higher", -0.1, 0.5, UNDECIDED),
        ("higher", -0.5, -0.1, FAILS),
        ("lower", -0.5, -0.1, HOLDS),
        ("lower", 0.1, 0.5, FAILS),
        ("lower", -0.1, 0.1, UNDECIDED),
        ("not_lower", -0.009, 0.5, HOLDS),
        ("not_lower", -0.02, 0.5, UNDECIDED),
        ("not_lower", -0.009, -0.001, HOLDS),  # a fall, by less than the point that counts as one
        ("not_lower", -0.02, -0.001, FAILS),
        ("not_lower", 0.0, 0.0, HOLDS),
        ("higher", float("nan"), 1.0, UNDECIDED),
        ("higher", None, None, UNDECIDED),
    ],
)
def test_the_interval_decides(expect, low, high, verdict):
    assert side(low, high, Check("ours", "pass@5", expect)) == verdict


def test_every_difficulty_counts_and_one_that_fails_is_enough(tmp_path):
    def of(*changes):
        levels = zip(("introductory", "interview", "competition", "all"), changes, strict=True)
        return [figure("ours", "pylint_mean", 7.0, change, 0.1, level) for level, change in levels]

    assert verdicts(record(tmp_path / "a", cpt_table_2=of(1, 1, 1, 1)))["C1"] == HOLDS
    assert verdicts(record(tmp_path / "b", cpt_table_2=of(1, 0, 1, 1)))["C1"] == UNDECIDED
    assert verdicts(record(tmp_path / "c", cpt_table_2=of(1, 0, -1, 1)))["C1"] == FAILS
    assert verdicts(record(tmp_path / "d", cpt_table_2=of(1, 1, 1, 1)[3:]))["C1"] == HOLDS  # no difficulties: all tasks
    found = verdicts(record(tmp_path / "e", cpt_table_2=of(1, 1, 1, 1)))
    assert found["C2"] == found["C4"] == found["S1"] == NOT_ASKED


def test_extremes_orders_and_shares(tmp_path):
    names = ("no_lm", "no_rank", "no_kl", "no_pt", "no_bs")
    falls = dict.fromkeys(names, 0.1) | {"no_rank": -1.0}
    rows = [figure(name, "pylint_min", 4 + falls[name], falls[name]) for name in names]
    rows.append(figure("ours", "pylint_min", 4.0))
    costs = [figure("ours", "trainable_parameters", 50), figure("sven", "trainable_parameters", 100)]
    minutes = zip(("single_prefix", "ours", "sven", "full"), (1, 3, 2, 4), strict=True)
    costs += [figure(name, "minutes_per_epoch", value) for name, value in minutes]
    share = [figure("ours", "share_of_messages_not_more_frequent", 0.7, lo=0.6, hi=0.8)]
    found = record(tmp_path, cpt_table_7=rows, cpt_table_6=costs, cpt_table_12=share)
    assert verdicts(found) | {"C9": FAILS} == verdicts(found)  # an epoch of ours takes longer than one of SVEN's
    assert [verdicts(found)[name] for name in ("C10", "C11", "C12", "C17")] == [HOLDS, FAILS, HOLDS, HOLDS]
    for number, (ends, verdict) in enumerate([((0.4, 0.8), UNDECIDED), ((0.3, 0.5), FAILS)]):
        share[0] |= dict(zip(("lo", "hi"), ends, strict=True))
        assert verdicts(record(tmp_path / str(number), cpt_table_12=share))["C17"] == verdict
    rows[0] = figure("no_lm", "pylint_min", 2.9, -1.1)  # another falls as much
    found = record(tmp_path / "b", cpt_table_7=rows)
    assert verdicts(found)["C10"] == FAILS


def test_the_extreme_row_is_beyond_every_other_and_none_of_them_is_missing(tmp_path):
    rows = [figure(name, "pylint_min", 5.0) for name in ("ours", "no_lm", "no_kl", "no_bs")]
    rows += [
        figure("no_rank", "pylint_min", 4.0, -1.0),
        figure("no_pt", "pylint_min", 5.1, half=2.0),
    ]  # which may be lower
    found = next(one for one in judge_claims(record(tmp_path / "wide", cpt_table_7=rows)) if one.claim.id == "C10")
    assert found.verdict == UNDECIDED and "no_pt 5.10 [3.10, 7.10]" in found.evidence[-1].figures
    rows[1] = figure("no_lm", "pylint_min", 3.5)  # lower, though the lowest of the others by its mean is another
    rows[-1] = figure("no_pt", "pylint_min", 3.4, half=2.0)
    assert verdicts(record(tmp_path / "lower", cpt_table_7=rows))["C10"] == FAILS
    assert verdicts(record(tmp_path / "without", cpt_table_7=rows[:1] + rows[4:5]))["C10"] == NOT_ASKED


def test_omega_by_model_and_benchmark(tmp_path):
    omegas = {"small kata": 1.5, "small other": 1.45, "large kata": 1.1, "large other": 1.1}
    tuned = [figure(row, "omega", value) for row, value in omegas.items()]
    for number, (rows, verdict) in enumerate(
        [(tuned, HOLDS), (tuned[:3], HOLDS), (tuned[:2], NOT_ASKED), (tuned[::2], NOT_ASKED)]
    ):
        assert verdicts(record(tmp_path / str(number), spa_table_3=rows))["S6"] == verdict
    seeds = {"small kata": [1.5, 1.3], "small other": [1.4, 1.6], "large kata": [1.1, 0.8]}
    for name, large, verdict in (
        ("agree", [1.1, 0.8], HOLDS),
        ("differ", [1.1, 1.4], UNDECIDED),
        ("other", [1.45, 1.35], FAILS),
    ):
        rows = [figure(row, "omega", 0, omegas=values) for row, values in (seeds | {"large kata": large}).items()]
        assert verdicts(record(tmp_path / name, spa_table_3=rows))["S6"] == verdict
    rows = [
        figure("kata_starcoder2 kata", "pass@1", 0.5, 0.1, before=0.4),
        figure("kata_lm kata", "pass@1", 0.6, 0.2, before=0.45),
    ]
    for number, (ends, verdict) in enumerate([((0.40, 0.48), HOLDS), ((0.40, 0.495), UNDECIDED), ((0.52, 0.6), FAILS)]):
        larger = rows[1] | {"before_lo": ends[0], "before_hi": ends[1]}
        found = next(
            one
            for one in judge_claims(record(tmp_path / f"c{number}", spa_table_1=[rows[0], larger]))
            if one.claim.id == "S7"
        )
        assert found.verdict == verdict and f"against 45.0 [{100 * ends[0]:.1f}, " in found.evidence[0].figures
    curve = [
        figure("m kata ω = 1.1", "pass@1", 0.5, 0.1, omega=1.1),
        figure("m kata ω = 2", "pass@1", 0.2, -0.2, omega=2.0),
    ]
    curve.append(figure("m kata", "unimodal", 0.5))
    cost = [figure("spa", "times", 1.3, half=0.1)]
    found = record(tmp_path / "b", spa_table_1=rows, spa_fig_4=curve, spa_overhead=cost)
    assert [verdicts(found)[name] for name in ("S2", "S3", "S4", "S7", "S8")] == [HOLDS, FAILS, HOLDS, HOLDS, UNDECIDED]


def test_a_flat_curve_has_no_peak(tmp_path):
    whole = figure("m kata", "unimodal", 1.0)
    for number, (change, verdict) in enumerate([(0.1, HOLDS), (0.0, UNDECIDED), (-0.1, UNDECIDED)]):
        at = figure("m kata ω = 1.1", "pass@1", 0.5, change, omega=1.1)
        assert verdicts(record(tmp_path / str(number), spa_fig_4=[whole, at]))["S3"] == verdict


def test_the_page_shows_the_figures_and_the_notes(tmp_path, capsys):
    rows = [figure("ours", "pylint_mean", 7.25, -0.5, 0.25)]
    record(tmp_path / "kata", cpt_table_2=rows)
    (tmp_path / "notes.json").write_text('{"kata": {"C1": "For a reason."}}')
    assert (
        main([str(tmp_path / "kata"), "--notes", str(tmp_path / "notes.json"), "--output", str(tmp_path / "page.md")])
        == 0
    )
    page = (tmp_path / "page.md").read_text()
    assert "| C1 | CPT raises mean pylint at every difficulty |" in page and "[does not hold](#kata-c1)" in page
    assert "7.75 → 7.25 (-0.50 [-0.75, -0.25]) | 60 | 3 | does not hold |" in page and "For a reason." in page
    assert main([str(tmp_path / "kata")]) == 0 and "a model, 20 programs a task." in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"kata": {"C99": "x"}}'])
def test_notes_that_are_none_are_refused(tmp_path, content, capsys):
    record(tmp_path / "kata", cpt_table_2=[figure("ours", "pylint_mean", 7.0, 1.0)])
    (tmp_path / "notes.json").write_text(content)
    assert main([str(tmp_path / "kata"), "--notes", str(tmp_path / "notes.json")]) == 2
    assert capsys.readouterr().err.startswith("error: The notes ")


def test_a_directory_without_tables_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no table of a record"):
        Record(tmp_path)


def test_claims_are_those_of_the_papers():
    assert [claim.id for claim in CLAIMS] == [f"C{i}" for i in range(1, 19)] + [f"S{i}" for i in range(1, 10)]
    assert all(claim.checks for claim in CLAIMS)


def test_every_claim_finds_its_table_and_its_rows():
    tables = {table.name: table for table in plan([], "paper")}
    for claim in CLAIMS:
        assert claim.id in claims_of(claim.table)
        for check in claim.checks:
            labels = [row.label for row in tables[getattr(check, "table", None) or claim.table].rows]
            if isinstance(check, Order):
                assert set(check.rows) <= set(labels)
            elif isinstance(check, Extreme):
                assert all(any(label.startswith(row) for label in labels) for row in check.rows)
            elif isinstance(check, Check) and check.row != "ω≤1.25":
                assert any(is_row(check.row, {"row": label}) for label in labels), claim.id
