"""Ray Data makes a system's programs: actors with the model sample chunks of tasks, others judge those as they come.

Chunks pass through the cache, which all machines must see under the same path; Ray carries their names alone. An actor
that dies is started again and goes on with its chunk where the journal ends, and so does the same command after a kill.
A chunk is what one machine makes of it. Machines that would judge otherwise than the one that asks are refused.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cptlab.adapters import Policy
from cptlab.errors import UserError
from cptlab.progress import progress_bar
from cptlab.records import Task
from cptlab.settings.setting import Setting, check_settings
from cptlab.systems.chunks import Stage
from cptlab.systems.judge import Judge
from cptlab.systems.judging_stages import Judging
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.samples import SystemPrograms
from cptlab.systems.shards import note_makers, where_judged

MISTAKE = "mistake"  # in a row: what a user did wrong, found by an actor


@dataclass(frozen=True)
class RayWorkers:
    """The actors that make programs."""

    address: Annotated[
        str | None,
        Setting("Address of a Ray cluster; null: RAY_ADDRESS, else a cluster of this machine, begun where none runs."),
    ] = None
    samplers: Annotated[int, Setting("Actors that hold the model and sample.", at_least=1)] = 1
    gpus_per_sampler: Annotated[float, Setting("GPUs of each of them; 0: it samples on the CPU.", at_least=0)] = 0
    cpus_per_sampler: Annotated[int, Setting("CPU cores of each of them.", at_least=1)] = 1
    judges: Annotated[int, Setting("Actors that score and test programs.", at_least=1)] = 1
    cpus_per_judge: Annotated[int, Setting("CPU cores, and judging processes, of each of them.", at_least=1)] = 1

    def __post_init__(self) -> None:
        check_settings(self)
        if find_spec("ray") is None:
            raise UserError("ray=… needs Ray, which is not installed. Install it: pip install 'cptlab[ray]'.")

    def fill(self, programs: SystemPrograms, load: Callable[[], Policy]) -> None:
        """Make every chunk of `programs` that is missing. `load` gives an actor the policy that samples.

        Raises UserError where the cluster is too small, and for a machine that would store its results elsewhere.
        """
        missing = programs.missing()
        if not missing:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = _import_ray()
        ours = not ray.is_initialized()
        if ours:
            dashboard = None if self.address else False
            try:
                ray.init(self.address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError) as error:
                raise UserError(
                    f"No Ray cluster is found at ray.address={self.address} ({str(error).splitlines()[0]}). Correct the "
                    "address, or leave it out to begin a cluster on this machine."
                ) from error
        try:
            self._check_size(ray.cluster_resources())
            self._run(programs, missing, load)
        finally:
            if ours:
                ray.shutdown()

    def _check_size(self, there: dict[str, float]) -> None:
        cpus = self.samplers * self.cpus_per_sampler + self.judges * self.cpus_per_judge
        for name, needed in (("CPU", cpus), ("GPU", self.samplers * self.gpus_per_sampler)):
            if needed > there.get(name, 0):
                raise UserError(
                    f"The Ray cluster has {there.get(name, 0):g} {name}s, and {self.samplers} sampling and {self.judges} "
                    f"judging actors need {needed:g}. Lower ray.samplers or ray.judges, or add machines to the cluster."
                )

    def _run(self, programs: SystemPrograms, missing: list[str], load: Callable[[], Policy]) -> None:
        import ray.data  # pyright: ignore[reportMissingImports]

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        works = [stage.store.work for stage in programs.stages]
        judge, tasks = programs.judging.judge, programs.chunks.tasks
        stripped = replace(programs.system, policy=None)  # type: ignore[arg-type]
        if programs.first is not None:
            judge = replace(judge)  # which each actor asks anew for its sandbox level, as the sampling ones judge, too
        sampling = ray.put(
            _Sampling(stripped, tasks, programs.n, judge, programs.seed, programs.chunks.size, load, works[:1])
        )
        judging = ray.put(
            _JudgingWork(replace(programs.judging, judge=replace(judge, workers=self.cpus_per_judge)), works[1:])
        )
        rows: Any = ray.data.from_items([{"chunk": key} for key in missing], override_num_blocks=len(missing))
        made = rows.map(
            _Sampler,
            fn_constructor_args=([sampling],),
            concurrency=self.samplers,
            num_cpus=self.cpus_per_sampler,
            num_gpus=self.gpus_per_sampler or None,
        ).map(_Judge, fn_constructor_args=([judging],), concurrency=self.judges, num_cpus=self.cpus_per_judge)
        total, left = (programs.chunks.programs_of(keys) for keys in (programs.chunks.keys, missing))
        title = f"{programs.system.name}: sampling and judging with Ray"
        with progress_bar(title, total, "programs", done=total - left) as advance:
            for row in made.iter_rows():
                if MISTAKE in row:
                    raise UserError(row[MISTAKE])
                note_makers(programs, "ray", row)
                advance(programs.chunks.programs_of([row["chunk"]]))


@dataclass(frozen=True)
class _Sampling:
    """What a sampling actor is sent: all but the model, and what its results must depend on."""

    system: LoadedSystem
    tasks: Sequence[Task]
    n: int
    judge: Judge
    seed: int
    chunk_tasks: int
    load: Callable[[], Policy]
    works: list[Any]

    def programs(self) -> SystemPrograms:
        """Load the model. Raises UserError where the programs would be stored elsewhere."""
        system = replace(self.system, policy=self.load())
        size = self.chunk_tasks * self.n * system.draws
        programs = SystemPrograms(system, self.tasks, self.n, self.judge, self.seed, size)
        _check_same([programs.sampling], self.works)
        return programs


@dataclass(frozen=True)
class _JudgingWork:
    """What a judging actor is sent."""

    judging: Judging
    works: list[Any]

    def stages(self) -> list[Stage]:
        stages = self.judging.stages()
        _check_same(stages, self.works)
        return stages


class _Sampler:
    """Samples the chunk that a row names. The model is loaded with the first row, and a user's mistake is handed on in the
    row: of an error in an actor, Ray keeps the text alone."""

    def __init__(self, sent: list[Any]) -> None:
        self.sent = sent
        self.programs: SystemPrograms | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        ray = _import_ray()
        try:
            programs = self.programs = self.programs or ray.get(self.sent[0]).programs()
            started = time.monotonic()
            if programs.first is not None:
                programs.first.fill([row["chunk"]])
            programs.sampling.fill([row["chunk"]])
        except UserError as error:
            return row | {MISTAKE: str(error)}
        return row | {"sampled_on": platform.node(), "sampling_seconds": round(time.monotonic() - started, 2)}


class _Judge:
    """Judges the chunk that a row names."""

    def __init__(self, sent: list[Any]) -> None:
        self.sent = sent
        self.work: _JudgingWork | None = None
        self.stages: list[Stage] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if MISTAKE in row:
            return row
        ray = _import_ray()
        try:
            work = self.work = self.work or ray.get(self.sent[0])
            stages = self.stages = self.stages or work.stages()
            started = time.monotonic()
            for stage in stages:
                stage.fill([row["chunk"]])
        except UserError as error:
            return row | {MISTAKE: str(error)}
        return row | where_judged(work.judging.judge.level) | {"judging_seconds": round(time.monotonic() - started, 2)}


def _check_same(stages: Sequence[Stage], works: Sequence[dict[str, Any]]) -> None:
    """Raise UserError where these stages would store their results elsewhere than the process that asked for them."""
    for stage, work in zip(stages, works, strict=True):
        own = stage.store.work
        for name in sorted(own.keys() | work.keys()):
            if own.get(name) != work.get(name):
                raise UserError(
                    f"{platform.node()} cannot take part ({stage.title}): its {name} is {str(own.get(name))[:80]}, and that of "
                    f"the machine that asks is {str(work.get(name))[:80]}. All machines need the same code, packages, "
                    "model files and sandbox level."
                )


def _import_ray() -> Any:
    """Import Ray without the packages that it puts on the path: a judged program could import them."""
    import ray  # pyright: ignore[reportMissingImports]

    own = str(Path(str(ray.__file__)).parent)
    sys.path[:] = [place for place in sys.path if not place.startswith(own)]
    return ray
