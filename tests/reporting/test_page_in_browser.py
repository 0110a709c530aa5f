"""The page in a real Chromium: what a reader does with mouse, keyboard, phone, dark screen or without JavaScript."""

import contextlib
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from browser import watched_page
from test_page import harmful_run, quick_report
from test_reporting import raw_rows, store_run

from cptlab.records import Completion
from cptlab.reporting.layout import Table
from cptlab.reporting.page import Section, render_page
from cptlab.storage.jsonl import read_jsonl, write_jsonl

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
READY = "html[data-ready]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = store_run(tmp_path_factory.mktemp("browser") / "run")
    quick_report(directory)
    return directory


@pytest.fixture
def visit(browser):
    """visit(file, hash) opens a page; every error in it, and every request, fails the test."""
    with contextlib.ExitStack() as stack:
        problems = []

        def opened(file, hash="", **settings):
            page = watched_page(browser, stack, problems, ("file:", "data:"), ("console",), **settings)
            page.goto(f"file://{file}{hash}")
            if settings.get("java_script_enabled", True):
                page.wait_for_selector(READY, state="attached")
            return page

        yield opened
        assert problems == []


@pytest.fixture
def page(visit, run):
    return visit(run / "report.html", viewport={"width": 1200, "height": 900})


def shown_tasks(page):
    return page.eval_on_selector_all("#tasks tbody tr:not([hidden])", "rows => rows.map(row => row.cells[0].innerText)")


def column(page, selector, number):
    return page.eval_on_selector_all(f"{selector} tbody tr", f"rows => rows.map(row => row.cells[{number}]?.innerText)")


def test_a_heading_sorts_within_the_groups_of_its_table(visit, tmp_path):
    rows = (
        ("one",),
        ("b", "-1.5 [-2, 3]"),
        ("a10", "1,000"),
        ("a2", "–"),
        ("two",),
        ("z", "↓3"),
        ("y", "↑20"),
        ("x", "4 of 9"),
    )
    text = render_page("t", [], [Section("s", [Table("t", "T", ("Name", "Value"), rows, ())])])
    (tmp_path / "a.html").write_text(text.replace("<html ", "<html data-ready "))  # a page without programs
    page = visit(tmp_path / "a.html")
    orders = {"Value": [["b", "a10", "a2", "z", "x", "y"], ["a10", "b", "a2", "y", "x", "z"]],
              "Name": [["a2", "a10", "b", "x", "y", "z"], ["b", "a10", "a2", "z", "y", "x"]]}  # fmt: skip
    for name, (up, down) in orders.items():
        head = page.get_by_role("columnheader", name=name)
        for direction, order in (("ascending", up), ("descending", down), ("none", ["b", "a10", "a2", "z", "y", "x"])):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == direction
            assert column(page, "#table-t", 0) == ["one", *order[:3], "two", *order[3:]]
        assert page.locator("[aria-sort]:not([aria-sort=none])").count() == 0


def test_a_table_is_filtered_by_words(page):
    field = page.get_by_role("searchbox", name="Change against base")
    field.fill("correctness P@5")
    assert [row for row in column(page, "#table-differences", 1) if row] and page.locator(
        "#table-differences tbody tr:visible"
    ).count() == 2  # the row and its heading
    assert re.match(r"1 of \d+ rows", page.inner_text("#table-differences output"))
    field.fill("")
    assert page.inner_text("#table-differences output") == ""


def fitting(run, difficulty=None, system=None, verdict=None, code=None, text=""):
    """(tasks, programs) that fit, by a plain loop."""
    levels = ("introductory", "interview", "competition")
    found = []
    for name in ("base", "tuned") if system is None else (system,):
        for completion, quality, judged in raw_rows(run, name):
            number = int(completion["task_id"][5:])
            if (
                difficulty in (None, levels[number % 3])
                and verdict in (None, judged["status"])
                and (code is None or code in [message["id"] for message in quality["messages"]])
                and text.lower() in f"{completion['task_id']} do {number}. {completion['program'].lower()}"
            ):
                found.append(number)
    return len(set(found)), len(found)


CHOICES = (
    {},
    {"difficulty": "interview"},
    {"verdict": "timeout", "system": "tuned"},
    {"code": "E0602", "verdict": "passed", "system": "base", "difficulty": "competition"},
    {"text": "Y = 3"},
    {"text": "kata/7"},
    {"text": "(.*"},
)


