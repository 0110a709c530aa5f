"""A journal keeps every finished row, whatever a kill leaves of the last line."""

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
