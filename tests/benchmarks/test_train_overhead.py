"""How many operators a training step calls beside the bare model, which is what a GPU's step is bound by."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import train_overhead  # noqa: E402


@pytest.fixture(scope="module")
def rows_of_layers(tmp_path_factory):
    found = {}
    for layers in (2, 4):
        file = tmp_path_factory.mktemp("overhead") / "rows.json"
        train_overhead.main([f"--layers={layers}", "--rounds=1", f"--json={file}"])
        found[layers] = {row["name"]: row for row in json.loads(file.read_text())}
    return found


@pytest.mark.parametrize("name", ["all", "by sequences"])
def test_the_fast_step_calls_little_more_than_the_bare_model(name, rows_of_layers):
    for rows in rows_of_layers.values():
        assert rows[name]["operators"] <= 1.35 * rows["bare model"]["operators"]
        assert rows[name]["kernels"] <= 1.45 * rows["bare model"]["kernels"]
        assert rows[name]["operators"] < 0.85 * rows["plain"]["operators"]


def test_a_layer_costs_little_more_than_the_bare_one(rows_of_layers):
    few, many = rows_of_layers[2], rows_of_layers[4]
    for key, limit in (("operators", 1.25), ("kernels", 1.25)):
        bare, ours = (many[name][key] - few[name][key] for name in ("bare model", "by sequences"))
        assert 0 < ours <= limit * bare


def test_more_pairs_in_a_row_call_no_more(rows_of_layers):
    for rows in rows_of_layers.values():
        for key in ("operators", "kernels"):
            assert rows["packed pairs"][key] == rows["by sequences"][key]
