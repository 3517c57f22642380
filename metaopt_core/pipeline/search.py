"""The search of a sweep: an Optuna study in the home, on which any number of processes work, any of which may be killed.

A trial belongs to the process that holds its file lock, which the operating system releases however the process ends. A trial that
is running according to the study but not locked was left by a killed process: the next process that asks for a trial queues it
again with the same values. All of this happens under the study's own lock, so that no trial is lost and none is run twice.
"""

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from metaopt_core.errors import StoppedError
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.ranges import value_at, with_values
from metaopt_core.spec.sweep import ChoicesSpec, ParameterSpec, SweepSpec
from metaopt_core.training.loop import Record

_GOES_ON_WITH = "goes_on_with"  # of a trial that was queued again: the number of the one that it replaces
_GIVEN_UP = "diverged_in_full"  # of a study: the trials whose settings diverged in the full-length run
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

optuna.logging.set_verbosity(logging.ERROR)


@dataclass(frozen=True)
class Claim:
    """A trial that this process is working on.

    number: of the trial, or of the one that it continues. setting: dotted key → value of what is searched.
    """

    trial: optuna.Trial
    number: int
    setting: dict[str, Any]
    sweep: "Sweep"

    def spec(self) -> PipelineSpec:
        """The pipeline of the trial, without baselines. Raises pydantic's ValidationError for an impossible combination."""
        spec, search = self.sweep.spec, self.sweep.search
        fixed: dict[str, Any] = {"train.baselines": [], "log.experiment": spec.log.experiment or spec.name, "log.register_as": None}
        return with_values(spec, fixed | search.trial | self.setting, name=f"{spec.name}-trial-{self.number}")

    def watch(self, learned: str, iterations: int) -> Callable[[str, Record], None]:
        """A callback for training that reports every validation, and raises StoppedError if the trial is pruned.

        learned: the key of the method whose validations count.
        """

        def on_record(phase: str, record: Record) -> None:
            if phase != learned or record.name != f"validation_{self.sweep.search.objective.metric}":
                return
            self.trial.report(record.value, record.iteration)
            if record.iteration < iterations and self.trial.should_prune():
                raise StoppedError(f"pruned after {record.iteration} iterations: a validation of {record.value:.4g} is too bad")

        return on_record

    def finish(self, value: float | None) -> None:
        """Record the objective; none, or a number that isn't finite, counts as pruned."""
        if value is not None and np.isfinite(value):
            self.sweep.study.tell(self.trial, value)
        else:
            self.sweep.study.tell(self.trial, state=TrialState.PRUNED)


