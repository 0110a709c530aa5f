"""Launchers that start the jobs of a sweep side by side, as separate processes: the cores of the machine are divided.

hydra/launcher=joblib hydra.launcher.n_jobs=2        # two at a time; each has half of the cores
hydra/launcher=submitit_local                        # all at once; each has hydra.launcher.cpus_per_task cores
hydra/launcher=submitit_slurm                        # the same on a cluster
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

WATCH, WATCH_SECONDS = "cptlab: is the sweep there?", 0.5


def cores_of_a_job() -> int | None:
    """Return the cores that the launcher leaves to each job; None where the jobs run one after the other."""
    launcher = HydraConfig.get().launcher
    target = str(launcher.get("_target_"))
    if "submitit" in target:
        return max(1, launcher.cpus_per_task or 1)
    if "joblib" not in target:
        return None
    from joblib import effective_n_jobs

    return max(1, len(os.sched_getaffinity(0)) // effective_n_jobs(launcher.n_jobs))


def share_cores(config: DictConfig) -> None:
    """Give a job the cores that its launcher leaves it: as threads of torch, and as processes that judge programs.

    joblib sets the threads itself, before it starts a process.
    """
    cores = cores_of_a_job()
    if cores is None:
        return
    assert "torch" not in sys.modules or "OMP_NUM_THREADS" in os.environ  # torch reads the variable when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    if "workers" in config and OmegaConf.select(config, "workers") is None:
        config.workers = cores


def end_with(sweep: int) -> None:
    """End this process of joblib's when that of the sweep is gone: it would do jobs beside those of the same command."""
    watched = any(thread.name == WATCH for thread in threading.enumerate())
    if watched or not multiprocessing.current_process().name.startswith("Loky"):
        return

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name=WATCH, daemon=True).start()


def is_death_of_a_job(error: RuntimeError) -> bool:
    """Whether a launcher says that the process of a job ended without a result, as one that the system killed."""
    return isinstance(error, BrokenProcessPool) or type(error).__module__.startswith("submitit.")
