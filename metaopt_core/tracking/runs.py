"""Everything that speaks to MLflow: one run for one execution of a pipeline, however often its stages are retried or resumed.

An execution is a random id, kept in `executions/` of the home under the pipeline's name and the fingerprint of its log stage, and
carried by the MLflow run as a tag. Whoever needs the run finds it by that tag, or makes it under a file lock. All that is written
is written so that writing it again changes nothing: metric points have times that follow from the start of the run and their step,
files replace themselves, models and their versions are looked up first. Run ids are always explicit, because MLflow's global state
(the active run, MLFLOW_RUN_ID in the environment) belongs to the user.
"""

import contextlib
import getpass
import importlib.metadata
import json
import logging
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from metaopt_core.errors import UserError
from metaopt_core.evaluation.summary import difference
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.stages import ROOT, flatten, identities, without_password
from metaopt_core.pipeline.store import StageOutput, write_atomically
from metaopt_core.spec.models import IN_DISTRIBUTION, PipelineSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities import Run as MlflowRun

UP_ADDRESS = "http://127.0.0.1:5000"  # where `metaopt up` serves the embedded store

EXECUTION = "metaopt.execution"
_DESCRIBED = "metaopt.described"  # set when parameters and spec.yaml are complete
_PARENT = "mlflow.parentRunId"
_TRAINED_IN = "metaopt.trained_in"
MODEL_NAME = "learner"

_FLUSH_SECONDS = 5.0
_OUTAGE_SECONDS = 60.0  # each attempt to reach a server that is away costs training some seconds
_METRICS_AT_ONCE = 1000  # MLflow's own limits of a batch
_PARAMS_AT_ONCE = 100
_LIBRARIES = ("metaopt", "torch", "numpy", "mlflow", "prefect")

# Read by MLflow when it is imported or makes a request. What the user has set stays. Its own retries would go on for minutes.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}

_log = logging.getLogger(__name__)


class UnreachableError(UserError):
    """The tracking server does not answer, or not as an MLflow server does. Trying again later may help."""


# --- the tracking store -------------------------------------------------------------------------------------------------


def embedded_uri(home: Home) -> str:
    """The address of the SQLite file in the home."""
    return f"sqlite:///{home.mlflow / 'mlflow.db'}"


def tracking_uri(home: Home, spec: PipelineSpec) -> str:
    """The spec's tracking address, else MLFLOW_TRACKING_URI, else the embedded store."""
    return spec.log.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or embedded_uri(home)


def initialize(home: Home) -> None:
    """Make the embedded store, if it isn't there yet. Safe in several processes at once, which MLflow's own migration isn't."""
    _client(home, embedded_uri(home))


def _client(home: Home, uri: str) -> "MlflowClient":
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        if not _is_database(uri):
            from mlflow import MlflowClient

            return MlflowClient(uri)

        # The client would import this while the lock is held, and that takes seconds.
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it announces each table creation
        home.mlflow.mkdir(parents=True, exist_ok=True)
        with _locked(home, "mlflow"):
            return MlflowClient(uri, registry_uri=uri)
    except Exception as error:
        raise _unreachable(uri, error) from error


def _is_database(uri: str) -> bool:
    """Whether this process speaks to the database itself, and not to a server."""
    return uri.startswith(("sqlite", "postgresql", "mysql", "mssql"))


@contextlib.contextmanager
def _locked(home: Home, name: str) -> Iterator[None]:
    home.locks.mkdir(parents=True, exist_ok=True)
    with FileLock(home.locks / f"{name}.lock"):
        yield


