"""The review page in a real Chromium: two reviewers at once, a killed server, a phone, the keyboard alone, the dark."""

import contextlib
import re

import pytest
from browser import watched_page
from review_runs import serving, store_evaluation

from cptlab.review.store import REVIEW_FILE, Review

expect = pytest.importorskip("playwright.sync_api").expect
pytest.importorskip("uvicorn", reason="the extra review is not installed (pip install -e '.[review]')")
pytestmark = pytest.mark.browser
PAIRS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(store_evaluation(tmp_path_factory.mktemp("review") / "run", PAIRS)) as found:
        yield found


@pytest.fixture
def visit(browser):
    """visit(address, name) opens a page of a browser of its own; what it requests elsewhere and its errors fail the test."""
    with contextlib.ExitStack() as stack:
        problems = []

        def opened(address, name=None, **settings):
            page = watched_page(browser, stack, problems, address, **settings)
            page.goto(address)
            if name:
                page.get_by_label("Your name").fill(name)
                page.keyboard.press("Enter")
                at(page, 1)
            return page

        yield opened
        assert problems == []


def at(page, number):
    page.wait_for_url(f"**/pairs/{number}")
    page.wait_for_selector("html[data-ready]", state="attached")


def votes(server):
    return Review(server.run / REVIEW_FILE).votes()


def choose(page, text):
    page.get_by_role("button", name=text, exact=True).click()


@pytest.mark.slow
def test_two_reviewers_at_once_and_a_server_that_is_killed(tmp_path, visit, browser):
    with serving(store_evaluation(tmp_path / "run", PAIRS), "limit=5") as server:
        ada, bo = visit(server.address, "Ada"), visit(server.address, "Bo")
        choose(ada, "Left")
        choose(bo, "Right")
        at(ada, 2)
        at(bo, 2)
        choose(ada, "No clear difference")
        at(ada, 3)
        server.kill()
        choose(ada, "Right")  # nobody is there to take it
        expect(ada.get_by_role("status")).to_contain_text("is not stored yet")
        assert votes(server) == {"Ada": {1: "left", 2: "same"}, "Bo": {1: "right"}}
        server.settings = ()  # the review that is there goes on
        server.start()
        assert f"Ada goes on at {server.address}/return/" in "".join(server.said)
        at(ada, 4)  # it was sent again
        choose(bo, "Left")
        at(bo, 3)
        link = re.search(r"Bo goes on at (\S+)", "".join(server.said))[1]
        bo.context.close()  # Bo's browser is gone
        context = browser.new_context()
        with contextlib.closing(context):
            bo = context.new_page()
            bo.goto(link)
            at(bo, 3)
            for number in (3, 4, 5):
                at(bo, number)
                choose(bo, "No clear difference")
            bo.wait_for_url("**/done")
            assert "Thank you, Bo" in bo.inner_text("main")
        ada.goto(server.address)
        at(ada, 4)  # where she was
        assert votes(server) == {
            "Ada": {1: "left", 2: "same", 3: "right"},
            "Bo": {1: "right", 2: "left", 3: "same", 4: "same", 5: "same"},
        }


