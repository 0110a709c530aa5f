"""A journal keeps every finished row, whatever a kill leaves of the last line."""

import pytest
from files_on_disk import DAMAGE

from cptlab.records import Verdict
from cptlab.storage.journal import Journal
from cptlab.storage.jsonl import to_json


def test_a_torn_journal_line_is_dropped_and_the_rest_kept(tmp_path):
    with Journal(tmp_path / "v.journal", Verdict) as journal:
        for row in (4, 0, 2):
            journal.add(row, Verdict("passed", str(row)))
    whole = (tmp_path / "v.journal").read_bytes()
    for cut in range(len(whole) + 1):
        (tmp_path / "v.journal").write_bytes(whole[:cut])
        with Journal(tmp_path / "v.journal", Verdict) as journal:
            assert list(journal) == [4, 0, 2][: whole[:cut].count(b"\n")]
            for row in journal:
                assert journal.read(row) == to_json(Verdict("passed", str(row)))
            journal.add(7, Verdict("failed"))
        with Journal(tmp_path / "v.journal", Verdict) as journal:
            assert list(journal)[-1] == 7 and journal.read(7) == to_json(Verdict("failed"))


@pytest.mark.parametrize(
    "line", ["garbage", "[1]", '{"row": 1}', '{"row": "1", "record": {}}', '{"row": [1], "record": {"status": "passed"}}',
             '{"row": 1, "record": {"status": 7}}', '{"row": 1, "record": null}']
)  # fmt: skip
def test_a_damaged_line_ends_what_is_kept_and_the_file_is_set_aside(tmp_path, capsys, line):
    path = tmp_path / "v.journal"
    with Journal(path, Verdict) as journal:
        for row in (4, 0, 2):
            journal.add(row, Verdict("passed"))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], f"{line}\n", lines[2]]))
    with Journal(path, Verdict) as journal:
        assert list(journal) == [4, 0] and journal.read(0) == to_json(Verdict("passed"))
        journal.add(2, Verdict("failed"))
    assert str(path) in capsys.readouterr().err and "line 3" not in path.read_text()
    assert len(path.read_text().splitlines()) == 3
    assert (tmp_path / "v.journal.damaged").read_text().splitlines()[2] == line


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_begun_anew(tmp_path, damage):
    path = tmp_path / "v.journal"
    with Journal(path, Verdict) as journal:
        for row in range(9):
            journal.add(row, Verdict("passed"))
    DAMAGE[damage](path)
    with Journal(path, Verdict) as journal:
        assert list(journal) == list(range(len(journal))) and len(journal) < 9
        journal.add(8, Verdict("failed"))
        assert journal.read(8) == to_json(Verdict("failed"))