def _experiment(client: "MlflowClient", home: Home, spec: PipelineSpec) -> str:
    """The id of the spec's experiment, which is made if need be."""
    from mlflow.exceptions import MlflowException

    name = spec.log.experiment or spec.name
    # A server knows where its artifacts lie; a database would have them below the current folder.
    location = (home.mlflow / "artifacts").as_uri() if _is_database(client.tracking_uri) else None
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            with contextlib.suppress(MlflowException):  # another one may have made it in the meantime; if not, we see below
                return str(client.create_experiment(name, artifact_location=location))
            found = client.get_experiment_by_name(name)
    except Exception as error:
        raise _unreachable(client.tracking_uri, error) from error
    if found is None:
        raise UserError(
            f"log.experiment: MLflow at {without_password(client.tracking_uri)} refuses to make an experiment named {name!r}: "
            "choose another"
        )
    if found.lifecycle_stage != "active":
        raise UserError(
            f"log.experiment: {name!r} was deleted in MLflow: restore it with `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}`, or name another"
        )
    return str(found.experiment_id)


def _unreachable(uri: str, error: Exception) -> UnreachableError:
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UnreachableError(
        f"MLflow at {without_password(uri)} can't be used: {cause}\nStart it, or correct log.tracking_uri in the spec or the "
        "environment variable MLFLOW_TRACKING_URI; with neither of the two, runs are recorded in the embedded store."
    )


# --- executions and their runs ------------------------------------------------------------------------------------------


def _execution_key(spec: PipelineSpec, fingerprint: str) -> str:
    return f"{spec.name}-{fingerprint}"


def _execution_file(home: Home, key: str) -> Path:
    return home.root / "executions" / f"{key}.json"


def new_execution(home: Home, spec: PipelineSpec) -> None:
    """Forget the execution, so that the next `running` makes a new run. The old run stays in MLflow."""
    key = _execution_key(spec, identities(spec)["log"].fingerprint)
    with _locked(home, f"execution-{key}"):
        _execution_file(home, key).unlink(missing_ok=True)


