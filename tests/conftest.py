"""What all tests share: one thread per worker, no dashboards, the data directory."""

import os
import signal
from pathlib import Path

import pytest
from browser import chromium, missing_browser

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; pytest-xdist runs one worker per core
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script: commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def data_directory() -> Path:
    return Path(os.environ.get("CPTLAB_DATA_DIR") or ROOT.parent / "shared" / "data")


def pytest_collection_modifyitems(items):
    """Skip the tests whose needs this machine lacks."""
    skips = {}
    if not data_directory().is_dir():
        skips["data"] = f"no benchmark files at {data_directory()} (CPTLAB_DATA_DIR)"
    if any("gpu" in item.keywords for item in items):
        import torch

        if not torch.cuda.is_available():
            skips["gpu"] = "torch sees no GPU"
    if any("browser" in item.keywords for item in items) and (missing := missing_browser()):
        skips["browser"] = missing
    for item in items:
        for marker in skips.keys() & item.keywords:
            item.add_marker(pytest.mark.skip(reason=skips[marker]))


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def data_dir() -> Path:
    return data_directory()
