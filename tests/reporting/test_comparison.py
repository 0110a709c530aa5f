"""Systems of several runs in one table, against plain loops over the stored records."""

import csv

import pytest
from test_reporting import raw_rows, store_run

from cptlab.commands.compare import main, parse_choice
from cptlab.errors import UserError
from cptlab.reporting.comparison import ComparedSystem, combine, compare_table


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    return store_run(folder / "one", seed=1), store_run(folder / "two", seed=2, systems=("base",))


def means(run, system):
    """Of each metric, the value per task."""
    by_task = {}
    for completion, quality, verdict in raw_rows(run, system):
        errors = sum(message["id"][0] == "E" and message["id"] != "E0001" for message in quality["messages"])
        unread = any(message["id"] == "E0001" for message in quality["messages"])
        row = quality["score"], verdict["status"] == "passed", completion["tokens"], 100 * errors, 100 * unread
        by_task.setdefault(completion["task_id"], []).append(row)
    columns = [list(zip(*rows, strict=True)) for rows in by_task.values()]
    return {"pylint_min": [min(column[0]) for column in columns]} | {
        metric: [sum(column[i]) / len(column[i]) for column in columns]
        for i, metric in enumerate(("pylint_mean", "pass@1", "tokens", "pylint_errors", "not_parsed"))
    }


def test_values_and_paired_changes(runs, tmp_path, capsys):
    one, two = runs
    assert main([f"plain={one}:base", f"tuned={one}:tuned", f"other={two}:base", "--output", str(tmp_path)]) == 0
    assert "+" in capsys.readouterr().out and "plain" in (tmp_path / "compare.md").read_text()
    page = (tmp_path / "compare.html").read_text()
    assert "<title>plain, tuned and other on kata</title>" in page and str(two) in page and "config.yaml" not in page
    records = list(csv.DictReader((tmp_path / "compare.csv").open()))
    first = means(one, "base")
    for label, run, system in (("plain", one, "base"), ("tuned", one, "tuned"), ("other", two, "base")):
        for metric, values in means(run, system).items():
            (record,) = [r for r in records if (r["system"], r["metric"]) == (label, metric)]
            assert float(record["value"]) == pytest.approx(sum(values) / len(values))
            assert float(record["lo"]) <= float(record["value"]) <= float(record["hi"])
            if label == "plain":
                assert record["change"] == ""
                continue
            change = sum(b - a for a, b in zip(first[metric], values, strict=True)) / len(values)
            assert float(record["change"]) == pytest.approx(change)
            assert float(record["change_lo"]) <= change <= float(record["change_hi"])


def test_all_systems_of_a_run_and_some_of_others(runs):
    one, two = runs
    table = compare_table(
        combine([ComparedSystem(one), ComparedSystem(two, "base", "other"), ComparedSystem(two, label="again")])
    )
    assert table.rows[0] == ("mean pylint score",) and len(table.rows) == 5 * 7  # a heading and four systems a metric
    for first in range(1, len(table.rows), 5):
        assert [row[0] for row in table.rows[first : first + 4]] == ["base", "tuned", "other", "again"]
        assert table.rows[first + 2][1:] == table.rows[first + 3][1:]
    assert "against base" in table.note
    turned = compare_table(combine([ComparedSystem(one, "tuned"), ComparedSystem(one, "base")]))
    there, back = (record["change"] for record in (*table.records, *turned.records) if record["system"] in ("tuned", "base")
                   and record["metric"] == "pass@1" and record["change"] is not None)  # fmt: skip
    assert there == pytest.approx(-back) and there != 0


def test_what_an_argument_may_be(tmp_path):
    odd = tmp_path / "lr=1:2"
    odd.mkdir()
    assert parse_choice(str(odd)) == ComparedSystem(odd)
    assert parse_choice(f"{odd}:base") == ComparedSystem(odd, "base")
    assert parse_choice(f"SPA={odd}:base") == ComparedSystem(odd, "base", "SPA")
    assert parse_choice(f"SPA={odd}") == ComparedSystem(odd, None, "SPA")


def test_mistakes(runs, tmp_path, capsys):
    one, two = runs
    fewer = store_run(tmp_path / "fewer", tasks=5)
    with pytest.raises(UserError, match="tasks of .*fewer are not those"):
        combine([ComparedSystem(one, "base"), ComparedSystem(fewer, "tuned")])
    with pytest.raises(UserError, match="has no system 'tuned'. Name one of base"):
        combine([ComparedSystem(two, "tuned")])
    with pytest.raises(UserError, match="Two systems are called base"):
        combine([ComparedSystem(one), ComparedSystem(two)])
    with pytest.raises(UserError, match="mine stands for base, tuned"):
        combine([ComparedSystem(one, None, "mine")])
    assert main(["plain"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "LABEL=RUN" in said
    assert main([f"plain={tmp_path / 'nothing'}"]) == 2 and "no directory" in capsys.readouterr().err
