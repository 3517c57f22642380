"""The log stage as a Prefect task: what it publishes, what it shows on the flow run's page, and when it is tried again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect import Task, flow
from prefect.artifacts import Artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed
from prefect.testing.utilities import prefect_test_harness

from metaopt_core.errors import UserError
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.tracking.connection import UnreachableError
from tasks.log import log
from tasks.retrying import mlflow_was_away
from tests.made_outputs import publish_upstream, sinusoid_spec


@pytest.fixture(autouse=True)
def _no_address_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def test_the_output_says_where_the_results_are(home: Home) -> None:
    spec = sinusoid_spec("whereabouts", log={"register_as": "few-shot"})
    output = log.fn(Execution.of(home, spec), publish_upstream(home, spec))
    record = json.loads((output / "log.json").read_text())
    assert record == output.extra
    assert record["model_version"] == 1
    client = MlflowClient(record["tracking_uri"])
    assert client.get_run(record["run_id"]).info.experiment_id == record["experiment_id"]
    assert client.get_logged_model(record["model_uri"].removeprefix("models:/")).source_run_id == record["run_id"]


def test_a_lost_output_is_made_again_from_the_same_run(home: Home) -> None:
    spec = sinusoid_spec("lost")
    execution, upstream = Execution.of(home, spec), publish_upstream(home, spec)
    first = log.fn(execution, upstream)
    shutil.rmtree(first.folder)
    assert log.fn(execution, upstream).extra == first.extra


def test_only_errors_that_may_pass_are_retried() -> None:
    run = TaskRun(task_key="log", dynamic_key="0")
    for error, retried in (
        (UnreachableError("away"), True),
        (OSError("disk full"), False),
        (UserError("deleted"), False),
    ):
        assert mlflow_was_away(log, run, Failed(data=error)) is retried


def test_a_server_that_comes_back_gets_one_run(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a flow: the first attempt meets a tracking address that does not work yet, the second finds it working."""
    spec = sinusoid_spec("back.again")
    upstream = publish_upstream(home, spec)
    blocked = tmp_path / "later"
    blocked.write_text("not a folder, so no database below it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{blocked}/mlflow.db")

    def come_back(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
        blocked.unlink()
        blocked.mkdir()
        return mlflow_was_away(task, run, state)

    patient = log.with_options(retry_condition_fn=come_back, retry_delay_seconds=0)

    @flow
    def pipeline() -> StageOutput:
        return patient(Execution.of(home, spec), upstream)

    with prefect_test_harness(server_startup_timeout=120):
        output = pipeline()
        results: Any = Artifact.get("back-again-results")
        link: Any = Artifact.get("back-again-mlflow-run")

    client = MlflowClient(output.extra["tracking_uri"])
    assert len(client.search_runs([output.extra["experiment_id"]])) == 1
    assert results
    assert f"`{output / 'report.html'}`" in results.data
    assert "MAML is **better**" in results.data
    assert "| 1 | 0.500 ± 0.100 | 0.500 ± 0.100 | 0.500 ± 0.100 |" in results.data
    assert "| **MAML** | **0.01** | **0.333 ± 0.100** | **0.900** | **2.000** | **50.0%** | **2** |  |" in results.data
    assert "4 meta-test tasks" in results.data
    assert link is None  # nothing shows the run now