@dataclass(frozen=True)
class Sweep:
    """The search that a spec describes. The study's name depends only on what trials depend on, so a larger budget continues it."""

    home: Home
    spec: PipelineSpec

    @property
    def search(self) -> SweepSpec:
        assert self.spec.sweep is not None  # the caller has checked
        return self.spec.sweep

    @cached_property
    def name(self) -> str:
        """The pipeline's name and a hash of its generate and train stages, what is searched, and the objective."""
        trial = with_values(self.spec, self.search.trial)
        known = [identities(trial)[stage] for stage in ("generate", "train")]
        fixed = [{key: value for key, value in stage.slice.items() if key not in self.search.parameters} for stage in known]
        search = self.search.model_dump(mode="json", exclude={"trials", "time", "trial"})
        parts = [fixed, [[stage.code, stage.libraries] for stage in known], search, trial.evaluate.model_dump(), self.spec.seed]
        return f"{self.spec.name}-sweep-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]}"

    @property
    def folder(self) -> Path:
        """Where the results of the search are."""
        return self.home.sweeps / self.name

    @property
    def storage(self) -> str:
        """The address of the study, as Optuna's own tools expect it."""
        return f"sqlite:///{self.home.sweeps / 'optuna.db'}"

    @property
    def minimizes(self) -> bool:
        metric = next(one for one in self.spec.metrics if one.name == self.search.objective.metric)
        return not metric.larger_is_better

    def steps_of(self, spec: PipelineSpec) -> int:
        """The adaptation steps after which a trial, or the resulting setting, is judged."""
        return self.search.objective.steps or spec.horizon

    @cached_property
    def study(self) -> optuna.Study:
        self.home.sweeps.mkdir(parents=True, exist_ok=True)
        prunes = self.search.pruning == "median"
        with self._lock("study"):
            study = optuna.create_study(
                storage=optuna.storages.RDBStorage(self.storage, engine_kwargs={"connect_args": {"timeout": 60}}),
                study_name=self.name,
                direction="minimize" if self.minimizes else "maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if prunes else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            if not study.get_trials(deepcopy=False):
                self._queue_the_specs_own_values(study)
        return study

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {key: self._distribution(key, parameter) for key, parameter in self.search.parameters.items()}

    def decoded(self, params: dict[str, Any]) -> dict[str, Any]:
        """A trial's parameters as dotted key → value of the spec."""
        values = dict(params)
        for key, parameter in self.search.parameters.items():
            if isinstance(parameter, ChoicesSpec) and key in values:
                values[key] = {_encoded(choice): choice for choice in parameter.choices}[values[key]]
        return values

    @contextlib.contextmanager
    def claimed(self) -> Iterator[Claim | None]:
        """The next trial, reserved for this process within the block; none if the budget is spent.

        Leaving the block without `Claim.finish` leaves the trial to the next process that asks.
        """
        study = self.study
        with contextlib.ExitStack() as stack:
            with self._lock("study"):
                self._queue_what_was_left()
                trials = study.get_trials(deepcopy=False)
                claim = None
                if self._budget_left(trials):
                    index = sum(trial.state in _COUNTED for trial in trials)
                    seed = int(np.random.SeedSequence([self.spec.seed, index]).generate_state(1)[0])
                    study.sampler = optuna.samplers.TPESampler(seed=seed)  # so that its draws are a function of seed and index
                    trial = study.ask(self.distributions)
                    stack.enter_context(self._lock(f"trial-{trial.number}"))
                    claim = Claim(trial, trial.user_attrs.get(_GOES_ON_WITH, trial.number), self.decoded(trial.params), self)
            yield claim

    def running(self) -> bool:
        """Whether any trial is running, or was left behind and not queued again yet."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)))

    def finished(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def best(self) -> FrozenTrial | None:
        """The best completed trial that was not discarded since, if there is one."""
        given_up = self.study.user_attrs.get(_GIVEN_UP, [])
        complete = [trial for trial in self.finished() if trial.state == TrialState.COMPLETE and trial.number not in given_up]
        return (min if self.minimizes else max)(complete, key=lambda trial: (trial.value, 0), default=None)

    def give_up(self, trial: FrozenTrial) -> None:
        """Discard a trial whose setting diverged in the full-length run, without the settings of `sweep.trial`."""
        self.study.set_user_attr(_GIVEN_UP, [*self.study.user_attrs.get(_GIVEN_UP, []), trial.number])

    def done(self) -> bool:
        """Whether the budget is spent and every trial finished."""
        return not self.running() and not self._budget_left(self.study.get_trials(deepcopy=False))

    def progress(self) -> str:
        """How much of the budget is spent: trials, time, or both."""
        trials = self.finished()
        budget = [f"of {self.search.trials}"] if self.search.trials else []
        spent = f"{_spent(trials):.0f} s" + (f" of {self.search.seconds:.0f} s" if self.search.time else "")
        return " ".join([str(len(trials)), *budget, "trials,", spent])

    def _budget_left(self, trials: Sequence[FrozenTrial]) -> bool:
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        counted = [trial for trial in trials if trial.state in _COUNTED]
        return (self.search.trials is None or len(counted) < self.search.trials) and _spent(counted) < self.search.seconds

    def _queue_the_specs_own_values(self, study: optuna.Study) -> None:
        """Make the pipeline's own values the first trial, if they are within the ranges."""
        own = {key: _encoded(value_at(self.spec, key)) for key in self.search.parameters}
        if all(_holds(parameter, own[key]) for key, parameter in self.search.parameters.items()):
            study.enqueue_trial(own)

    def _queue_what_was_left(self) -> None:
        """Queue the trials of killed processes again. Call it while holding the study's lock."""
        trials = self.study.get_trials(deepcopy=False)
        replaced = {trial.user_attrs.get(_GOES_ON_WITH): trial for trial in trials}
        for trial in trials:
            if trial.state != TrialState.RUNNING or not self._left(trial):
                continue
            number = trial.user_attrs.get(_GOES_ON_WITH, trial.number)
            if number not in replaced or replaced[number].number <= trial.number:  # a process may also have died right here
                self.study.enqueue_trial(trial.params, user_attrs={_GOES_ON_WITH: number})
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _left(self, trial: FrozenTrial) -> bool:
        try:
            with self._lock(f"trial-{trial.number}", blocking=False):
                return True
        except Timeout:
            return False

    def _lock(self, name: str, blocking: bool = True) -> FileLock:
        self.home.locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self.home.locks / f"{self.name}-{name}.lock", blocking=blocking)

    def _distribution(self, key: str, parameter: ParameterSpec) -> BaseDistribution:
        if isinstance(parameter, ChoicesSpec):
            return CategoricalDistribution([_encoded(choice) for choice in parameter.choices])
        low, high = parameter.low, parameter.high
        if low.is_integer() and isinstance(value_at(with_values(self.spec, {key: int(low)}), key), int):
            return IntDistribution(int(low), int(high), log=parameter.log)
        return FloatDistribution(low, high, log=parameter.log)


