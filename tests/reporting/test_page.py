"""The page without a browser: its structure, what it refers to, untrusted text, and the programs packed into it."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import pytest
from test_reporting import HOSTILE, raw_rows, store_run, store_training, take_few_resamples

from cptlab.records import Completion, Message, Quality, Verdict
from cptlab.reporting import make_report, read_evaluation
from cptlab.reporting.layout import Table
from cptlab.reporting.page import Folded, Link, Picture, Programs, Section, programs, render_page
from cptlab.reporting.page.text import escaped, lines_of
from cptlab.storage.jsonl import write_jsonl

VOID = {"meta", "img", "input"}
REFERENCES = ("src", "href", "action", "data", "poster", "srcset")
HARMFUL = "</script><script>document.title='harm'</script><img src=x onerror=\"document.title='harm'\"> \u202e\u2066\x00\x1b\ud800"


class Outline(HTMLParser):
    """Checks that tags nest, and collects elements as (tag, attributes, tags around it)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.found, self.texts = [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert len(values) == len(attributes)
        self.found.append((tag, values, tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(text)

    def all(self, *tags):
        return [values for tag, values, _ in self.found if tag in tags]


def quick_report(run, **settings):
    with pytest.MonkeyPatch.context() as patch:
        take_few_resamples(patch)
        return make_report(run, **settings)


def unpack(text: str) -> dict:
    (packed,) = re.findall("id='data'>([A-Za-z0-9+/=]*)</script>", text)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return store_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    training = store_training(tmp_path_factory.mktemp("training"))
    return quick_report(run, train_directory=training).read_text()


def test_headings_captions_scopes_and_names(page):
    outline = Outline(page)
    identifiers = [values["id"] for _, values, _ in outline.found if "id" in values]
    assert len(set(identifiers)) == len(identifiers)
    for _, values, _ in outline.found:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert values.get(name) is None or values[name] in identifiers
    assert len(outline.all("h1")) == len(outline.all("main")) == len(outline.all("header")) == 1
    assert outline.all("html")[0]["lang"] and outline.all("nav")[0]["aria-label"]
    targets = [values["href"] for values in outline.all("a")]
    assert targets and all(target.startswith("#") and target[1:] in identifiers for target in targets)
    assert len(outline.all("caption")) == len(outline.all("table")) >= 9
    assert all(values.get("scope") in ("col", "row", "colgroup", "rowgroup") for values in outline.all("th"))
    assert all(
        "role" in values and "tabindex" in values for values in outline.all("div") if values.get("class") == "wide"
    )
    fields = [around for tag, _, around in outline.found if tag in ("select", "input")]
    assert len(fields) == 7 and all("label" in around for around in fields)
    assert len(outline.all("output")) == 1 and outline.all("output")[0]["aria-live"] == "polite"


def test_pictures_say_what_is_seen(page, run):
    texts = [values["alt"] for values in Outline(page).all("img")]
    quality, correctness, issues, training = texts
    score = sum(quality["score"] for _, quality, _ in raw_rows(run, "base")) / 54
    assert quality.startswith("Bar chart. Code quality") and f"On all (9 tasks): base Mean {score:.2f}" in quality
    assert "P@1" in correctness and "ranking loss (unweighted) from 1 to 0.0167" in training
    assert len(re.findall(r"[A-Z]\d{4} [a-z-]+: base \d+, tuned \d+", issues)) == 3


def test_nothing_is_fetched_and_only_the_script_of_the_page_runs(page):
    outline = Outline(page)
    for tag, values, _ in outline.found:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not [name for name in values if name.startswith("on") or name == "style"]
        assert all(values[name].startswith(("#", "data:image/")) for name in REFERENCES if name in values)
    assert "url(" not in page and "@import" not in page and "import(" not in page
    policy = outline.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy
    assert [values.get("type") for values in outline.all("script")] == ["text/plain", None]


def test_the_packed_programs_are_the_stored_ones(page, run):
    data = unpack(page)
    assert data["systems"] == ["base", "tuned"]
    for system, name in enumerate(data["systems"]):
        shown = [(task["id"], *program) for task in data["tasks"] for program in task["programs"][system]]
        stored = sorted(
            raw_rows(run, name), key=lambda row: int(row[0]["task_id"][5:])
        )  # stable: samples stay in order
        assert len(shown) == len(stored) == 54
        for one, (completion, quality, verdict) in zip(shown, stored, strict=True):
            task, sample, score, status, reason, _, text, messages = one
            assert (task, sample, text) == (completion["task_id"], completion["sample"], completion["program"])
            assert score == round(quality["score"], 2) and reason == verdict["reason"]
            assert data["statuses"][status] == verdict["status"].replace("_", " ")
            pairs = zip(messages[::2], messages[1::2], strict=True)
            found = sorted((*data["messages"][message], line) for message, line in pairs)
            assert found == sorted((m["id"], m["symbol"], m["line"]) for m in quality["messages"])
    assert sum(task["example"] for task in data["tasks"]) == 9 and HOSTILE in data["tasks"][0]["prompt"]


def test_the_table_of_tasks_is_that_of_a_plain_loop(page, run):
    rows = re.findall("<tr><th scope='row'>(kata/[0-9]+)</th><th scope='row'>([a-z]+)</th>(.*?)</tr>", page)
    assert [task for task, *_ in rows] == [f"kata/{i}" for i in range(9)]
    for task, _, cells in rows:
        expected = []
        for system in ("base", "tuned"):
            mine = [row for row in raw_rows(run, system) if row[0]["task_id"] == task]
            passed = sum(verdict["status"] == "passed" for *_, verdict in mine)
            messages = sum(len(quality["messages"]) for _, quality, _ in mine) / 6
            score = sum(quality["score"] for _, quality, _ in mine) / 6
            expected += [f"{score:.2f}", f"{passed} of 6", f"{messages:.1f}"]
        assert re.findall("<td>(.*?)</td>", cells) == expected


def harmful_run(directory):
    """One task and sample whose every text is harmful."""
    store_run(directory, tasks=2, samples=1)
    for system in ("base", "tuned"):
        program = f"def f(x):\n    return '{HARMFUL}'\r\n"
        rows = [Completion(f"kata/{i}", 0, program, program, 9, True) for i in (0, 1)]
        write_jsonl(directory / system / "completions.jsonl", rows)
        messages = (
            Message("C0301", HARMFUL[:-1], 2),
            Message("W0999", "beyond-the-end", 99),
            Message("R0001", "before", 0),
        )
        write_jsonl(directory / system / "quality.jsonl", [Quality(5.0, 2, False, messages)] * 2)
        write_jsonl(directory / system / "verdicts.jsonl", [Verdict("error", HARMFUL)] * 2)
    return directory


def test_harmful_text_stays_text(tmp_path):
    text = quick_report(harmful_run(tmp_path)).read_text()
    outline = Outline(text)
    assert len(outline.all("script")) == 2 and len(outline.all("img")) == 3
    assert not re.search("[\x00\x1b\u202e\u2066]", text)
    assert any("[U+202E][U+2066][U+0000][U+001B][U+D800]" in line for line in outline.texts["code"])
    assert unpack(text)["tasks"][0]["programs"][0][0][5].count(HARMFUL) == 1


@pytest.mark.parametrize("shown, text", [
    ("a\tb\nc &lt;b&gt; &amp; &#x27;&quot;", "a\tb\nc <b> & '\""),
    ("[U+202E]x[U+FEFF][U+0085][U+2028][U+000D][U+007F]", "\u202ex\ufeff\x85\u2028\r\x7f"),
    ("äß漢字🙂", "äß漢字🙂"),
])  # fmt: skip
def test_escaping(shown, text):
    assert escaped(text) == shown


def test_lines_are_pylints():
    assert lines_of("a\r\nb\rc\x0cd\u2028\n") == ["a", "b", "c\x0cd\u2028"] and lines_of("") == [""]


def test_many_programs_are_cut_evenly(run, monkeypatch):
    monkeypatch.setattr(programs, "PROGRAMS", 60)
    monkeypatch.setattr(programs, "CHARACTERS", 30)
    text = render_page("t", [], [Section("Programs", [Programs(read_evaluation(run))])])
    assert "The page holds the first 3 programs of each task and system." in text
    data = unpack(text)
    assert {len(some) for task in data["tasks"] for some in task["programs"]} == {3}
    assert re.fullmatch(r"def f\(x\):.*\n\[\d+ more characters\]", data["tasks"][0]["programs"][0][0][5], re.S)


def test_sections_of_a_page_of_ones_own():
    table = Table("t", "T", ("A", "B"), (("rows",), ("x", "1 [0, 2]")), (), note="one\ntwo")
    content = [
        "1 < 2",
        table,
        table,
        Picture(b"<svg/>", "a 'b'"),
        Picture(b"\x89PNG", ""),
        Folded("f", "x"),
        Link("l", "0/a.html"),
    ]
    text = render_page("<t>", ["lead"], [Section("A b", content), Section("A b", [])])
    outline = Outline(text)
    assert [values["id"] for values in outline.all("section")] == ["a-b", "a-b-2"]
    tables = [values["id"] for values in outline.all("div") if values.get("class") == "table"]
    assert tables == ["table-t", "table-t-2"] and "1 &lt; 2" in text
    kinds = [values["src"].split(";")[0] for values in outline.all("img")]
    assert kinds == ["data:image/svg+xml", "data:image/png"] and outline.all("img")[0]["alt"] == "a 'b'"
    assert any(values["href"] == "0/a.html" for values in outline.all("a"))
    assert text == render_page("<t>", ["lead"], [Section("A b", content), Section("A b", [])])


@pytest.mark.parametrize("address", ["https://a.b", "//a.b", " javascript:alert(1)", "file:///etc"])
def test_links_stay_beside_the_page(address):
    with pytest.raises(ValueError, match="relative"):
        render_page("t", [], [Section("s", [Link("l", address)])])


def test_programs_are_shown_once(run):
    shown = Programs(read_evaluation(run))
    with pytest.raises(ValueError, match="once"):
        render_page("t", [], [Section("a", [shown]), Section("b", [shown])])
