"""Executions and their MLflow runs: one run for one execution of a pipeline, however often its stages are retried or resumed.

An execution has a random id, stored in the home's `executions/` under the pipeline's name and the fingerprint of its log stage, and
in a tag of the MLflow run. The run is found by that tag, or made, under a file lock. Forcing stages (`--force`) begins another
execution, whose run has the same name with a number after it. A metric point has the time at which its value was computed, which is
stored with the value, and a step that has a point gets no other: logging again changes nothing. Run ids are always explicit,
because MLflow's global state (the active run, MLFLOW_RUN_ID in the environment) belongs to the user.
"""

import contextlib
import hashlib
import json
import logging
import signal
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import Identity
from metaopt_core.pipeline.store import write_atomically
from metaopt_core.spec.addresses import scrubbed
from metaopt_core.tracking.connection import answering, connect, experiment_id, locked, tracking_uri
from metaopt_core.tracking.description import describe, tags_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

EXECUTION = "metaopt.execution"
PARENT = "mlflow.parentRunId"

# Prefix of a curve's name → section of MLflow's page, and a suffix that distinguishes the curve there.
_SECTIONS = {
    "validation_": ("meta_validation", ""),
    "meta_train_": ("meta_train", "_as_validated"),
    "meta_test_": ("meta_test", "_over_training"),
}

_FLUSH_SECONDS = 5.0
_OUTAGE_SECONDS = 60.0  # because each attempt to reach a missing server costs training some seconds
_METRICS_AT_ONCE = 1000  # MLflow's limit for a batch

_log = logging.getLogger(__name__)


def new_execution(execution: Execution) -> None:
    """Begin another execution of the same spec, so that the next `running` makes a new run. The old run stays in MLflow."""
    with locked(execution.home, f"execution-{execution.key}"):
        _, number = _recorded(execution.home, execution.key)
        _record(execution.home, execution.key, number + 1)


def _recorded(home: Home, key: str) -> tuple[str, int]:
    """The id of an execution, and its number among those with the same key; call it while holding the execution's lock."""
    try:
        found = json.loads(_file(home, key).read_text())
        return str(found["execution"]), int(found["number"])
    except (OSError, ValueError, KeyError, TypeError):
        return _record(home, key, 1)


def _record(home: Home, key: str, number: int) -> tuple[str, int]:
    execution = uuid.uuid4().hex
    _file(home, key).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_file(home, key), json.dumps({"execution": execution, "number": number}))
    return execution, number


def _file(home: Home, key: str) -> Path:
    return home.root / "executions" / f"{key}.json"


def curve_name(phase: str, name: str) -> str:
    """The metric that holds a curve over iterations of one phase of training: `meta_validation/loss/reptile`."""
    for start, (section, end) in _SECTIONS.items():
        if name.startswith(start):
            return f"{section}/{name.removeprefix(start)}{end}/{phase}"
    return f"meta_train/{name}/{phase}"


