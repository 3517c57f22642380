"""Past executions, read from what their outputs say of themselves."""

import json
from pathlib import Path

import pytest

from metaopt_core.errors import UserError
from metaopt_core.pipeline.history import differing, named, past
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.identity import identities
from metaopt_core.pipeline.store import Store
from metaopt_core.spec.pipeline import PipelineSpec
from tests.made_outputs import publish_upstream, sinusoid_spec


def log_of(home: Home, spec: PipelineSpec) -> str:
    """Publish all of a pipeline's outputs; the fingerprint of the last."""
    upstream = publish_upstream(home, spec)
    identity = identities(spec)["log"]
    with Store(home).publish(identity, upstream) as (_, extra):
        extra["run_id"] = f"run of {spec.name}"
    return identity.fingerprint


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_an_execution_has_its_settings_outputs_and_record(home: Home) -> None:
    fingerprint = log_of(home, sinusoid_spec("waves"))
    (found,) = past(home)
    assert (found.pipeline, found.fingerprint, found.extra) == ("waves", fingerprint, {"run_id": "run of waves"})
    assert found.settings["train.shots"] == 5
    assert found.settings["evaluate.steps"] == 2
    assert set(found.folders) == {"generate", "train", "evaluate", "log"}
    assert found.summary["model"] == "maml"
    assert found.seconds > 0


def test_the_newest_comes_first_and_is_what_a_pipelines_name_means(home: Home) -> None:
    older, newer = log_of(home, sinusoid_spec("waves")), log_of(home, sinusoid_spec("waves", seed=1))
    there = past(home)
    assert [one.fingerprint for one in there] == [newer, older]
    assert named(there, "waves").fingerprint == newer
    assert named(there, older[:6]).fingerprint == older
    assert differing(there) == ["generate.seed", "seed"]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"slice": 1, "upstream": {}}'])
def test_what_is_not_whole_is_left_out(home: Home, damage: str) -> None:
    log_of(home, sinusoid_spec("whole"))
    fingerprint = log_of(home, sinusoid_spec("damaged", seed=1))
    (home.outputs / "log" / fingerprint / "manifest.json").write_text(damage)
    assert [one.pipeline for one in past(home)] == ["whole"]


def test_an_execution_whose_evaluation_is_gone_is_left_out(home: Home) -> None:
    fingerprint = log_of(home, sinusoid_spec("gone"))
    upstream = json.loads((home.outputs / "log" / fingerprint / "manifest.json").read_text())["upstream"]
    (home.outputs / "evaluate" / upstream["evaluate"] / "manifest.json").unlink()
    assert past(home) == []


def test_a_name_that_nothing_has_is_said(home: Home) -> None:
    log_of(home, sinusoid_spec("waves"))
    with pytest.raises(UserError, match="no run of this id"):
        named(past(home), "weaves")