def _execution(home: Home, key: str) -> str:
    """The id of an execution; call it under the execution's lock."""
    path = _execution_file(home, key)
    try:
        return str(json.loads(path.read_text())["execution"])
    except (OSError, ValueError, KeyError, TypeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        execution = uuid.uuid4().hex
        write_atomically(path, json.dumps({"execution": execution}))
        return execution


class Run:
    """The MLflow run of an execution.

    id, experiment_id: MLflow's. execution: its id in the tag. start: when the run began, in milliseconds since 1970.
    """

    def __init__(self, client: "MlflowClient", run: "MlflowRun"):
        self.client = client
        self.id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.execution: str = run.data.tags[EXECUTION]
        self.start: int = run.info.start_time
        self._buffer: list[Metric] = []
        self._there: dict[str, set[int]] = {}
        self._due = time.monotonic() + _FLUSH_SECONDS

    @property
    def url(self) -> str:
        """Where a browser shows the run; for the embedded store that is where `metaopt up` serves it."""
        uri = without_password(self.client.tracking_uri)
        address = uri.rstrip("/") if uri.startswith(("http://", "https://")) else UP_ADDRESS
        return f"{address}/#/experiments/{self.experiment_id}/runs/{self.id}"

    def point(self, name: str, step: int, value: float, model_id: str | None = None) -> "Metric":
        """A metric point. Its time is a function of the step, so that logging it again is no second point."""
        from mlflow.entities import Metric

        return Metric(name, value, self.start + step, step, model_id=model_id, run_id=self.id if model_id else None)

    def log_curve(self, name: str, step: int, value: float) -> None:
        """Note a point of a curve. Points are sent in batches every few seconds, and when the run is left."""
        self._buffer.append(self.point(name, step, value))
        if time.monotonic() > self._due:
            self.flush()

    def nest(self, parent: str) -> None:
        """Show this run below the one with that id."""
        self.client.set_tag(self.id, _PARENT, parent)

    def flush(self) -> None:
        """Send the points noted so far. If that fails they are kept for the next time: an outage must not end hours of training."""
        try:
            self.log_points(self._buffer)
        except Exception as error:
            _log.warning("MLflow does not take %d metric points, they will be sent again later: %s", len(self._buffer), error)
            self._due = time.monotonic() + _OUTAGE_SECONDS
        else:
            self._buffer = []
            self._due = time.monotonic() + _FLUSH_SECONDS

    def log_points(self, points: "list[Metric]") -> None:
        """Send points, but none for a step that the run has one for: made again on a GPU, its value may differ."""
        missing = [point for point in points if point.step not in self._steps(point.key)]
        for start in range(0, len(missing), _METRICS_AT_ONCE):
            batch = missing[start : start + _METRICS_AT_ONCE]
            self.client.log_batch(self.id, metrics=batch)
            for point in batch:
                self._steps(point.key).add(point.step)

    def _steps(self, name: str) -> set[int]:
        """The steps for which the run has a point of this name; asked for once, as nobody else writes to the run."""
        if name not in self._there:
            self._there[name] = {point.step for point in self.client.get_metric_history(self.id, name)}
        return self._there[name]


@contextlib.contextmanager
def running(home: Home, spec: PipelineSpec, group: str | None = None) -> Iterator[Run]:
    """The run of this execution, found or made. It is RUNNING inside the block, and FINISHED, FAILED or KILLED after it.

    group: the name of several executions of the spec, such as a sweep: then it is the run that theirs are nested below.

    Raises UnreachableError, which is a UserError, if the tracking server doesn't answer.
    """
    run = _find_or_create(home, spec, group)
    status = "FINISHED"
    with _sigterm_raises():
        try:
            yield run
        except Exception:
            status = "FAILED"
            raise
        except BaseException:  # Ctrl-C, SIGTERM, or Prefect's way to say either
            status = "KILLED"
            raise
        finally:
            run.flush()
            try:
                run.client.set_terminated(run.id, status)
            except Exception as error:
                _log.warning("MLflow was not told that run %s is %s: %s", run.id, status, error)


@contextlib.contextmanager
def _answering(uri: str) -> Iterator[None]:
    """Turns what MLflow raises when its server is gone, or refuses, into an error that says so."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        raise _unreachable(uri, error) from error


def _find_or_create(home: Home, spec: PipelineSpec, group: str | None) -> Run:
    client = _client(home, tracking_uri(home, spec))
    with _answering(client.tracking_uri):
        return _found_or_created(client, home, spec, group)


def _found_or_created(client: "MlflowClient", home: Home, spec: PipelineSpec, group: str | None) -> Run:
    experiment = _experiment(client, home, spec)
    stages = identities(spec)
    fingerprints = {name: identity.fingerprint for name, identity in stages.items()}
    key = group or _execution_key(spec, fingerprints["log"])
    with _locked(home, f"execution-{key}"):
        execution = _execution(home, key)
        found = client.search_runs([experiment], f"tags.`{EXECUTION}` = '{execution}'", max_results=1)
        if found:
            run = found[0]
        else:
            tags = _tags(spec, fingerprints) | {EXECUTION: execution}
            if data := stages["generate"].slice.get("data"):
                tags["metaopt.data"] = str(data)
            run = client.create_run(experiment, tags=tags, run_name=group or f"{spec.name}-{fingerprints['log'][:8]}")
        _describe(client, run, spec)
        client.update_run(run.info.run_id, status="RUNNING")
    return Run(client, run)


def _tags(spec: PipelineSpec, fingerprints: Mapping[str, str]) -> dict[str, str]:
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": "metaopt",
        "mlflow.source.type": "LOCAL",
        "metaopt.pipeline": spec.name,
        "metaopt.seed": str(spec.seed),
        "metaopt.python": platform.python_version(),
    }
    tags |= {f"metaopt.fingerprint.{stage}": fingerprint for stage, fingerprint in fingerprints.items()}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            tags[f"metaopt.version.{library}"] = importlib.metadata.version(library)
    if spec.description:
        tags["mlflow.note.content"] = spec.description
    if commit := _git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["metaopt.git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        return "unknown"


def _git(*arguments: str) -> str:
    """What git says of the folder that the code runs from; nothing if that is no repository, or there is no git."""
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _public(spec: PipelineSpec) -> PipelineSpec:
    """The spec as others may read it: without a password in the tracking address."""
    uri = spec.log.tracking_uri
    return spec.model_copy(update={"log": spec.log.model_copy(update={"tracking_uri": uri and without_password(uri)})})


def parameters(spec: PipelineSpec) -> dict[str, str]:
    """The whole spec as MLflow parameters: dotted key → JSON, or a text as it is."""
    values: dict[str, Any] = {}
    for key, value in _public(spec).model_dump(mode="json").items():
        values |= flatten(key, value) if isinstance(value, Mapping) else {key: value}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def spec_yaml(spec: PipelineSpec) -> str:
    """The spec as a pipelines file of its own, with all defaults filled in."""
    body = _public(spec).model_dump(mode="json")
    return str(yaml.safe_dump({"pipelines": {body.pop("name"): body}}, sort_keys=False, allow_unicode=True, width=120))


def _describe(client: "MlflowClient", run: "MlflowRun", spec: PipelineSpec) -> None:
    """Write parameters and spec once. A process may have died halfway; a changed device or schedule is still this execution."""
    from mlflow.entities import Param

    if _DESCRIBED in run.data.tags:
        return
    missing = [Param(key, value) for key, value in parameters(spec).items() if key not in run.data.params]
    for start in range(0, len(missing), _PARAMS_AT_ONCE):
        client.log_batch(run.info.run_id, params=missing[start : start + _PARAMS_AT_ONCE])
    client.log_text(run.info.run_id, spec_yaml(spec), "spec.yaml")
    client.set_tag(run.info.run_id, _DESCRIBED, "true")


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the stack, where nobody else has said what it should do, so that the run is not left RUNNING."""

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


# --- the log stage ------------------------------------------------------------------------------------------------------


def publish(home: Home, spec: PipelineSpec, upstream: Mapping[str, StageOutput], report: str = "") -> dict[str, Any]:
    """Record a pipeline's results in the run of its execution: metrics, tables, figures, the data, the model and its version.

    upstream: the outputs of generate, train and evaluate; report: the HTML page that tells of them. Returns where it all is:
    tracking_uri, experiment_id, run_id, model_uri, model_version (none unless the spec registers the model), url, report_url. Doing
    it again changes nothing.
    """
    with running(home, spec) as run, _answering(run.client.tracking_uri):
        summary = json.loads((upstream["evaluate"] / "summary.json").read_text())
        model_id = _log_model(run, spec, upstream["train"])
        run.log_points(_result_points(run, summary, model_id))
        _log_times(run, upstream)
        _log_files(run, upstream, summary, report)
        _log_data(run, spec, upstream["generate"])
        _complete_curves(run, spec, upstream["train"])
        _log_history(run, upstream["evaluate"] / "over_training.parquet")
        version = _register(run, spec, model_id) if spec.log.register_as else None
        return {
            "tracking_uri": without_password(run.client.tracking_uri),
            "experiment_id": run.experiment_id,
            "run_id": run.id,
            "model_uri": f"models:/{model_id}",
            "model_version": version,
            "url": run.url,
            "report_url": f"{run.url}/artifacts/report.html",
        }


def publish_seeds(home: Home, spec: PipelineSpec, group: str, summary: Mapping[str, Any], runs: Sequence[str]) -> None:
    """Record results over seeds in a run that the runs of the seeds are nested below. Doing it again changes nothing."""
    with running(home, spec, group) as parent, _answering(parent.client.tracking_uri):
        parent.log_points(_result_points(parent, summary))
        parent.client.log_text(parent.id, json.dumps(summary, indent=1), "summary.json")
        for run in runs:
            parent.client.set_tag(run, _PARENT, parent.id)


def _result_points(run: Run, summary: Mapping[str, Any], model_id: str | None = None) -> "list[Metric]":
    """Curves over adaptation steps (`test/maml/loss`), and numbers at the horizon: the model's as `test_loss`, its paired
    differences from the other methods (`test_difference/random/loss`), and what is known there alone
    (`test/maml/inductive_accuracy`). For a shifted variant, `shifted/louder/maml/loss` and `shifted_louder_loss`.
    """
    points, model = [], summary["model"]
    shifted = {f"shifted/{name}": variant for name, variant in summary["shifted"].items()}
    for prefix, variant in {"test": summary, **shifted}.items():
        for method, results in variant["methods"].items():
            for entry in _entries(results):
                values = _result_values(entry)
                points += [run.point(f"{prefix}/{method}/{name}", entry["step"], value) for name, value in values.items()]
            points += [run.point(f"{prefix}/{method}/{name}", 0, value) for name, value in _once(results).items()]
        of_model = variant["methods"][model]
        compared = _result_values(of_model["steps"][summary["horizon"]]) | _once(of_model)
        points += [run.point(f"{prefix.replace('/', '_')}_{name}", 0, value, model_id) for name, value in compared.items()]
    for other in summary["methods"].keys() - {model}:
        for name in ("loss", "accuracy") if summary["ways"] else ("loss",):
            if paired := difference(summary, model, other, name):
                values = _numbers({name: paired["mean"], f"{name}_ci95": paired["ci95"]})
                points += [run.point(f"test_difference/{other}/{key}", 0, value) for key, value in values.items()]
    return points


def _entries(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One method after each number of steps, or after none where it takes none."""
    entries: list[dict[str, Any]] = results["steps"]
    return entries if results["takes_steps"] else entries[:1]


def _result_values(entry: Mapping[str, Any]) -> dict[str, float]:
    """One method after one number of steps."""
    values: dict[str, float | None] = {"diverged": entry["diverged"], "improved": entry["improved"]}
    for name in ("loss", "accuracy"):
        if statistics := entry.get(name):
            values |= {name: statistics["mean"], f"{name}_ci95": statistics["ci95"]}
            values |= {f"{name}_median": statistics["median"], f"{name}_worst": statistics["worst"]}
    return _numbers(values)


def _once(results: Mapping[str, Any]) -> dict[str, float]:
    """What one method has a single number of: the step size, the calibration error, the means of queries normalized otherwise."""
    values = {"inner_lr": results["inner_lr"], "calibration_error": (results["calibration"] or {}).get("ece")}
    for kind in ("inductive", "collected"):
        for name, statistics in (results[kind] or {}).items():
            values |= {f"{kind}_{name}": (statistics or {}).get("mean"), f"{kind}_{name}_ci95": (statistics or {}).get("ci95")}
    return _numbers(values)


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """The finite ones: for others MLflow would show a number in their place."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _log_times(run: Run, upstream: Mapping[str, StageOutput]) -> None:
    """Wall times, in seconds. Unlike results they differ when an output is made again, so those that are there stay."""
    times = {f"seconds/{stage}": output.seconds for stage, output in upstream.items()}
    iterations = upstream["train"].extra.get("iterations_by_phase", {})
    for phase, seconds in upstream["train"].extra.get("seconds_by_phase", {}).items():
        times[f"seconds/train_{phase}"] = seconds
        if seconds > 0 and iterations.get(phase):
            times[f"iterations_per_second/{phase}"] = iterations[phase] / seconds
    for phase, shares in upstream["train"].extra.get("time_shares", {}).items():
        times |= {f"time_share/{phase}/{part}": share for part, share in shares.items()}
    run.log_points([run.point(name, 0, value) for name, value in times.items()])


def _log_files(run: Run, upstream: Mapping[str, StageOutput], summary: Mapping[str, Any], report: str) -> None:
    """The report and figures as they are; tables as Parquet and as MLflow's pages show them. `log_table` would append to them."""
    import pandas as pd

    tasks = pd.read_parquet(upstream["evaluate"] / "tasks.parquet").drop(columns=["confidence", "correct"], errors="ignore")
    tables = {
        "summary": pd.DataFrame(summary_rows(summary)),
        "differences": pd.json_normalize(summary["differences"], sep="_").dropna(axis=1, how="all"),
        "tasks": tasks,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tables").mkdir()
        for table, frame in tables.items():
            frame.to_json(folder / f"tables/{table}.json", orient="split", index=False, double_precision=6)
        shutil.copy(upstream["evaluate"] / "tasks.parquet", folder / "tables/tasks.parquet")
        shutil.copy(upstream["evaluate"] / "summary.json", folder / "summary.json")
        if report:
            (folder / "report.html").write_text(report, encoding="utf-8")
        for stage, output in upstream.items():
            for figure in sorted(Path(output.folder).glob("*.png")):
                (folder / "figures" / stage).mkdir(parents=True, exist_ok=True)
                shutil.copy(figure, folder / "figures" / stage)
        run.client.log_artifacts(run.id, str(folder))
    shown = [{"path": f"tables/{table}.json", "type": "table"} for table in tables]
    run.client.set_tag(run.id, "mlflow.loggedArtifacts", json.dumps(shown))


def summary_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """summary.json as flat rows, one a variant, method and number of steps."""
    rows = []
    for variant, tested in {IN_DISTRIBUTION: summary, **summary["shifted"]}.items():
        for results in tested["methods"].values():
            for entry in _entries(results):
                row = {"variant": variant, "method": results["label"], "steps": entry["step"]}
                row |= {key: entry[key] for key in ("diverged", "improved")}
                for name in ("loss", "accuracy"):
                    row |= {f"{name}_{key}": value for key, value in (entry.get(name) or {}).items()}
                rows.append(row)
    return rows


def _log_data(run: Run, spec: PipelineSpec, generated: StageOutput) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": Path(generated.folder).as_uri()})
    dataset = Dataset(spec.generate.distribution, generated.content, "local", source)
    run.client.log_inputs(run.id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "meta-learning")])])


