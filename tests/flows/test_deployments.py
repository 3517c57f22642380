"""`metaopt serve`: schedules that fire, specs that Prefect's API refuses, our own flows alone, and how serving ends."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metaopt_core.spec.pipeline import PipelineSpec
from tests.flows.conftest import TINY, project_in
from tests.flows.running import Up, children, eventually, free_ports, lives, up

PIPELINES = (
    TINY
    + """\
    schedule: {every: 4s}
  asked: {extends: tiny, seed: 1, schedule: null}
  long: {extends: asked, train: {iterations: 100000000, validation: {every: 50000000}}}
"""
)
QUICK = {"PREFECT_RUNNER_POLL_FREQUENCY": "2"}


def _deployment(servers: Up, name: str, *logs: Path) -> Any:
    def found() -> Any:
        response = httpx.get(f"{servers.api}/deployments/name/{name}", timeout=30)
        return response.json() if response.status_code == 200 else None

    return eventually(found, f"deployment {name}", *logs)


def _ask(servers: Up, deployment: Any) -> str:
    """Ask for a run; its id."""
    address = f"{servers.api}/deployments/{deployment['id']}/create_flow_run"
    return str(_accepted("POST", address)["id"])


def _accepted(method: str, address: str, **body: Any) -> Any:
    """The answer to a request, once it is accepted: a busy database is a status of 503."""
    answer = eventually(lambda: httpx.request(method, address, json=body, timeout=30).raise_for_status(), "answer")
    return answer.json() if answer.content else None


def _state(servers: Up, flow_run: str) -> str:
    return str(httpx.get(f"{servers.api}/flow_runs/{flow_run}", timeout=30).json()["state_type"])


def _training(log: Path, serve: "subprocess.Popen[str]") -> int:
    """The process that carries out `long`, once it trains."""
    eventually(lambda: "Beginning subflow run 'long' for flow 'train'" in log.read_text(), "training", log, process=serve)
    (flow,) = [pid for pid, command in children(serve.pid).items() if "spawn_main" in command]
    return flow


@pytest.fixture
def background() -> Iterator[None]:
    """What is started ignores SIGINT, as in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("background")
def test_a_served_pipeline_runs_on_its_schedule_and_serving_ends_with_what_it_runs(tmp_path: Path) -> None:
    project, log = project_in(tmp_path, PIPELINES), tmp_path / "serve.log"
    with up(project) as servers, project.started("serve", "tiny", "long", log=log, **QUICK) as serve:
        deployment = _deployment(servers, "pipeline/tiny", log)
        _deployment(servers, "evaluate/tiny", log)

        create = f"{servers.api}/deployments/{deployment['id']}/create_flow_run"
        for change in ({"iterations": 0}, {"iterations": "many"}, {"iteration": 5}):
            spec = deployment["parameters"]["spec"]
            bad = {**spec, "train": {**spec["train"], **change}}
            refused = httpx.post(create, json={"parameters": {"spec": bad}}, timeout=30)
            assert refused.status_code in {409, 422}, refused.text

        def completed() -> list[Any]:
            query = {
                "deployments": {"id": {"any_": [deployment["id"]]}},
                "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
            }
            answer = httpx.post(f"{servers.api}/flow_runs/filter", json=query, timeout=30).json()
            return [run for run in answer if run["auto_scheduled"]]

        run = eventually(completed, "completed scheduled run", log, servers.log, process=serve)[0]
        assert run["name"] == "tiny"
        (recorded,) = _mlflow_runs(servers.mlflow)
        assert recorded["info"]["status"] == "FINISHED"

        pause = f"{servers.api}/deployments/{deployment['id']}/pause_deployment"
        _accepted("POST", pause)  # or what is late by then goes first
        flow_run = _ask(servers, _deployment(servers, "pipeline/long", log))
        flow = _training(log, serve)
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(120) == 0, log.read_text()
        assert _state(servers, flow_run) == "CANCELLED"
        assert not lives(flow)
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("background")
def test_our_own_flows_alone_are_carried_out_and_without_its_server_serving_ends_with_a_line(tmp_path: Path) -> None:
    project, log, made = project_in(tmp_path, PIPELINES), tmp_path / "serve.log", tmp_path / "made-by-another"
    other = tmp_path / "other.py"
    other.write_text(f"from prefect import flow\nopen({str(made)!r}, 'w').close()\n\n\n@flow\ndef other(): ...\n")
    with up(project) as servers, project.started("serve", "asked", "long", log=log, **QUICK) as serve:
        deployment = _deployment(servers, "generate/asked", log)
        long = _deployment(servers, "pipeline/long", log)
        steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {made}"}}]
        changed = {"pull_steps": steps, "entrypoint": f"{other}:other", "path": str(tmp_path)}
        _accepted("PATCH", f"{servers.api}/deployments/{deployment['id']}", **changed)
        assert _deployment(servers, "generate/asked")["pull_steps"] == steps
        flow_run = _ask(servers, deployment)
        eventually(lambda: _state(servers, flow_run) == "COMPLETED", "completed run", log, process=serve)
        assert "generate: " in log.read_text()
        assert not made.exists()

        _ask(servers, long)
        flow = _training(log, serve)
        servers.process.kill()
        assert serve.wait(120) == 2, log.read_text()
        assert not lives(flow)
    assert log.read_text().splitlines()[-1].startswith("Prefect no longer answers at")
    assert "Traceback" not in log.read_text(), log.read_text()
    assert not (tmp_path / "trapped").exists()


def _mlflow_runs(address: str) -> Any:
    experiments = httpx.post(f"{address}/api/2.0/mlflow/experiments/search", json={"max_results": 10}, timeout=30).json()
    body = {"experiment_ids": [experiment["experiment_id"] for experiment in experiments["experiments"]]}
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
    from flows.stage_flows import FLOWS

    flows: list[Flow[..., Any]] = [pipeline, *FLOWS.values()]
    as_json = json.loads(PipelineSpec.model_validate(_valid()).model_dump_json())
    for flow in flows:
        assert flow.validate_parameters({"spec": as_json})["spec"] == PipelineSpec.model_validate(_valid())
        with pytest.raises(ParameterTypeError, match="have no classes"):
            flow.validate_parameters({"spec": {**as_json, "train": {**as_json["train"], "ways": 5}}})


def test_serving_refuses_an_address_where_nothing_answers(tmp_path: Path) -> None:
    done = project_in(tmp_path, PIPELINES).metaopt("serve", PREFECT_API_URL=f"http://127.0.0.1:{free_ports()[0]}/api")
    assert done.returncode == 2
    assert "PREFECT_API_URL" in done.stderr
    assert "Traceback" not in done.stderr
