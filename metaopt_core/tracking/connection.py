"""The connection to MLflow's store: an embedded SQLite file in the home, or a tracking server.

If the store does not answer, MLflow's exception becomes UnreachableError, one message that names the address and the remedy.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home
from metaopt_core.spec.addresses import scrubbed, tracking_address
from metaopt_core.spec.pipeline import PipelineSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient

_QUIET = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"  # standard output is ours, and MLflow would announce the end of each run there

# Read by MLflow when it is imported or makes a request; the user's values take precedence. Its default retries take minutes.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}

_KIND = {"mlflow.experimentKind": "custom_model_development"}  # training runs; MLflow 3.17's own page ignores it


class UnreachableError(UserError):
    """The tracking server does not answer, or not like an MLflow server. Trying again later may help."""


def embedded_uri(home: Home) -> str:
    """The address of the SQLite file in the home."""
    return f"sqlite:///{home.mlflow / 'mlflow.db'}"


def tracking_uri(home: Home, spec: PipelineSpec) -> str:
    """The spec's tracking address, else MLFLOW_TRACKING_URI, else the embedded store."""
    return tracking_address(spec.log.tracking_uri) or embedded_uri(home)


def initialize(home: Home) -> None:
    """Make the embedded store, if it doesn't exist yet. Safe in several processes at once, unlike MLflow's own migration."""
    connect(home, embedded_uri(home))


def connect(home: Home, uri: str) -> "MlflowClient":
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[_QUIET] = "true"
    try:
        if not is_database(uri):
            from mlflow import MlflowClient

            return MlflowClient(uri)

        # Otherwise the client imports this while the lock is held, which takes seconds.
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it announces each table, and prints what it raises
        home.make()
        home.mlflow.mkdir(exist_ok=True)
        _check_folder(uri)
        with locked(home, "mlflow"):
            return MlflowClient(uri, registry_uri=uri)
    except Exception as error:
        raise unreachable(uri, error) from error


def _check_folder(uri: str) -> None:
    """Refuse a SQLite file in a missing folder, which MLflow would create anywhere."""
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database and not (folder := Path(url.database).parent).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")


def is_database(uri: str) -> bool:
    """Whether this process talks to the database itself, not to a server."""
    return uri.startswith(("sqlite", "postgresql", "mysql", "mssql"))


@contextlib.contextmanager
def locked(home: Home, name: str) -> Iterator[None]:
    home.make()
    home.locks.mkdir(exist_ok=True)
    with FileLock(home.locks / f"{name}.lock"):
        yield


def experiment_id(client: "MlflowClient", home: Home, spec: PipelineSpec) -> str:
    """The id of the spec's experiment, which is made if it doesn't exist."""
    from mlflow.exceptions import MlflowException

    name = spec.log.experiment or spec.name
    # A server knows where its artifacts are; for a database the default would be the current folder.
    location = (home.mlflow / "artifacts").as_uri() if is_database(client.tracking_uri) else None
    refusal = None
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=location, tags=_KIND))
            except MlflowException as error:  # another process may have made it; if not, we see below
                refusal = error
            found = client.get_experiment_by_name(name)
    except Exception as error:
        raise unreachable(client.tracking_uri, error) from error
    if found is None:
        raise UserError(
            f"log.experiment: MLflow at {client.tracking_uri} refuses to make an experiment named {name!r}: choose another"
        ) from refusal
    if found.lifecycle_stage != "active":
        raise UserError(
            f"log.experiment: {name!r} was deleted in MLflow: restore it with `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}`, or name another"
        )
    if not found.tags.keys() & _KIND.keys():  # made by something else, or by an earlier version
        for key, value in _KIND.items():
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def unreachable(uri: str, error: Exception) -> UnreachableError:
    cause = scrubbed(str(error).splitlines()[0]) if str(error) else type(error).__name__
    return UnreachableError(
        f"MLflow at {uri} can't be used: {cause}\nStart it, or correct log.tracking_uri in the spec or the "
        "environment variable MLFLOW_TRACKING_URI; with neither of the two, runs are recorded in the embedded store."
    )


@contextlib.contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what MLflow raises when its server is gone or refuses into a plain error."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        raise unreachable(uri, error) from error
