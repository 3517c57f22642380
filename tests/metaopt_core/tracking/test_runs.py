"""One MLflow run for one execution, with a real store."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking import runs
from metaopt_core.tracking.connection import embedded_uri
from metaopt_core.tracking.runs import new_execution, running
from tests.made_outputs import sinusoid_spec
from tests.metaopt_core.tracking.stored import runs_in

ROOT = Path(runs.__file__).parents[2]
TIME = 1_700_000_000.25  # of a metric point, in seconds since 1970


def _process(home: Home, spec: PipelineSpec) -> "subprocess.Popen[str]":
    """A process that logs a point in the execution's run and prints the run's id."""
    script = f"""
from pathlib import Path
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.runs import running
spec = PipelineSpec.model_validate_json({spec.model_dump_json()!r})
with running(Execution.of(Home(Path({str(home.root)!r})), spec)) as run:
    run.log_curve("loss", 1, 0.5, 1.7e9)
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
    client = MlflowClient(embedded_uri(home))
    (run,) = runs_in(client, "four")
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1


def test_a_process_that_is_told_to_end_leaves_its_run_killed(home: Home, client: MlflowClient) -> None:
    with pytest.raises(SystemExit) as left, running(Execution.of(home, sinusoid_spec("terminated"))) as run:  # noqa: PT012
        run.log_curve("loss", 1, 0.5, time.time())
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
        with running(Execution.of(home, spec)) as run:
            assert client.get_run(run.id).info.status == "RUNNING"
            if error:
                raise error
    except (ValueError, KeyboardInterrupt) as caught:
        assert caught is error  # noqa: PT017
    (found,) = runs_in(client, "status")
    assert found.info.status == status


def test_a_resumed_run_is_the_same_run_and_keeps_its_parameters(home: Home, client: MlflowClient) -> None:
    for device in ("cpu", "auto"):  # not part of a result's identity, so it may change between two attempts
        with running(Execution.of(home, sinusoid_spec("resumed", device=device))) as run:
            for step in range(1, 4):
                run.log_curve("loss", step, 1 / step, TIME + step)
    (found,) = runs_in(client, "resumed")
    assert found.data.params["device"] == "cpu"
    points = client.get_metric_history(found.info.run_id, "loss")
    assert [(point.step, point.timestamp) for point in points] == [(step, round(1000 * (TIME + step))) for step in (1, 2, 3)]


def test_the_active_run_of_the_user_is_left_alone(home: Home, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = client.create_run(client.create_experiment("theirs")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    with running(Execution.of(home, sinusoid_spec("ours"))) as run:
        run.log_curve("loss", 1, 0.5, TIME)
    assert run.id != theirs
    assert client.get_run(theirs).data.metrics == {}


def test_a_new_execution_gets_a_run_of_its_own(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("forced")
    with running(Execution.of(home, spec)) as first:
        pass
    new_execution(Execution.of(home, spec))
    new_execution(Execution.of(home, spec))
    with running(Execution.of(home, spec)) as second:
        pass
    assert first.id != second.id
    assert len(runs_in(client, "forced")) == 2


def test_an_outage_of_the_server_ends_no_training_and_loses_no_point(
    home: Home, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Execution.of(home, sinusoid_spec("outage"))) as run:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        there, run.client = run.client, MlflowClient("http://127.0.0.1:9")
        run.log_curve("loss", 1, 0.5, TIME)
        run.flush()
        run.client = there
        run.log_curve("loss", 2, 0.25, TIME + 1)
    assert [(point.step, point.value) for point in client.get_metric_history(run.id, "loss")] == [(1, 0.5), (2, 0.25)]
