"""The limits of a judged program: declared once, raised by a task, never lowered, and held."""

from dataclasses import asdict, replace

import pytest

from cptlab.errors import UserError
from cptlab.judging.sandbox.levels import LEVELS
from cptlab.judging.sandbox.limits import Limits
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.records import Prompt, Task, Test
from cptlab.settings.shared_settings import SANDBOX_LEVELS

TASK = Task("t", "b", "test", "", "call", Prompt("p"), "f", hidden_tests=(Test(expected=1, args=()),))
BUSY = "import time\ndef f():\n    while time.process_time() < 1:\n        pass\n    return 1"
LARGE = "def f():\n    return len(bytes(400 << 20)) >> 20 > 0 and 1"


@pytest.mark.parametrize("seconds, memory", [(None, None), (1.0, 100), (50.0, None), (None, 9000), (3.0, 1024)])
def test_a_task_raises_limits_and_never_lowers_them(seconds, memory):
    before, after = asdict(Limits()), asdict(Limits().for_task(seconds, memory))
    assert all(after[name] >= before[name] for name in before)
    assert after["cpu_seconds"] >= (seconds or 0) and after["memory_mb"] >= (memory or 0)
    assert after["wall_seconds"] >= 10 * after["cpu_seconds"]


@pytest.mark.parametrize("wrong", [{"cpu_seconds": 0}, {"memory_mb": 1}, {"output_mb": 0.5}, {"wall_seconds": "long"}])
def test_limits_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"{name}="):
        Limits(**wrong)


def test_limits_hold_and_a_task_raises_them():
    tight = Limits(cpu_seconds=0.3, memory_mb=256)
    roomy = replace(TASK, cpu_seconds=5.0, memory_mb=1024)
    items = [(program, task) for program in (BUSY, LARGE) for task in (TASK, roomy)]
    found = [verdict.status for verdict in judge_programs(items, limits=tight, workers=1)]
    assert found == ["timeout", "passed", "memory", "passed"]
    assert [verdict.status for verdict in judge_programs(items[::2], workers=1)] == ["passed", "passed"]


def test_the_setting_sandbox_can_be_every_level():
    assert set(SANDBOX_LEVELS) == set(LEVELS)
