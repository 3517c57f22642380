"""`metaopt sweep` from end to end, as a user runs it, and what `seeds:` plans."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import TINY, Project, project_in

SWEEP = """\
    sweep:
      trials: 3
      parameters:
        train.inner.steps: {low: 1, high: 3}
      trial: {train.iterations: 3}
"""


def _mlflow_runs(project: Project) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.home / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {run.info.run_name.rpartition("-")[0]: run for run in found}


def test_a_pipeline_without_a_search_has_nothing_to_sweep(project: Project) -> None:
    done = project.metaopt("sweep", "tiny")
    assert done.returncode == 2
    assert "tiny has no `sweep:` block" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipeline_with_seeds_is_planned_once_for_each(project: Project) -> None:
    planned = project.json("plan", "tiny", "--set", "seeds=2")["stages"]
    assert [(entry["seed"], entry["stage"]) for entry in planned[::4]] == [(0, "generate"), (1, "generate")]
    assert len({entry["fingerprint"] for entry in planned}) == 8


@pytest.mark.slow
def test_a_sweep_ends_with_the_best_spec_beside_the_default(tmp_path: Path) -> None:
    project = project_in(tmp_path, TINY + SWEEP)
    found = project.json("sweep", "tiny", "--workers", "2")
    assert found["trials"] == 3
    assert found["difference"]["mean"] == pytest.approx(found["best"]["test"]["mean"] - found["default"]["test"]["mean"])
    assert all(Path(figure).is_file() for figure in found["figures"])

    runs = _mlflow_runs(project)
    parent = runs["tiny-sweep"].info.run_id
    nested = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent]
    assert len(nested) == 3
    assert min(run.data.metrics["objective"] for run in nested) == found["best"]["objective"]
    with sqlite3.connect(project.home / "prefect" / "prefect.db") as database:
        query = (
            "select count(*) from flow_run r join flow f on f.id = r.flow_id where f.name = 'trial' and r.state_name = 'Completed'"
        )
        assert database.execute(query).fetchone() == (3,)

    planned = project.json("plan", found["best"]["pipeline"], "-f", found["best"]["spec"])
    assert {stage["status"] for stage in planned["stages"]} == {"up to date"}
