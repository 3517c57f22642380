"""`metaopt sweep` from end to end, as a user runs it, and what `seeds:` plans."""

import sqlite3
import time
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


def _runs_below_the_sweep(project: Project) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.home / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (sweep,) = [run.info.run_id for run in found if run.info.run_name.startswith("tiny-sweep-")]
    return [run for run in found if run.data.tags.get("mlflow.parentRunId") == sweep]


def test_a_pipeline_without_a_search_has_nothing_to_sweep(project: Project) -> None:
    done = project.metaopt("sweep", "tiny")
    assert done.returncode == 2
    assert "tiny has no `sweep:` block" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipeline_with_seeds_is_planned_once_for_each(project: Project) -> None:
    planned = project.json("plan", "tiny", "--set", "seeds=2")["stages"]
    assert [(entry["of"], entry["stage"]) for entry in planned[::4]] == [("seed 0", "generate"), ("seed 1", "generate")]
    assert len({entry["fingerprint"] for entry in planned}) == 7  # the data are the same


@pytest.mark.slow
def test_a_sweep_ends_with_the_best_spec_beside_the_default(tmp_path: Path) -> None:
    project = project_in(tmp_path, TINY + SWEEP)
    found = project.json("sweep", "tiny", "--workers", "2")
    assert not (project.folder / "trapped").exists()
    assert found["trials"] == 3
    assert found["difference"]["mean"] == pytest.approx(found["best"]["test"]["mean"] - found["default"]["test"]["mean"])
    assert all(Path(figure).is_file() for figure in found["figures"])

    nested = _runs_below_the_sweep(project)
    assert len(nested) == 3
    assert min(run.data.metrics["objective"] for run in nested) == found["best"]["objective"]
    with sqlite3.connect(project.home / "prefect" / "prefect.db") as database:
        query = (
            "select count(*) from flow_run r join flow f on f.id = r.flow_id where f.name = 'trial' and r.state_name = 'Completed'"
        )
        assert database.execute(query).fetchone() == (3,)

    planned = project.json("plan", found["best"]["pipeline"], "-f", found["best"]["spec"])
    assert {stage["status"] for stage in planned["stages"]} == {"up to date"}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_no_trial_lost_or_twice(tmp_path: Path, shared_api: str) -> None:
    longer = SWEEP.replace("trials: 3", "trials: 4").replace(
        "train.iterations: 3", "train.iterations: 3000, train.validation.every: 1000"
    )
    project = project_in(tmp_path, TINY + longer, shared_api)
    with project.started("sweep", "tiny", log=tmp_path / "log") as process:
        deadline = time.monotonic() + 120
        while _finished_trials(project) < 1:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
        process.wait()
    before = _finished_trials(project)
    assert 1 <= before < 4

    found = project.json("sweep", "tiny", "--workers", "1")
    assert found["trials"] == _finished_trials(project) == 4
    assert len(_runs_below_the_sweep(project)) == 4
    manifests = list((project.home / "outputs" / "generate").glob("*/manifest.json"))
    assert len(manifests) == 1  # no trial changes the tasks, so they were generated once


def _finished_trials(project: Project) -> int:
    database = project.home / "sweeps" / "optuna.db"
    if not database.exists():
        return 0
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            return int(connection.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED')").fetchone()[0])
        except sqlite3.OperationalError:  # it has no tables yet
            return 0
