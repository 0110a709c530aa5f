"""The benchmark of the choice of tokens runs, and its sides choose the same."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import choose  # noqa: E402


def test_a_table_and_the_same_numbers_in_a_file(tmp_path, capsys):
    choose.main(["--rows", "3", "5", "--vocabulary", "2000", "--rounds", "1", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["choices"]
    printed = capsys.readouterr().out
    assert [(one["side"], one["rows"]) for one in found] == [
        (s, r) for r in (3, 5) for s in ("whole", "likeliest", "looks")
    ]
    assert all(f"{one['ms']:.2f}" in printed for one in found) and found[0]["to_whole"] == 1