class Run:
    """The MLflow run of an execution.

    id, experiment_id: MLflow's. execution: its id in the tag.
    """

    def __init__(self, client: "MlflowClient", run: "MlflowRun"):
        self.client = client
        self.id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.execution: str = run.data.tags[EXECUTION]
        self._buffer: list[Metric] = []
        self._there: dict[str, set[int]] = {}
        self._due = monotonic() + _FLUSH_SECONDS

    def point(self, name: str, step: int, value: float, time: float, model_id: str | None = None) -> "Metric":
        """A metric point. time: when the value was computed, in seconds since 1970."""
        from mlflow.entities import Metric

        return Metric(name, value, round(time * 1000), step, model_id=model_id, run_id=self.id if model_id else None)

    def log_curve(self, name: str, step: int, value: float, time: float) -> None:
        """Buffer a point of a curve. Points are sent in batches every few seconds, and at the end of the run's block."""
        self._buffer.append(self.point(name, step, value, time))
        if monotonic() > self._due:
            self.flush()

    def nest(self, parent: str) -> None:
        """Show this run below the one with that id."""
        self.client.set_tag(self.id, PARENT, parent)

    def flush(self) -> None:
        """Send the buffered points. If that fails they are kept for the next time: an outage must not end hours of training."""
        try:
            self.log_points(self._buffer)
        except Exception as error:
            _log.warning(
                "MLflow did not accept %d metric points, to be sent again later: %s", len(self._buffer), scrubbed(str(error))
            )
            self._due = monotonic() + _OUTAGE_SECONDS
        else:
            self._buffer = []
            self._due = monotonic() + _FLUSH_SECONDS

    def log_points(self, points: "list[Metric]") -> None:
        """Send points, except for steps that have one already: computed again on a GPU, the value may differ."""
        missing = [point for point in points if point.step not in self._steps(point.key)]
        for start in range(0, len(missing), _METRICS_AT_ONCE):
            batch = missing[start : start + _METRICS_AT_ONCE]
            self.client.log_batch(self.id, metrics=batch)
            for point in batch:
                self._steps(point.key).add(point.step)

    def _steps(self, name: str) -> set[int]:
        """The steps at which the run has a point of this name; requested once, because no other process writes to the run."""
        if name not in self._there:
            self._there[name] = {point.step for point in self.client.get_metric_history(self.id, name)}
        return self._there[name]


@contextlib.contextmanager
def running(execution: Execution, group: str | None = None) -> Iterator[Run]:
    """The run of this execution, found or made. It is RUNNING inside the block, and FINISHED, FAILED or KILLED after it.

    group: the name of a group of executions of the spec, such as a sweep, for the run above theirs.

    Raises UnreachableError, which is a UserError, if the tracking server doesn't answer.
    """
    run = _find_or_create(execution, group)
    status = "FINISHED"
    with _sigterm_raises():
        try:
            yield run
        except BaseException as error:  # not only Exception: also Ctrl-C, SIGTERM, and Prefect's exceptions for them
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            raise
        finally:
            run.flush()
            try:
                run.client.set_terminated(run.id, status)
            except Exception as error:
                _log.warning("MLflow could not be told that run %s is %s: %s", run.id, status, scrubbed(str(error)))


def _find_or_create(execution: Execution, group: str | None) -> Run:
    client = connect(execution.home, tracking_uri(execution.home, execution.spec))
    with answering(client.tracking_uri):
        return _found_or_created(client, execution, group)


def _found_or_created(client: "MlflowClient", execution: Execution, group: str | None) -> Run:
    home, spec, stages = execution.home, execution.spec, execution.identities
    experiment, key = experiment_id(client, home, spec), group or execution.key
    with locked(home, f"execution-{key}"):
        id_, number = _recorded(home, key)
        found = client.search_runs([experiment], f"tags.`{EXECUTION}` = '{id_}'", max_results=1)
        if found:
            run = found[0]
        else:
            tags = tags_of(spec, {name: identity.fingerprint for name, identity in stages.items()}) | {EXECUTION: id_}
            if digests := _data(stages.values()):
                tags["metaopt.data"] = digests
            name = group or f"{spec.name}-{execution.fingerprint[:8]}"
            run = client.create_run(experiment, tags=tags, run_name=name if number == 1 else f"{name}-{number}")
        describe(client, run, spec)
        client.update_run(run.info.run_id, status="RUNNING")
    return Run(client, run)


def _data(identities: Iterable[Identity]) -> str | None:
    """The digest of the data that is read, or one of the digests of several files."""
    slices = [identity.slice for identity in identities]
    found = {key: str(value) for one in slices for key, value in one.items() if key.partition(".")[0] == "data" and value}
    if len(found) < 2:
        return next(iter(found.values()), None)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the stack, unless it already has a handler, so that the run is not left RUNNING."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
