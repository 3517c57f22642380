"""Which runs make a version of the registered model: those of a pipeline as it is written down, and those that are asked to."""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.planning import unless_tried_out
from flows.versions import as_served
from metaopt_core.spec.pipeline import PipelineSpec
from tests.flows.conftest import TINY, Project, project_in
from tests.made_outputs import sinusoid_spec

WRITTEN = sinusoid_spec("waves", log={"register_as": "few-shot"})
CHANGED = WRITTEN.model_copy(update={"seed": 7})


def _named(spec: PipelineSpec, name: str | None) -> PipelineSpec:
    return spec.model_copy(update={"log": spec.log.model_copy(update={"register_as": name})})


def test_what_is_tried_out_makes_no_version_unless_the_name_is_given_with_it() -> None:
    assert unless_tried_out(WRITTEN, WRITTEN) == WRITTEN
    assert unless_tried_out(CHANGED, WRITTEN) == _named(CHANGED, None)
    assert unless_tried_out(_named(CHANGED, "tried"), WRITTEN) == _named(CHANGED, "tried")
    assert unless_tried_out(CHANGED, _named(WRITTEN, None)) == CHANGED


@flow
def asked(spec: PipelineSpec) -> str | None:
    return as_served(spec).log.register_as


@flow
def around(spec: PipelineSpec) -> tuple[str | None, str | None]:
    """As a pipeline of several seeds runs itself once for each."""
    return as_served(spec).log.register_as, asked(CHANGED)


def test_a_run_from_prefects_page_makes_a_version_of_the_pipeline_as_it_is_served(shared_api: str) -> None:
    def run(spec: PipelineSpec) -> Any:
        with get_client(sync_client=True) as client:
            made = client.create_flow_run_from_deployment(deployment, parameters={"spec": spec.model_dump(mode="json")})
        return run_flow(around, flow_run=made, parameters={"spec": spec})

    with temporary_settings({PREFECT_API_URL: shared_api}):
        made: Any = around.to_deployment("waves", parameters={"spec": WRITTEN.model_dump(mode="json")})
        deployment = made.apply()
        assert run(WRITTEN) == ("few-shot", "few-shot")
        assert run(CHANGED) == (None, "few-shot")
        assert run(_named(CHANGED, "tried")) == ("tried", "few-shot")
        assert around(CHANGED) == ("few-shot", "few-shot")  # in Python


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_api: str) -> Project:
    return project_in(tmp_path_factory.mktemp("versions"), TINY + "    log: {register_as: waves}\n", api=shared_api)


def test_a_run_with_other_values_makes_a_version_only_when_asked_to(project: Project) -> None:
    changed = ["tiny", "--set", "evaluate.steps=2"]
    done = project.metaopt("run", *changed, "--json")
    assert "a run with --set adds no version of waves; --register adds one" in done.stderr
    first = json.loads(done.stdout)["mlflow"]
    assert first["model_version"] is None
    assert {stage["status"] for stage in project.json("plan", *changed)["stages"]} == {"up to date"}

    planned = {stage["stage"]: stage["reasons"] for stage in project.json("plan", *changed, "--register")["stages"]}
    assert planned == {"generate": [], "train": [], "evaluate": [], "log": ["no version of waves yet"]}
    asked = project.json("run", *changed, "--register")["mlflow"]
    assert (asked["model_version"], asked["run_id"]) == (1, first["run_id"])
    assert {stage["status"] for stage in project.json("plan", *changed)["stages"]} == {"up to date"}


def test_asking_for_a_version_needs_a_name(tmp_path: Path) -> None:
    done = project_in(tmp_path).metaopt("run", "tiny", "--register")
    assert done.returncode == 2
    assert "--register: tiny has no log.register_as" in done.stderr