def _encoded(choice: Any) -> Any:
    """A choice in a form that Optuna accepts: a list or a block becomes JSON."""
    return json.dumps(choice) if isinstance(choice, (list, tuple, dict)) else choice


def _holds(parameter: ParameterSpec, value: Any) -> bool:
    if isinstance(parameter, ChoicesSpec):
        return value in [_encoded(choice) for choice in parameter.choices]
    return isinstance(value, (int, float)) and parameter.low <= value <= parameter.high


def _spent(trials: Sequence[FrozenTrial]) -> float:
    """Seconds in which at least one of the trials was running."""
    now = datetime.now()  # noqa: DTZ005 - as Optuna's own times are
    spans = sorted((trial.datetime_start, trial.datetime_complete or now) for trial in trials if trial.datetime_start)
    seconds, until = 0.0, None
    for start, end in spans:
        until = max(start, until or start)
        seconds += max(0.0, (end - until).total_seconds())
        until = max(until, end)
    return seconds


def figures(sweep: Sweep) -> list[Path]:
    """History, parameter importance and parallel coordinates, as far as the trials allow: PNG files in the sweep's folder."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as drawn

    study, label = sweep.study, f"validation {sweep.search.objective.metric}"
    values = {trial.value for trial in sweep.finished() if trial.state == TrialState.COMPLETE}
    wanted: dict[str, Callable[..., Any]] = {"history": drawn.plot_optimization_history}
    if len(values) > 1:  # importance needs trials that differ
        wanted |= {"importance": drawn.plot_param_importances, "parallel": drawn.plot_parallel_coordinate}
    made = []
    plt.switch_backend("agg")
    for name, draw in wanted.items():
        with mpl.rc_context({"figure.figsize": (9, 5)}), warnings.catch_warnings(action="ignore"):
            figure = draw(study, target_name=label).figure
            made.append(sweep.folder / f"{name}.png")
            figure.savefig(made[-1], dpi=110, metadata={"Software": None}, bbox_inches="tight")
            plt.close(figure)
    return made
