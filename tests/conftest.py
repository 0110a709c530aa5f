"""What all tests share: one thread per worker, no dashboards, the data directory."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; pytest-xdist runs one worker per core
os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parent.parent


def data_directory() -> Path:
    return Path(os.environ.get("CPTLAB_DATA_DIR") or ROOT.parent / "shared" / "data")


def pytest_collection_modifyitems(items):
    if not data_directory().is_dir():
        for item in items:
            if "data" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"no benchmark files at {data_directory()} (CPTLAB_DATA_DIR)"))


@pytest.fixture
def data_dir() -> Path:
    return data_directory()
