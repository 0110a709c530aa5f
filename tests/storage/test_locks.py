"""Locks exclude other processes and other holders in the same process, and end with the process that took them."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

from cptlab.storage.locks import locked, try_lock

ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys, time
from pathlib import Path
from cptlab.storage.locks import locked

with locked(Path(sys.argv[1])):
    if os.fork() == 0:  # a worker that outlives its parent
        time.sleep(30)
        os._exit(0)
    print("held", flush=True)
    time.sleep(30)
"""


def test_one_holder_at_a_time(tmp_path):
    first = try_lock(tmp_path / "new")
    assert first is not None and try_lock(tmp_path / "new") is None
    first.release()
    first.release()
    with locked(tmp_path / "new"):
        assert try_lock(tmp_path / "new") is None
    assert try_lock(tmp_path / "new") is not None


def test_a_lock_that_an_exception_dropped_is_free(tmp_path):
    def fail():
        lock = try_lock(tmp_path)
        raise RuntimeError(lock)

    try:
        fail()
    except RuntimeError:
        pass
    gc.collect()
    assert try_lock(tmp_path) is not None


def test_shared_holders_exclude_the_others_alone(tmp_path):
    with locked(tmp_path, shared=True):
        second = try_lock(tmp_path, shared=True)
        assert second is not None and try_lock(tmp_path) is None
        second.release()
    alone = try_lock(tmp_path)
    assert alone is not None and try_lock(tmp_path, shared=True) is None
    alone.release()


def test_a_killed_holder_lets_go_though_its_worker_lives(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert try_lock(tmp_path) is None
    waited, began = [], time.monotonic()
    killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({holder.pid}, 9)"])
    with locked(tmp_path, waiting=lambda: waited.append(True)):
        assert waited == [True] and 0.5 < time.monotonic() - began < 20
    assert killer.wait() == 0 and holder.wait() == -9
    os.killpg(holder.pid, 9)  # the worker, which is still there