def test_filters_leave_what_a_plain_loop_leaves(page, run):
    output = page.locator("#left")
    for chosen in CHOICES:
        for name, value in chosen.items():
            if name == "text":
                page.get_by_label("Text", exact=True).fill(value)
            else:
                menu = page.locator("#filters").get_by_label("Message" if name == "code" else name.capitalize())
                menu.select_option(**({"value": value} if name in ("code", "difficulty") else {"label": value}))
        tasks, programs = fitting(run, **chosen)
        expect(output).to_have_text(f"{tasks} of 9 tasks and {programs} of 108 programs fit.")
        assert len(shown_tasks(page)) == tasks
        page.get_by_role("button", name="Clear").click()
        expect(output).to_have_text("9 of 9 tasks and 108 of 108 programs fit.")


def test_a_message_in_a_table_leads_to_its_programs(page, run):
    page.locator("#table-issues").get_by_role("link", name="W0612").click()
    tasks, programs = fitting(run, code="W0612")
    expect(page.locator("#left")).to_have_text(f"{tasks} of 9 tasks and {programs} of 108 programs fit.")
    assert page.evaluate("document.activeElement.value") == "W0612" and page.url.endswith("#message=W0612")


def test_the_programs_of_a_task_with_their_messages_at_the_lines(page, run):
    page.locator("#tasks").get_by_role("link", name="kata/4").click()
    assert page.url.endswith("#task=kata%2F4") and page.evaluate("document.activeElement.id") == "task-name"
    assert page.locator("#tasks [aria-current=true]").inner_text() == "kata/4"
    for system in ("base", "tuned"):
        stored = [row for row in raw_rows(run, system) if row[0]["task_id"] == "kata/4"]
        menu = page.get_by_label(f"Sample of {system}")
        median = sorted(range(6), key=lambda sample: stored[sample][1]["score"])[2]
        assert menu.input_value() == str(median)
        part = page.locator(f"#task section[aria-label={system}]")
        for sample, (completion, quality, verdict) in enumerate(stored):
            menu.select_option(str(sample))
            lines = part.locator("li code").all_text_contents()
            assert lines == completion["program"].split("\n")
            said = part.locator(".said").inner_text()
            assert f"score {quality['score']:.2f}, {verdict['status'].replace('_', ' ')}" in said
            at = part.locator("li").evaluate_all(
                "all => all.map(li => [...li.querySelectorAll('.message')].map(m => m.innerText))"
            )
            for number, texts in enumerate(at, 1):
                there = [f"{m['id']} {m['symbol']}" for m in quality["messages"] if m["line"] == number]
                expected = sorted(f"{one} ×{there.count(one)}" if there.count(one) > 1 else one for one in set(there))
                assert sorted(text.rsplit(" ", 1)[0] for text in texts) == expected
                assert all(text.endswith(("error", "warning", "refactor", "convention")) for text in texts)


def test_keys_move_between_the_tasks_that_are_left_in_their_order(page):
    head = page.locator("#task-name")
    page.locator("#tasks").get_by_role("columnheader", name="Task").get_by_role("button").click(click_count=2)
    page.locator("#filters").get_by_label("Difficulty").select_option("interview")
    expect(page.locator("#left")).to_contain_text("3 of 9 tasks")
    page.evaluate("document.activeElement.blur()")
    for key, task in (("j", 7), ("j", 4), ("j", 1), ("j", 1), ("k", 4)):
        page.keyboard.press(key)
        assert head.inner_text() == f"kata/{task}, interview" and page.url.endswith(f"#task=kata%2F{task}")
    page.keyboard.press("/")
    page.keyboard.type("jk/")
    assert page.get_by_label("Text", exact=True).input_value() == "jk/" and "kata/4" in head.inner_text()
    expect(page.locator("#left")).to_contain_text("0 of 9 tasks")
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("keys on").uncheck()
    page.keyboard.press("j")
    assert "kata/4" in head.inner_text()
    page.get_by_role("button", name="Next task").click()
    assert "kata/3" in head.inner_text()


def test_an_address_opens_a_task(visit, run):
    page = visit(run / "report.html", "#task=kata%2F5")
    assert page.inner_text("#task-name") == "kata/5, competition"
    for unknown, said in (("kata%2F99", "kata/99"), ("%zz", "%zz")):
        page.evaluate("hash => { location.hash = hash }", f"#task={unknown}")
        expect(page.locator("#left")).to_have_text(f"This page has no task {said}.")
    page.evaluate("location.hash = '#task=kata/2'")
    expect(page.locator("#task-name")).to_have_text("kata/2, competition")
    for _ in range(3):
        page.go_back()
    expect(page.locator("#task-name")).to_have_text("kata/5, competition")


