"""The Chromium of the system, driven by playwright."""

import contextlib
import importlib.util
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def missing_browser() -> str:
    """Say what tests in a browser lack on this machine; '' where they can run."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install -e '.[test]')"
    return "" if any(map(shutil.which, NAMES)) else "no Chromium is installed (CONTRIBUTING.md says how)"


@contextlib.contextmanager
def chromium():
    """Yield a headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(filter(None, map(shutil.which, NAMES))))
        yield browser
        browser.close()
