"""CSV files that grow: columns that appear later, and rows that a kill broke off."""

import csv

from cptlab.storage.csv_rows import append_row, keep_rows, read_rows


def parsed(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_column_that_appears_later_shifts_nothing(tmp_path):
    path = tmp_path / "curves" / "rows.csv"
    rows = [{"step": 1, "a": 0.1}, {"step": 2, "b": 0.5, "a": 0.2}, {"step": 3, "c": 7}, {"step": 4, "a": 1e-17}]
    for row in rows:
        append_row(path, row)
        assert read_rows(path)[-1] == {name: str(value) for name, value in row.items()}
    assert list(parsed(path)[0]) == ["step", "a", "b", "c"]
    for row, found in zip(rows, parsed(path), strict=True):
        assert found == {name: str(row.get(name, "")) for name in ("step", "a", "b", "c")}


def test_rows_are_on_disk_at_once_and_a_torn_one_is_left_out(tmp_path):
    path = tmp_path / "rows.csv"
    append_row(path, {"step": 1, "loss": 0.25})
    whole = path.read_bytes()
    append_row(path, {"step": 2, "loss": 0.125})
    both = path.read_bytes()
    for cut in range(len(whole), len(both) - 1):
        path.write_bytes(both[:cut])
        assert read_rows(path) == [{"step": "1", "loss": "0.25"}]
    path.write_bytes(both[:-3])
    keep_rows(path, lambda row: int(row["step"]) <= 9)
    assert path.read_bytes() == whole
    keep_rows(path, lambda row: False)
    assert not path.exists() and read_rows(path) == []
