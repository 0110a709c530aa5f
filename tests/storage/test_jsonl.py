"""Records survive a round trip, and malformed rows are named."""

import pytest

from cptlab.errors import UserError
from cptlab.records import Prompt, Span, Task, Test
from cptlab.storage.jsonl import from_json, read_jsonl, to_json, write_jsonl

TASK = Task(
    "a/1", "a", "test", "", "call", Prompt("x\u2028\ud800 f", "f", (Span("nl", 0, 1),)), "f", (Test([1, 2.5], ("x",)),),
    canonical_solution="return x", cpu_seconds=2.0,
)  # fmt: skip


def test_round_trip_of_nested_records(tmp_path):
    write_jsonl(tmp_path / "tasks.jsonl", [TASK, TASK])
    assert list(read_jsonl(tmp_path / "tasks.jsonl", Task)) == [TASK, TASK]


def test_files_with_the_earlier_name_of_a_field_stay_readable():
    line = to_json(TASK)
    assert '"canonical_solution"' in line
    assert from_json(Task, line.replace('"canonical_solution"', '"reference"')) == TASK


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "a Span is a JSON object, not list"),
        ('{"name": "a", "start": 0}', r"missing fields \['end'\], unknown fields \[\]"),
        ('{"name": "a", "start": 0, "end": 1, "x": 1}', r"unknown fields \['x'\]"),
        ('{"name": "a", "start": 0.5, "end": 1}', "field start is int, not float"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, line, said):
    (tmp_path / "spans.jsonl").write_text(f'{{"name": "a", "start": 0, "end": 1}}\n\n{line}\n')
    with pytest.raises(UserError, match=f"spans.jsonl, line 3: .*{said}"):
        list(read_jsonl(tmp_path / "spans.jsonl", Span))
