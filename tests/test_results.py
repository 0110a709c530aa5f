"""docs/results.md, docs/ledger.md and the notebook of results hold what results/ gives."""

import subprocess
import sys

import pytest
from run_commands import ROOT, run_notebook

from cptlab.analysis.record.ledger import Record
from cptlab.analysis.record.ledger_page import ledger_page
from cptlab.commands.ledger import read_notes


def test_the_tables_of_the_results_page_are_up_to_date():
    done = subprocess.run([sys.executable, "docs/results.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_ledger_is_that_of_the_stored_records():
    records = [Record(ROOT / "results" / "record" / name) for name in ("kata", "qwen")]
    page = ledger_page(records, read_notes(ROOT / "docs" / "ledger_notes.json"))
    assert (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("record", ["kata", "qwen"])
def test_the_notebook_of_results_draws_stored_records(record, monkeypatch):
    monkeypatch.setenv("RECORD", f"results/record/{record}")
    monkeypatch.setenv("MPLBACKEND", "agg")
    done = run_notebook("results.ipynb", ROOT / "notebooks")
    assert done.returncode == 0, done.stderr
    assert "C1  holds" in done.stdout and "Traceback" not in done.stderr
