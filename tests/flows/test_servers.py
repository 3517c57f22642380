"""`metaopt up` and `metaopt serve`: real servers, a schedule that fires, and specs that Prefect's API refuses."""

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from metaopt_core.spec.pipeline import PipelineSpec
from tests.flows.conftest import TINY, project_in

SCHEDULED = TINY + "    schedule: {every: 4s}\n  asked: {extends: tiny, seed: 1, schedule: null}\n"
SECONDS = 150


def _eventually(found: Callable[[], Any], what: str, logs: list[Path]) -> Any:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            if value := found():
                return value
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    pytest.fail(f"no {what} within {SECONDS} s\n" + "\n".join(log.read_text()[-4000:] for log in logs))


def _free_ports() -> tuple[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return str(one.getsockname()[1]), str(two.getsockname()[1])


@pytest.mark.slow
def test_a_served_pipeline_runs_on_its_schedule_and_bad_specs_are_refused(tmp_path: Path) -> None:
    project = project_in(tmp_path, SCHEDULED)
    prefect_port, mlflow_port = _free_ports()
    api, mlflow = f"http://127.0.0.1:{prefect_port}/api", f"http://127.0.0.1:{mlflow_port}"
    up_log, serve_log = tmp_path / "up.log", tmp_path / "serve.log"
    logs = [up_log, serve_log]
    quick = {"PREFECT_RUNNER_POLL_FREQUENCY": "2"}
    with project.started("up", "--prefect-port", prefect_port, "--mlflow-port", mlflow_port, log=up_log) as up:
        _eventually(lambda: (project.home / "servers.json").exists(), "servers", logs)
        assert api.removesuffix("/api") in up_log.read_text()
        assert mlflow in up_log.read_text()
        with project.started("serve", "tiny", "asked", log=serve_log, **quick) as serve:
            deployment = _eventually(lambda: _found(httpx.get(f"{api}/deployments/name/pipeline/tiny")), "deployment", logs)
            _eventually(lambda: _found(httpx.get(f"{api}/deployments/name/evaluate/asked")), "deployment of a stage", logs)

            create = f"{api}/deployments/{deployment['id']}/create_flow_run"
            for change in ({"iterations": 0}, {"iterations": "many"}, {"iteration": 5}):
                spec = deployment["parameters"]["spec"]
                bad = {**spec, "train": {**spec["train"], **change}}
                refused = httpx.post(create, json={"parameters": {"spec": bad}}, timeout=10)
                assert refused.status_code in {409, 422}, refused.text

            def completed() -> list[Any]:
                query = {
                    "deployments": {"id": {"any_": [deployment["id"]]}},
                    "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
                }
                return [
                    run for run in httpx.post(f"{api}/flow_runs/filter", json=query, timeout=10).json() if run["auto_scheduled"]
                ]

            run = _eventually(completed, "completed scheduled run", logs)[0]
            assert run["name"] == "tiny"
            serve.send_signal(signal.SIGTERM)
            assert serve.wait(60) == 0, serve_log.read_text()
        assert "Traceback" not in serve_log.read_text(), serve_log.read_text()

        (recorded,) = _mlflow_runs(mlflow)
        assert recorded["info"]["status"] == "FINISHED"

        again = project.metaopt("up")
        assert again.returncode == 2
        assert "up already" in again.stderr
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, up_log.read_text()
    assert not (project.home / "servers.json").exists()
    for port in (prefect_port, mlflow_port):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}")


def _found(response: httpx.Response) -> Any:
    return response.json() if response.status_code == 200 else None


def _mlflow_runs(address: str) -> Any:
    experiments = httpx.post(f"{address}/api/2.0/mlflow/experiments/search", json={"max_results": 10}, timeout=30).json()[
        "experiments"
    ]
    body = {"experiment_ids": [experiment["experiment_id"] for experiment in experiments]}
    return httpx.post(f"{address}/api/2.0/mlflow/runs/search", json=body, timeout=30).json().get("runs", [])


def _valid() -> dict[str, Any]:
    return {
        "name": "tiny",
        "generate": {"distribution": "sinusoid"},
        "train": {"model": {"name": "mlp"}, "iterations": 6, "shots": 5, "queries": 5},
    }


def test_a_flow_takes_the_spec_as_json_and_refuses_an_impossible_one() -> None:
    from prefect import Flow
    from prefect.exceptions import ParameterTypeError

    from flows.pipeline import pipeline
    from flows.stages import FLOWS

    flows: list[Flow[..., Any]] = [pipeline, *FLOWS.values()]
    as_json = json.loads(PipelineSpec.model_validate(_valid()).model_dump_json())
    for flow in flows:
        assert flow.validate_parameters({"spec": as_json})["spec"] == PipelineSpec.model_validate(_valid())
        with pytest.raises(ParameterTypeError, match="have no classes"):
            flow.validate_parameters({"spec": {**as_json, "train": {**as_json["train"], "ways": 5}}})


def test_serving_refuses_an_address_where_nothing_answers(tmp_path: Path) -> None:
    done = project_in(tmp_path, SCHEDULED).metaopt("serve", PREFECT_API_URL=f"http://127.0.0.1:{_free_ports()[0]}/api")
    assert done.returncode == 2
    assert "PREFECT_API_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_when_a_server_dies_up_says_which_and_shows_its_log(tmp_path: Path) -> None:
    project = project_in(tmp_path)
    (project.home / "mlflow").mkdir(parents=True)
    (project.home / "mlflow" / "mlflow.db").write_text("not a database")
    prefect_port, mlflow_port = _free_ports()
    done = project.metaopt("up", "--prefect-port", prefect_port, "--mlflow-port", mlflow_port)
    assert done.returncode == 2
    assert "MLflow's server ended" in done.stderr
    assert "file is not a database" in done.stderr
