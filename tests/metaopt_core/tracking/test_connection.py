"""A store that can't be used is one message that names it and the remedy."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from metaopt_core.errors import UserError
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.tracking.runs import running
from tests.made_outputs import sinusoid_spec

KIND = "mlflow.experimentKind"


def test_a_server_that_does_not_answer_is_an_error_of_one_message(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"^MLflow at http://127.0.0.1:9 can't be used: .*\n.*MLFLOW_TRACKING_URI"):
        running(Execution.of(home, sinusoid_spec("unreachable"))).__enter__()


@pytest.mark.parametrize("address", ["nonsense://somewhere", "/tmp/mlruns", "sqlite:////dev/null/mlflow.db"])
def test_an_address_that_is_none_is_an_error_of_one_message(home: Home, address: str) -> None:
    spec = sinusoid_spec("address", log={"tracking_uri": address})
    with pytest.raises(UserError, match="can't be used"):
        running(Execution.of(home, spec)).__enter__()


def test_no_folder_is_made_for_a_store_that_is_elsewhere(home: Home, tmp_path: Path) -> None:
    spec = sinusoid_spec("folder", log={"tracking_uri": f"sqlite:///{tmp_path}/nope/deep/mlflow.db"})
    with pytest.raises(UserError, match=f"can't be used: there is no folder {tmp_path}/nope/deep"):
        running(Execution.of(home, spec)).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_experiment_is_an_error_that_says_how_to_get_it_back(home: Home, client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(UserError, match="mlflow experiments restore"):
        running(Execution.of(home, sinusoid_spec("deleted"))).__enter__()


@pytest.mark.parametrize(
    ("already", "kind"),
    [(None, "custom_model_development"), ({}, "custom_model_development"), ({KIND: "genai_development"}, "genai_development")],
)
def test_an_experiment_opens_on_its_training_runs_unless_its_owner_said_otherwise(
    home: Home, client: MlflowClient, already: dict[str, str] | None, kind: str
) -> None:
    name = f"kind-{kind}-{already}"
    if already is not None:
        client.create_experiment(name, artifact_location=home.mlflow.as_uri(), tags=already)
    with running(Execution.of(home, sinusoid_spec("kind", log={"experiment": name}))):
        pass
    found = client.get_experiment_by_name(name)
    assert found is not None
    assert found.tags[KIND] == kind
