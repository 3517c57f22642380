"""One MLflow run for one execution, with real stores: an embedded SQLite file, and a server of MLflow's own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from metaopt_core.errors import UserError
from metaopt_core.pipeline.home import Home
from metaopt_core.spec.models import PipelineSpec
from metaopt_core.tracking import runs as tracking
from tests.made_outputs import publish_upstream, sinusoid_spec

ROOT = Path(tracking.__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_address_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for the module: each test has a pipeline, and so an experiment, of its own."""
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def client(home: Home) -> MlflowClient:
    tracking.initialize(home)
    return MlflowClient(tracking.embedded_uri(home), registry_uri=tracking.embedded_uri(home))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server on loopback."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
    }  # its job runners are processes of their own, and slow to start
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while not _healthy(address):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _runs(client: MlflowClient, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def _points_logged_twice(client: MlflowClient, run_id: str) -> dict[tuple[str, int], int]:
    counts = Counter(
        (name, point.step) for name in client.get_run(run_id).data.metrics for point in client.get_metric_history(run_id, name)
    )
    return {point: count for point, count in counts.items() if count > 1}


def _process(home: Home, spec: PipelineSpec) -> "subprocess.Popen[str]":
    """A process that logs a point in the execution's run and prints the run's id."""
    script = f"""
from pathlib import Path
from metaopt_core.tracking import runs as tracking
from metaopt_core.pipeline.home import Home
from metaopt_core.spec.models import PipelineSpec
from tests.made_outputs import publish_upstream, sinusoid_spec
spec = PipelineSpec.model_validate_json({spec.model_dump_json()!r})
with tracking.running(Home(Path({str(home.root)!r})), spec) as run:
    run.log_curve("loss", 1, 0.5)
    print(run.id)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-c", script], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_four_processes_at_once_on_an_empty_folder_share_one_run(tmp_path: Path) -> None:
    home, spec = Home(tmp_path), sinusoid_spec("four")
    processes = [_process(home, spec) for _ in range(4)]
    answers = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, [errors for _, errors in answers]
    assert len({output.strip() for output, _ in answers}) == 1
    client = MlflowClient(tracking.embedded_uri(home))
    (run,) = _runs(client, "four")
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1


def test_a_process_that_is_told_to_end_leaves_its_run_killed(home: Home, client: MlflowClient) -> None:
    with pytest.raises(SystemExit) as left, tracking.running(home, sinusoid_spec("terminated")) as run:  # noqa: PT012
        run.log_curve("loss", 1, 0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert left.value.code == 128 + signal.SIGTERM
    assert client.get_run(run.id).info.status == "KILLED"
    assert client.get_run(run.id).data.metrics == {"loss": 0.5}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(("error", "status"), [(None, "FINISHED"), (ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_the_status_says_how_the_run_was_left(home: Home, client: MlflowClient, error: BaseException | None, status: str) -> None:
    spec = sinusoid_spec("status")
    try:
        with tracking.running(home, spec) as run:
            assert client.get_run(run.id).info.status == "RUNNING"
            if error:
                raise error
    except (ValueError, KeyboardInterrupt) as caught:
        assert caught is error  # noqa: PT017
    (found,) = _runs(client, "status")
    assert found.info.status == status


def test_a_run_says_what_it_is_of(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("described", seed=7)
    with tracking.running(home, spec):
        pass
    (run,) = _runs(client, "described")
    tags = run.data.tags
    assert run.info.run_name == f"described-{tags['metaopt.fingerprint.log'][:8]}"
    assert run.data.params["train.inner.lr"] == "0.01"
    assert run.data.params["train.model.hidden"] == "[8]"
    assert run.data.params["log.register_as"] == "null"
    assert tags["metaopt.seed"] == "7"
    assert tags["mlflow.note.content"] == "A test."
    assert {f"metaopt.fingerprint.{stage}" for stage in ("generate", "train", "evaluate", "log")} <= tags.keys()
    assert "metaopt.version.torch" in tags
    written = yaml.safe_load(Path(client.download_artifacts(run.info.run_id, "spec.yaml")).read_text())
    ((name, body),) = written["pipelines"].items()
    assert PipelineSpec.model_validate_json(json.dumps({"name": name} | body)) == spec


def test_a_password_in_the_address_is_not_recorded() -> None:
    spec = sinusoid_spec("secret", log={"tracking_uri": "http://me:hunter2@example.org:5000/mlflow"})
    assert tracking.parameters(spec)["log.tracking_uri"] == "http://example.org:5000/mlflow"
    assert "hunter2" not in tracking.spec_yaml(spec)


def test_a_resumed_run_is_the_same_run_and_keeps_its_parameters(home: Home, client: MlflowClient) -> None:
    for device in ("cpu", "auto"):  # not part of a result's identity, so it may change between two attempts
        with tracking.running(home, sinusoid_spec("resumed", device=device)) as run:
            for step in range(1, 4):
                run.log_curve("maml/loss", step, 1 / step)
    (found,) = _runs(client, "resumed")
    assert found.data.params["device"] == "cpu"
    assert [point.step for point in client.get_metric_history(found.info.run_id, "maml/loss")] == [1, 2, 3]


def test_the_active_run_of_the_user_is_left_alone(home: Home, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = client.create_run(client.create_experiment("theirs")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    with tracking.running(home, sinusoid_spec("ours")) as run:
        run.log_curve("loss", 1, 0.5)
    assert run.id != theirs
    assert client.get_run(theirs).data.metrics == {}


def test_a_new_execution_gets_a_run_of_its_own(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("forced")
    with tracking.running(home, spec) as first:
        pass
    tracking.new_execution(home, spec)
    tracking.new_execution(home, spec)
    with tracking.running(home, spec) as second:
        pass
    assert first.id != second.id
    assert len(_runs(client, "forced")) == 2


def test_publishing_again_after_a_failure_and_after_success_changes_nothing(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("published", log={"register_as": "few-shot"})
    with tracking.running(home, spec) as run:
        upstream = publish_upstream(home, spec, run.id)
        run.log_curve("maml/query_loss", 3, 1 / 3)
    table = upstream["evaluate"] / "tasks.parquet"
    table.rename(hidden := table.with_suffix(".hidden"))
    with pytest.raises(FileNotFoundError):
        tracking.publish(home, spec, upstream)
    assert client.get_run(run.id).info.status == "FAILED"
    hidden.rename(table)
    first, second = (tracking.publish(home, spec, upstream) for _ in range(2))

    assert first == second
    assert first["run_id"] == run.id
    (found,) = _runs(client, "published")
    assert found.info.status == "FINISHED"
    assert _points_logged_twice(client, run.id) == {}
    assert len(client.search_model_versions("name = 'few-shot'")) == 1
    assert len(client.search_logged_models([run.experiment_id])) == 1
    assert len(found.outputs.model_outputs) == 1
    assert len(found.inputs.dataset_inputs) == 1
    assert len(json.loads(Path(client.download_artifacts(run.id, "tables/summary.json")).read_text())["data"]) == 9


def test_the_run_holds_results_tables_figures_and_all_points_of_the_curves(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("complete")
    with tracking.running(home, spec) as run:
        upstream = publish_upstream(
            home, spec, run.id
        )  # its history has 30 points; that none was streamed is what a SIGKILL can do
    tracking.publish(home, spec, upstream, "<p>The report.</p>")
    metrics = client.get_run(run.id).data.metrics
    assert metrics["test_loss"] == pytest.approx(1 / 3)
    assert metrics["test_loss_ci95"] == 0.1
    assert metrics["test_diverged"] == 2
    assert (metrics["test_difference/random/loss"], metrics["test_difference/random/loss_ci95"]) == (-0.25, 0.1)
    assert metrics["iterations_per_second/maml"] == 15
    curve = client.get_metric_history(run.id, "test/random/loss")
    assert [(point.step, point.value) for point in curve] == [(0, 1), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert len(client.get_metric_history(run.id, "maml/query_loss")) == 30
    assert [point.step for point in client.get_metric_history(run.id, "maml/meta_test_loss")] == [10, 20, 30]
    assert _artifacts(client, run.id) == {
        *("spec.yaml", "summary.json", "report.html"),
        *("tables/summary.json", "tables/differences.json", "tables/tasks.json", "tables/tasks.parquet"),
        *("figures/generate/tasks.png", "figures/evaluate/adaptation.png", "figures/evaluate/examples.png"),
    }
    inputs = client.get_run(run.id).inputs
    assert inputs
    (dataset,) = inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("sinusoid", upstream["generate"].content)


def _artifacts(client: MlflowClient, run_id: str, folder: str = "") -> set[str]:
    found: set[str] = set()
    for entry in client.list_artifacts(run_id, folder or None):
        found |= _artifacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def test_reused_training_is_linked_to_the_run_that_did_it(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("reused")
    tracking.publish(home, spec, publish_upstream(home, spec, mlflow_run="0123456789abcdef"))
    (run,) = _runs(client, "reused")
    assert run.data.tags["metaopt.trained_in"] == "0123456789abcdef"
    assert "0123456789abcdef" in run.data.tags["mlflow.note.content"]
    assert [name for name in run.data.metrics if name.startswith("maml/")] == ["maml/meta_test_loss"]  # of evaluate


def test_a_server_that_does_not_answer_is_an_error_of_one_message(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"^MLflow at http://127.0.0.1:9 can't be used: .*\n.*MLFLOW_TRACKING_URI"):
        tracking.running(home, sinusoid_spec("unreachable")).__enter__()


@pytest.mark.parametrize("address", ["nonsense://somewhere", "/tmp/mlruns", "sqlite:////dev/null/mlflow.db"])
def test_an_address_that_is_none_is_an_error_of_one_message(home: Home, address: str) -> None:
    spec = sinusoid_spec("address", log={"tracking_uri": address})
    with pytest.raises(UserError, match="can't be used"):
        tracking.running(home, spec).__enter__()


def test_a_deleted_experiment_is_an_error_that_says_how_to_get_it_back(home: Home, client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(UserError, match="mlflow experiments restore"):
        tracking.running(home, sinusoid_spec("deleted")).__enter__()


def test_an_outage_of_the_server_ends_no_training_and_loses_no_point(
    home: Home, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.running(home, sinusoid_spec("outage")) as run:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        there, run.client = run.client, MlflowClient("http://127.0.0.1:9")
        run.log_curve("loss", 1, 0.5)
        run.flush()
        run.client = there
        run.log_curve("loss", 2, 0.25)
    assert [(point.step, point.value) for point in client.get_metric_history(run.id, "loss")] == [(1, 0.5), (2, 0.25)]


def test_everything_works_on_a_server(server: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = sinusoid_spec("on-a-server", log={"tracking_uri": server, "register_as": "few-shot"})
    with tracking.running(home, spec) as run:
        upstream = publish_upstream(home, spec, run.id)
        run.log_curve("maml/query_loss", 3, 1 / 3)
    first, second = (tracking.publish(home, spec, upstream) for _ in range(2))
    assert first == second
    assert first["url"] == f"{server}/#/experiments/{run.experiment_id}/runs/{run.id}"
    assert first["model_version"] == 1

    client = MlflowClient(server)
    assert len(_runs(client, "on-a-server")) == 1
    assert _points_logged_twice(client, run.id) == {}
    assert "figures/evaluate/adaptation.png" in _artifacts(client, run.id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    task = {name: np.zeros((3, 1)) for name in ("support_x", "support_y", "query_x")}
    assert mlflow.pyfunc.load_model("models:/few-shot/1").predict(task).shape == (3, 1)
