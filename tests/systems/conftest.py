"""The embedded model and a few of its tasks, for tests that sample programs."""

import pytest

from cptlab.backbone import load_backbone
from cptlab.tasks.kata import kata


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("kata-lm")


@pytest.fixture(scope="module")
def tasks():
    return kata().split("validation", 4)
