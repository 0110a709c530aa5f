"""A search over settings with Optuna, as a sweeper of Hydra: `cptlab train -m hparams_search=prefix_optuna`.

Each trial is a job of the sweep. The study is kept in the sweep's directory, or in a database that `storage` names, so
that the same command goes on after a kill with the trials that are missing. hydra-optuna-sweeper 1.3.0 starts from the
first trial again, and fails with a database under SQLAlchemy 2.

The settings are those of that plugin, in `hydra.sweeper`: n_trials, n_jobs (trials that a parallel launcher gets at a
time), direction, sampler, storage, study_name, and params, in Hydra's grammar: choice(…), range(…), interval(…), and
tag(log, interval(…)).
"""

from __future__ import annotations

import importlib
import math
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from cptlab.errors import UserError

JOURNAL, RESULTS = "optuna.journal", "optimization_results.yaml"
PLUGINS = "hydra_plugins"  # Hydra finds plugins in this package alone


class OptunaSweeper(Sweeper):
    """Hydra's side of a search. The parameters are the settings of `hydra.sweeper`."""

    __module__ = f"{PLUGINS}.cptlab"

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        direction: str,
        sampler: DictConfig,
        storage: str | None,
        study_name: str,
        params: Mapping[str, Any] | None,
    ) -> None:
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.sampler, self.storage, self.study_name, self.params = sampler, storage, study_name, params or {}
        self.config: Any = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing, and write which was best. Raises UserError before any work."""
        overrides = OverridesParser.create().parse_overrides([f"{name}={value}" for name, value in self.params.items()])
        overrides = {
            one.get_key_element(): one for one in (*overrides, *OverridesParser.create().parse_overrides(arguments))
        }
        fixed = [str(one.input_line) for one in overrides.values() if not one.is_sweep_override()]
        if self.config.get("optimized_metric") is None:
            raise UserError(
                "A search needs optimized_metric=<a metric of the command>, such as comparative/val_accuracy."
            )
        space = {name: _distribution(one) for name, one in overrides.items() if one.is_sweep_override()}
        if not space:
            raise UserError("A search needs settings with several values, such as 'adapter.length=choice(4,8,12)'.")
        directory = Path(self.config.hydra.sweep.dir)
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, directory / "multirun.yaml")
        study = self._study(directory)
        finished = _finished(study)
        while len(finished) < self.n_trials:
            trials = [study.ask(space) for _ in range(min(self.n_jobs, self.n_trials - len(finished)))]
            jobs = [[*fixed, *(f"{name}={value}" for name, value in trial.params.items())] for trial in trials]
            for trial, done in zip(trials, self.launcher.launch(jobs, trials[0].number), strict=True):
                value = _value(done)
                study.tell(trial, value, None if value is not None else _states().FAIL)
                finished.append(trial.number)  # one that failed had its turn; the same command tries it again
        _say_best(study, directory)

    def _study(self, directory: Path) -> Any:
        """Open the study, or begin it. What a kill or a failure left without a value is queued again."""
        optuna = import_optuna()
        storage = self.storage
        if storage is None:
            backend = optuna.storages.journal.JournalFileBackend(str(directory / JOURNAL))
            storage = optuna.storages.JournalStorage(backend)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        named = {"study_name": self.study_name, "storage": storage}
        study = optuna.create_study(**named, direction=self.direction, load_if_exists=True)
        sampler = OmegaConf.create(self.sampler)
        if isinstance(sampler.get("seed"), int):  # or a search that goes on would draw its first trials again
            sampler.seed += len(study.trials)
        study.sampler = hydra.utils.instantiate(sampler)
        settled = [trial.params for trial in study.trials if trial.state in (_states().COMPLETE, _states().WAITING)]
        for trial in study.trials:
            if trial.state == _states().RUNNING:
                study.tell(trial.number, state=_states().FAIL)
            if trial.params and trial.params not in settled:
                settled.append(trial.params)
                study.enqueue_trial(trial.params)
        return study


def register() -> None:
    """Have Hydra know the sweeper in this process, under a name that it accepts."""
    Plugins.instance().register(OptunaSweeper)
    try:
        importlib.import_module(PLUGINS)
    except ImportError:  # no plugin is installed
        sys.modules[PLUGINS] = types.ModuleType(PLUGINS)
    sys.modules[OptunaSweeper.__module__] = sys.modules[__name__]


def import_optuna() -> Any:
    """Return the package. Raises UserError where it is not installed."""
    try:
        import optuna  # pyright: ignore[reportMissingImports]
        import optuna.storages.journal  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("A search needs Optuna. Install it with: pip install 'cptlab[optuna]'") from None
    return optuna


def _states() -> Any:
    return import_optuna().trial.TrialState


def _finished(study: Any) -> list[int]:
    return [trial.number for trial in study.trials if trial.state == _states().COMPLETE]


def _value(done: JobReturn) -> float | None:
    """Return the metric of a job; None where it failed."""
    value = done.return_value if done.status == JobStatus.COMPLETED else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _distribution(override: Override) -> Any:
    """Return Optuna's distribution of a sweep in Hydra's grammar. Choices are texts, as the command line has them."""
    found = import_optuna().distributions
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind = found.IntDistribution if whole else found.FloatDistribution
        return kind(value.start, value.end, log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        steps = list(value.range())
        whole = all(isinstance(one, int) for one in steps)
        kind = found.IntDistribution if whole else found.FloatDistribution
        return kind(steps[0], steps[-1], step=value.step)
    return found.CategoricalDistribution(list(override.sweep_iterator(transformer=Transformer.encode)))


def _say_best(study: Any, directory: Path) -> None:
    """Print the best trial, and write it in the form of hydra-optuna-sweeper."""
    if not _finished(study):
        return
    best = study.best_trial
    content = {"name": "optuna", "best_params": dict(best.params), "best_value": best.value}
    OmegaConf.save(OmegaConf.create(content), directory / RESULTS)
    said = " ".join(f"{name}={value}" for name, value in best.params.items())
    print(
        f"\nBest of {len(_finished(study))} trials: {said} ({best.value:.4g}), trial {best.number}\n{directory / RESULTS}"
    )