def _complete_curves(run: Run, spec: PipelineSpec, trained: StageOutput) -> None:
    """Log those points of the training curves that a killed process or an outage has cost.

    Where training was done by another run, that one holds its curves: say which.
    """
    elsewhere = trained.extra.get("mlflow_run")
    if elsewhere == run.id:
        _log_history(run, trained / "history.parquet")
    elif elsewhere:
        note = f"{spec.description}\n\nThe learned parameters were reused from run `{elsewhere}`, which holds their curves."
        run.client.set_tag(run.id, _TRAINED_IN, elsewhere)
        run.client.set_tag(run.id, "mlflow.note.content", note.strip())


def _log_history(run: Run, path: Path) -> None:
    """Log the points of a table of curves over iterations."""
    import pandas as pd

    history = pd.read_parquet(path)
    columns = (history[name].tolist() for name in ("phase", "iteration", "name", "value"))
    run.log_points([run.point(f"{phase}/{name}", step, value) for phase, step, name, value in zip(*columns, strict=True)])


# --- the model ----------------------------------------------------------------------------------------------------------


def _log_model(run: Run, spec: PipelineSpec, trained: StageOutput) -> str:
    """The id of the run's logged model, made and filled if need be."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    model = _logged_model(run)
    if model is None:
        model = run.client.create_logged_model(
            run.experiment_id, MODEL_NAME, run.id, tags={EXECUTION: run.execution}, model_type=spec.train.model.name
        )
    if model.status != LoggedModelStatus.READY:
        from metaopt_core.tracking import logged_model as serving

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / MODEL_NAME
            serving.save(_public(spec), trained / "parameters.safetensors", folder, run.id, model.model_id)
            run.client.log_model_artifacts(model.model_id, str(folder))
        run.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = run.client.get_run(run.id).outputs
    if not outputs or model.model_id not in {output.model_id for output in outputs.model_outputs}:
        run.client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def _logged_model(run: Run) -> "LoggedModel | None":
    found = run.client.search_logged_models([run.experiment_id], f"source_run_id = '{run.id}' AND name = '{MODEL_NAME}'")
    return found[0] if found else None


def _register(run: Run, spec: PipelineSpec, model_id: str) -> int:
    """The number of the registered version that holds this execution's model, made if need be."""
    from mlflow.exceptions import MlflowException

    name = spec.log.register_as
    assert name is not None
    found = run.client.search_model_versions(f"name = '{name}' AND tags.`{EXECUTION}` = '{run.execution}'")
    if found:
        return int(found[0].version)
    try:
        run.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model = run.client.get_logged_model(model_id)
    version = run.client.create_model_version(
        name, model.artifact_location, run.id, tags={EXECUTION: run.execution}, description=spec.description, model_id=model_id
    )
    return int(version.version)
