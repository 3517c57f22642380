"""Credentials have no way into an address, and those in a text of a library's are taken out before it is quoted."""

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from metaopt_core.errors import UserError
from metaopt_core.pipeline.identity import identities
from metaopt_core.spec.addresses import VARIABLE, problem, scrubbed, tracking_address
from metaopt_core.spec.loader import SpecError, load
from metaopt_core.spec.log import LogSpec
from tests.made_outputs import sinusoid_spec

SECRET = "hunter2"
WITH_CREDENTIALS = [
    "http://me:hunter2@example.org:5000",
    "https://hunter2@example.org",
    "hunter2@example.org:5000",
    "me:hunter2@example.org:5000",
    "http://example.org:5000?password=hunter2",
    "http://example.org:5000/mlflow?api_key=hunter2",
    "http://example.org:5000/#token=hunter2",
    "http://me%3Ahunter2%40example.org:5000",
    "postgresql://me:hunter2@db.example.org/mlflow",
    "postgresql+psycopg2://me:hunter2@db.example.org/mlflow",
    "mysql+pymysql://me@db.example.org/mlflow?passwd=hunter2",
    "databricks://hunter2@profile",
]
WITHOUT = [
    "http://127.0.0.1:5000",
    "https://mlflow.example.org/team/a",
    "http://[::1]:5000",
    "sqlite:////home/me@work/mlflow.db",
    "sqlite:///mlflow.db?timeout=30",
    "postgresql://me@db.example.org/mlflow?sslmode=require",
    "databricks",
    "databricks://profile",
]


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
def test_an_address_with_credentials_is_refused_unquoted_and_with_the_variable_to_use(address: str) -> None:
    wrong = problem(address)
    assert wrong is not None
    assert SECRET not in wrong
    assert "PGPASSWORD" in wrong if "db." in address else "MLFLOW_TRACKING_PASSWORD" in wrong and "MLFLOW_TRACKING_TOKEN" in wrong
    with pytest.raises(ValidationError) as refused:  # as in Python, where nobody but pydantic writes the message
        LogSpec(tracking_uri=address)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("address", WITHOUT)
def test_an_address_without_credentials_is_taken(address: str) -> None:
    assert problem(address) is None
    assert LogSpec(tracking_uri=address).tracking_uri == address


@pytest.mark.parametrize("address", ["http://[bad", "http://"])
def test_what_is_no_address_is_an_error_with_an_example(address: str) -> None:
    wrong = problem(address)
    assert wrong is not None
    assert "http://127.0.0.1:5000" in wrong


def test_the_schema_by_which_prefects_server_checks_a_form_refuses_them_too() -> None:
    check = Draft202012Validator(LogSpec.model_json_schema())
    taken = [address for address in WITH_CREDENTIALS if check.is_valid({"tracking_uri": address})]
    assert taken == ["http://me%3Ahunter2%40example.org:5000"]  # whose login a browser would not see either
    assert all(check.is_valid({"tracking_uri": address}) for address in (*WITHOUT, None))


FILE = """
pipelines:
  waves:
    generate: {distribution: sinusoid}
    train: {model: {name: mlp}, shots: 5}
"""


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
def test_no_message_about_a_file_or_an_option_quotes_them(address: str, tmp_path: Path) -> None:
    path = tmp_path / "pipelines.yaml"
    path.write_text(f"{FILE}    log: {{tracking_uri: '{address}'}}\n")
    with pytest.raises(SpecError, match=r":6:25: waves.log.tracking_uri: an address holds no") as in_file:
        load(path)
    path.write_text(FILE)
    with pytest.raises(SpecError, match=r"--set log.tracking_uri=…: log.tracking_uri: an address holds no") as in_option:
        load(path, {"waves": [f"log.tracking_uri={address}"]})
    assert SECRET not in str(in_file.value) + str(in_option.value)


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
def test_the_environments_are_refused_when_a_stage_is_identified(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, address)
    with pytest.raises(UserError, match=r"^environment variable MLFLOW_TRACKING_URI: an address holds no") as refused:
        identities(sinusoid_spec("address"))
    assert SECRET not in str(refused.value)
    assert tracking_address("http://127.0.0.1:5000") == "http://127.0.0.1:5000"  # the spec's own goes before it


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("no host 'http://me:hunter2@example.org/x'", "no host 'http://example.org/x'"),
        ("(psycopg2) postgresql://me:hun/ter2@db/mlflow failed", "(psycopg2) postgresql://db/mlflow failed"),
        ("tried me:hunter2@example.org", "tried example.org"),
        ("url: /api?x=1&access_token=hunter2&y=2", "url: /api?x=1&access_token=***&y=2"),
        ("Authorization: Basic aHVudGVyMg==", "Authorization: Basic ***"),
        ("sent correct-horse", "sent ***"),
        ("unable to open sqlite:////home/me@work/mlflow.db", "unable to open sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_text_is_scrubbed(text: str, clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse")
    assert scrubbed(text) == clean