def test_harmful_text_does_nothing(visit, tmp_path):
    page = visit(quick_report(harmful_run(tmp_path)), "#task=kata%2F0")
    assert page.title() == "base and tuned on kata" and page.locator("main img").count() == 3
    code = page.locator("#task section[aria-label=base] li code").all_text_contents()
    assert code[0] == "def f(x):" and len(code) == 2 and "</script><script>" in code[1]
    assert "[U+202E][U+2066][U+0000][U+001B][U+D800]" in code[1]
    messages = page.locator("#task section[aria-label=base] li").nth(1).locator(".message").all_inner_texts()
    assert len(messages) == 2 and messages[1].startswith("W0999 beyond-the-end")


def test_dark_mode_follows_the_system_and_a_button(visit, run):
    def is_dark(page):
        red = int(re.search(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])
        assert red < 60 or red > 200
        return red < 60

    for scheme in ("light", "dark"):
        page = visit(run / "report.html", color_scheme=scheme)
        button = page.get_by_role("button", name="Dark mode")
        assert is_dark(page) == (scheme == "dark") == (button.get_attribute("aria-pressed") == "true")
        page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        expect(button).to_have_attribute("aria-pressed", "true" if scheme == "light" else "false")
        assert is_dark(page) == (scheme == "light")
        page.emulate_media(color_scheme=scheme)
        expect(button).to_have_attribute("aria-pressed", "false" if scheme == "light" else "true")
        button.click()
        assert is_dark(page) == (scheme == "light") == (button.get_attribute("aria-pressed") == "true")
        page.reload()
        page.wait_for_selector(READY, state="attached")
        assert is_dark(page) == (scheme == "light")


def test_a_phone_scrolls_no_page_sideways(visit, run):
    page = visit(run / "report.html", "#task=kata%2F1", viewport={"width": 360, "height": 640}, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = page.locator("#table-quality .wide")
    assert wide.evaluate("box => box.scrollWidth > box.clientWidth && box.tabIndex === 0")
    columns = page.locator("#task .pair > section").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().left)"
    )
    assert len(set(columns)) == 1  # one below the other


def test_every_control_is_reached_by_tab_and_shows_it(visit, run):
    page = visit(run / "report.html", "#task=kata%2F1")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    wanted = page.locator("a, button, select, input, summary").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).length"
    )
    page.evaluate("window.reached = new Set(); getSelection().collapse(document.body, 0)")
    for _ in range(wanted + 40):
        page.keyboard.press("Tab")
        seen = page.evaluate("""() => {
            const at = document.activeElement, style = getComputedStyle(at);
            if (at.matches("a, button, select, input, summary")) window.reached.add(at);
            return at === document.body || parseFloat(style.outlineWidth) >= 2;
        }""")
        assert seen
    assert page.evaluate("window.reached.size") == wanted


def test_without_javascript_everything_but_the_filters_is_there(visit, run):
    page = visit(run / "report.html", java_script_enabled=False)
    assert page.locator("table:visible").count() == 10 and page.locator("img:visible").count() == 3
    assert page.locator("button:visible, select:visible, input:visible").count() == 0
    page.get_by_text("9 tasks: base and tuned").click()
    assert page.locator("#examples article:visible").count() == 9
    assert page.locator("#examples .message:visible").count() > 9


def test_axe_finds_nothing(visit, run):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(run / "report.html", "#task=kata%2F1", color_scheme="light")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    for scheme, pressed in (("light", "false"), ("dark", "true")):
        page.emulate_media(color_scheme=scheme)
        expect(page.get_by_role("button", name="Dark mode")).to_have_attribute("aria-pressed", pressed)
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.slow
def test_a_large_run_stays_small(visit, tmp_path):
    """180 tasks, 20 programs, 2 systems; the texts are pieces of Python's standard library, so they do not repeat."""
    directory, draw = store_run(tmp_path / "run", tasks=180, samples=20), random.Random(0)
    files = sorted(Path(random.__file__).parent.glob("*.py"))
    source = "".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
    for file in directory.glob("*/completions.jsonl"):
        rows = []
        for completion in read_jsonl(file, Completion):
            start = draw.randrange(len(source) - 1800)
            rows.append(replace(completion, program=source[start : start + draw.randint(400, 1800)]))
        write_jsonl(file, rows)
    page = quick_report(directory)
    size = page.stat().st_size / 1e6
    print(f"{size:.1f} MB")
    assert size < 10
    shown = visit(page, "#task=kata%2F179")
    assert shown.inner_text("#left") == "180 of 180 tasks and 7,200 of 7,200 programs fit."
    assert shown.locator("#task .pair > section").count() == 2
