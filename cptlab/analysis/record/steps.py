"""Run the steps of a record: each command in a process of its own, as many side by side as `jobs` says.

The cores of the machine are divided among the jobs, and with them the threads of torch and the processes that judge programs;
so are the GPUs that CUDA_VISIBLE_DEVICES names, where there are as many as jobs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cptlab.judging.workers.libc import PR_SET_PDEATHSIG, libc
from cptlab.settings.record_plan import Step
from cptlab.storage.run_directory import RUN_FILE, read_record

ESTIMATE = "estimate=true"
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    step: Step
    head: str
    log: Path
    started: float
    share: int  # which of the shares of cores and GPUs it has


def is_finished(step: Step, record: Path) -> bool:
    """Whether a run of this step is stored whole."""
    return bool(read_record(record / step.name / RUN_FILE).get("finished"))


def run_steps(steps: Sequence[Step], record: Path, jobs: int = 1) -> dict[Step, str]:
    """Run what is not finished, each step after the one that it needs; return the steps that failed, each with the reason.

    When this process is stopped or killed, so are its commands, which can go on where they were.
    """
    shares, failed = _shares(jobs), dict[Step, str]()
    waiting = [step for step in steps if not is_finished(step, record)]
    numbers = {step: number for number, step in enumerate(steps, 1)}
    made = {None, *(_pairs_of(step) for step in steps if step not in waiting)}
    running: list[_Running] = []
    try:
        while waiting or running:
            unfinished = [*waiting, *(one.step for one in running)]
            free = [share for share in range(len(shares)) if share not in {one.share for one in running}]
            for step in list(waiting):
                if step.needs in failed:
                    failed[step] = f"{step.needs.name} failed" if step.needs else ""
                    waiting.remove(step)
                elif free and step.needs not in unfinished and _pairs_of(step) not in _being_made(running) - made:
                    head = f"[{numbers[step]}/{len(steps)}] {step.name}"
                    running.append(_start(step, head, record, free.pop(0), shares))
                    waiting.remove(step)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                _end(one, failed)
                if one.step not in failed:
                    made.add(_pairs_of(one.step))
            time.sleep(POLL_SECONDS if running else 0)
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
    if failed:
        print(f"error: {len(failed)} of {len(steps)} steps failed; the same command tries them again.", file=sys.stderr)
    return failed


def _being_made(running: Sequence[_Running]) -> set[tuple[str, ...] | None]:
    return {_pairs_of(one.step) for one in running}


def _pairs_of(step: Step) -> tuple[str, ...] | None:
    """Return the settings that a training's pairs depend on: the first of several trainings makes them for all."""
    if step.command != "train":
        return None
    return tuple(one for one in step.overrides if one.startswith(("experiment", "benchmark", "backbone", "pairs")))


def _start(step: Step, head: str, record: Path, share: int, shares: Sequence[tuple[set[int], str | None]]) -> _Running:
    print(head, file=sys.stderr, flush=True)
    log = record / f"{step.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    cores, devices = shares[share]

    def before() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        os.sched_setaffinity(0, cores)

    environment = {**os.environ, **({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})}
    line = [sys.executable, "-c", "from cptlab.commands.cli import run; run()", *step.arguments(record)]
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            line, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=before, env=environment
        )
    return _Running(process, step, head, log, time.monotonic(), share)


def _end(one: _Running, failed: dict[Step, str]) -> None:
    if one.process.returncode:
        failed[one.step] = _last_line(one.log)
        print(f"error: {one.step.name}: {failed[one.step]} (all of it: {one.log})", file=sys.stderr, flush=True)
        return
    print(f"{one.head}: {time.monotonic() - one.started:.0f} s", file=sys.stderr, flush=True)
    if ESTIMATE in one.step.overrides:
        print(one.log.read_text(encoding="utf-8"))


def _shares(jobs: int) -> list[tuple[set[int], str | None]]:
    """Divide the cores, and the GPUs that CUDA_VISIBLE_DEVICES names; more jobs than cores share them."""
    cores = sorted(os.sched_getaffinity(0))
    devices = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    return [
        (
            set(cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs]) or {cores[job % len(cores)]},
            ",".join(devices[job::jobs]) if len(devices) >= jobs else None,
        )
        for job in range(jobs)
    ]


def _last_line(log: Path) -> str:
    """Return what a failed command said last; a killed one may have said nothing."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
    return lines[-1].removeprefix("error: ") or "it was killed"