def test_the_keyboard_alone_will_do(server, visit):
    page = visit(server.address)
    assert page.evaluate("document.activeElement.id") == "name"
    page.keyboard.type("Keyboard")
    page.keyboard.press("Enter")
    for number, key in ((1, "1"), (2, "3"), (3, "2")):
        at(page, number)
        page.keyboard.press(key)
    at(page, 4)
    page.keyboard.press("j")  # there is no next pair before an answer
    page.keyboard.press("k")
    at(page, 3)
    expect(page.get_by_role("button", name="No clear difference")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("1")  # another answer to pair 3
    at(page, 4)
    page.evaluate("document.activeElement.blur()")
    for _ in range(20):
        page.keyboard.press("Tab")
        assert page.evaluate("""() => {
            const focused = document.activeElement, box = focused.getBoundingClientRect();
            const bar = document.querySelector(".choices"), top = bar.getBoundingClientRect().top;
            const hidden = !bar.contains(focused) && box.top >= top && box.bottom <= innerHeight && box.top < innerHeight
                && getComputedStyle(bar).position === "sticky" && document.elementFromPoint(box.x + 1, box.y + 1)?.closest(".choices");
            return focused === document.body || (parseFloat(getComputedStyle(focused).outlineWidth) >= 2 && !hidden);
        }""")
        if page.evaluate("document.activeElement.value") == "right":
            break
    page.keyboard.press("Enter")
    at(page, 5)
    page.get_by_label("keys on").uncheck()
    page.keyboard.press("1")
    page.reload()
    at(page, 5)
    assert not page.get_by_label("keys on").is_checked()
    page.keyboard.press("1")
    assert votes(server)["Keyboard"] == {1: "left", 2: "right", 3: "left", 4: "right"}


def test_a_key_that_is_held_down_votes_once(server, visit):
    page = visit(server.address, "Heavy")
    page.keyboard.down("1")
    at(page, 2)
    for _ in range(3):
        page.keyboard.down("1")  # how a held key repeats
    page.keyboard.up("1")
    page.reload()
    at(page, 2)
    assert votes(server)["Heavy"] == {1: "left"}


def test_a_phone(server, visit):
    page = visit(server.address, "Phone", viewport={"width": 360, "height": 640}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sides = page.locator(".pair > section").evaluate_all("all => all.map(one => one.getBoundingClientRect().left)")
    assert len(set(sides)) == 1  # one below the other
    for text in ("Left", "No clear difference", "Right"):
        button = page.get_by_role("button", name=text, exact=True)
        box = button.bounding_box()
        assert box["y"] + box["height"] <= 640 and box["height"] >= 44  # in reach wherever the page is scrolled to
        assert button.evaluate("one => one.scrollWidth <= one.clientWidth")
    page.get_by_role("button", name="Right", exact=True).tap()
    at(page, 2)
    assert votes(server)["Phone"] == {1: "right"}


def test_without_javascript_votes_are_forms(server, visit):
    page = visit(server.address, java_script_enabled=False)
    page.get_by_label("Your name").fill("Plain")
    page.keyboard.press("Enter")
    choose(page, "No clear difference")
    page.wait_for_url("**/pairs/2")
    page.get_by_role("link", name="Previous pair").click()
    expect(page.get_by_role("button", name="No clear difference")).to_have_attribute("aria-pressed", "true")
    assert votes(server)["Plain"] == {1: "same"}


def test_harmful_text_is_shown_and_does_nothing(server, visit):
    page = visit(server.address, "Careful")
    assert page.title() == f"Pair 1 of {PAIRS}" and page.locator("main img, main script").count() == 0
    left = page.get_by_role("region", name="Left")
    assert "</code></pre><script>document.title='harm'</script><img src=x" in "\n".join(
        left.locator("li").all_text_contents()
    )
    assert "[U+202E][U+0000][U+001B]" in page.get_by_label("Task", exact=True).last.inner_text()


def test_a_page_of_an_earlier_reviewer_cannot_vote(server, visit):
    page = visit(server.address, "First")
    other = page.context.new_page()
    other.goto(f"{server.address}/pairs/1")
    other.get_by_role("button", name="I am not First").click()
    other.get_by_label("Your name").fill("Second")
    other.keyboard.press("Enter")
    at(other, 1)
    choose(page, "Left")
    expect(page.get_by_role("alert")).to_contain_text("This page is not Second's")
    assert votes(server)["First"] == votes(server)["Second"] == {}


def test_axe_finds_nothing_in_the_light_and_in_the_dark(server, visit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(server.address)
    for name in (None, "Axe"):
        if name:
            page.get_by_label("Your name").fill(name)
            page.keyboard.press("Enter")
            at(page, 1)
            choose(page, "Left")
            at(page, 2)
            page.get_by_role("link", name="Previous pair").click()
            at(page, 1)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        for scheme, pressed in (("light", "false"), ("dark", "true")):
            page.emulate_media(color_scheme=scheme)
            expect(page.get_by_role("button", name="Dark mode")).to_have_attribute("aria-pressed", pressed)
            found = axe.Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
