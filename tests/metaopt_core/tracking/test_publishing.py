"""What publishing leaves in a real store, once, however often it is done."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.tracking.publishing import publish
from metaopt_core.tracking.runs import running
from tests.made_outputs import point_time, publish_upstream, sinusoid_spec
from tests.metaopt_core.tracking.stored import artifacts, points_logged_twice, runs_in


def test_publishing_again_after_a_failure_and_after_success_changes_nothing(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("published", log={"register_as": "few-shot"})
    with running(Execution.of(home, spec)) as run:
        upstream = publish_upstream(home, spec, run.id)
        run.log_curve("meta_train/query_loss/maml", 3, 1 / 3, point_time(3))
    table = upstream["evaluate"] / "tasks.parquet"
    table.rename(hidden := table.with_suffix(".hidden"))
    with pytest.raises(FileNotFoundError):
        publish(Execution.of(home, spec), upstream)
    assert client.get_run(run.id).info.status == "FAILED"
    hidden.rename(table)
    first, second = (publish(Execution.of(home, spec), upstream) for _ in range(2))

    assert first == second
    assert first["run_id"] == run.id
    (found,) = runs_in(client, "published")
    assert found.info.status == "FINISHED"
    assert points_logged_twice(client, run.id) == {}
    assert len(client.search_model_versions("name = 'few-shot'")) == 1
    assert len(client.search_logged_models([run.experiment_id])) == 1
    assert len(found.outputs.model_outputs) == 1
    assert len(found.inputs.dataset_inputs) == 1
    assert len(json.loads(Path(client.download_artifacts(run.id, "tables/summary.json")).read_text())["data"]) == 9


def test_a_run_that_is_registered_later_says_so(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("registered-later")
    upstream = publish_upstream(home, spec)
    run = publish(Execution.of(home, spec), upstream)["run_id"]
    assert "metaopt.registered" not in client.get_run(run).data.tags
    publish(Execution.of(home, sinusoid_spec("registered-later", log={"register_as": "waves"})), upstream)
    data = client.get_run(run).data
    assert data.tags["metaopt.registered"] == "waves, version 1"
    assert "log.register_as" not in data.params


def test_the_run_holds_results_tables_figures_and_all_points_of_the_curves(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("complete")
    with running(Execution.of(home, spec)) as run:
        upstream = publish_upstream(
            home, spec, run.id
        )  # its history has 30 points; that none was streamed is what a SIGKILL can do
    publish(Execution.of(home, spec), upstream, "<p>The report.</p>")
    metrics = client.get_run(run.id).data.metrics
    assert metrics["logged_model/test_loss"] == pytest.approx(1 / 3)
    assert metrics["logged_model/test_loss_ci95"] == 0.1
    assert metrics["logged_model/test_diverged"] == 2
    assert (metrics["meta_test_difference/loss/random"], metrics["meta_test_difference/loss/random_ci95"]) == (-0.25, 0.1)
    assert metrics["wall_time/iterations_per_second/maml"] == 15
    curve = client.get_metric_history(run.id, "meta_test/loss/random")
    assert [(point.step, point.value) for point in curve] == [(0, 1), (1, 0.5), (2, pytest.approx(1 / 3))]
    trained = {point.step: point.timestamp for point in client.get_metric_history(run.id, "meta_train/query_loss/maml")}
    assert trained == {iteration: round(1000 * point_time(iteration)) for iteration in range(1, 31)}
    made = round(1000 * upstream["evaluate"].finished)
    assert {point.timestamp for point in curve} == {made}
    assert [point.step for point in client.get_metric_history(run.id, "meta_test/loss_over_training/maml")] == [10, 20, 30]
    assert artifacts(client, run.id) == {
        *("spec.yaml", "summary.json", "report.html"),
        *("tables/summary.json", "tables/differences.json", "tables/tasks.json", "tables/tasks.parquet"),
        *("figures/generate/tasks.png", "figures/evaluate/adaptation.png", "figures/evaluate/examples.png"),
    }
    inputs = client.get_run(run.id).inputs
    assert inputs
    (dataset,) = inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("sinusoid", upstream["generate"].content)


def test_reused_training_is_linked_to_the_run_that_did_it(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("reused")
    publish(Execution.of(home, spec), publish_upstream(home, spec, mlflow_run="0123456789abcdef"))
    (run,) = runs_in(client, "reused")
    assert run.data.tags["metaopt.trained_in"] == "0123456789abcdef"
    assert "0123456789abcdef" in run.data.tags["mlflow.note.content"]
    assert not [name for name in run.data.metrics if name.startswith("meta_train/")]


def test_everything_works_on_a_server(server: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = sinusoid_spec("on-a-server", log={"tracking_uri": server, "register_as": "few-shot"})
    with running(Execution.of(home, spec)) as run:
        upstream = publish_upstream(home, spec, run.id)
        run.log_curve("meta_train/query_loss/maml", 3, 1 / 3, point_time(3))
    first, second = (publish(Execution.of(home, spec), upstream) for _ in range(2))
    assert first == second
    assert first["model_version"] == 1

    client = MlflowClient(server)
    assert len(runs_in(client, "on-a-server")) == 1
    assert points_logged_twice(client, run.id) == {}
    assert "figures/evaluate/adaptation.png" in artifacts(client, run.id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    task = {name: np.zeros((3, 1)) for name in ("support_x", "support_y", "query_x")}
    assert mlflow.pyfunc.load_model("models:/few-shot/1").predict(task).shape == (3, 1)


def test_standard_output_belongs_to_us(server: str, home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    """MLflow's "View run" line at the end of each run would make `--json` no JSON."""
    with running(Execution.of(home, sinusoid_spec("silent", log={"tracking_uri": server}))):
        pass
    assert capfd.readouterr().out == ""
