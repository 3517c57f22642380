"""Which errors a stage is retried for: an MLflow server that is away may come back; nothing else could succeed on a retry."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from metaopt_core.tracking.connection import UnreachableError

DELAYS: list[float] = [2, 10, 30]  # seconds before each further attempt


def mlflow_was_away(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed attempt failed for that reason."""
    return isinstance(state.result(raise_on_failure=False), UnreachableError)
