"""The Chromium of the system, driven by playwright."""

import contextlib
import importlib.util
import shutil

MILLISECONDS = 100_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def missing_browser() -> str:
    """Say what tests in a browser lack on this machine; '' where they can run."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install -e '.[test]')"
    return "" if any(map(shutil.which, NAMES)) else "no Chromium is installed (CONTRIBUTING.md says how)"


@contextlib.contextmanager
def chromium():
    """Yield a headless browser. What is expected of its pages may take long: a machine under load is slow, not wrong."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, map(shutil.which, NAMES))))
        expect.set_options(timeout=MILLISECONDS)
        yield browser
        browser.close()


def watched_page(browser, stack, problems, allowed, events=(), **settings):
    """Return a page of a context of its own, closed with `stack`. Its errors and dialogs, these further `events`, and requests
    to addresses that begin with none of `allowed` are added to `problems`.
    """
    page = stack.enter_context(contextlib.closing(browser.new_context(**settings))).new_page()
    for event in ("pageerror", "dialog", *events):
        page.on(event, lambda found: problems.append(str(found)))
    page.on("request", lambda found: problems.extend([found.url] * (not found.url.startswith(allowed))))
    page.set_default_timeout(MILLISECONDS)
    return page
