"""What an MLflow store holds."""

from collections import Counter
from typing import Any

from mlflow import MlflowClient


def runs_in(client: MlflowClient, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def points_logged_twice(client: MlflowClient, run_id: str) -> dict[tuple[str, int], int]:
    counts = Counter(
        (name, point.step) for name in client.get_run(run_id).data.metrics for point in client.get_metric_history(run_id, name)
    )
    return {point: count for point, count in counts.items() if count > 1}


def artifacts(client: MlflowClient, run_id: str, folder: str = "") -> set[str]:
    found: set[str] = set()
    for entry in client.list_artifacts(run_id, folder or None):
        found |= artifacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found
