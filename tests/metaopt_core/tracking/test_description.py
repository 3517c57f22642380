"""What a run says about itself."""

import json
from pathlib import Path

import yaml
from mlflow import MlflowClient

from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.runs import running
from tests.made_outputs import sinusoid_spec
from tests.metaopt_core.tracking.stored import runs_in


def test_a_run_says_what_it_is_of(home: Home, client: MlflowClient) -> None:
    spec = sinusoid_spec("described", seed=7)
    with running(Execution.of(home, spec)):
        pass
    (run,) = runs_in(client, "described")
    tags = run.data.tags
    assert run.info.run_name == f"described-{tags['metaopt.fingerprint.log'][:8]}"
    assert run.data.params["train.inner.lr"] == "0.01"
    assert run.data.params["train.model.hidden"] == "[8]"
    assert run.data.params["log.experiment"] == "null"
    assert tags["metaopt.seed"] == "7"
    assert tags["mlflow.note.content"] == "A test."
    assert {f"metaopt.fingerprint.{stage}" for stage in ("generate", "train", "evaluate", "log")} <= tags.keys()
    assert "metaopt.version.torch" in tags
    written = yaml.safe_load(Path(client.download_artifacts(run.info.run_id, "spec.yaml")).read_text())
    ((name, body),) = written["pipelines"].items()
    assert PipelineSpec.model_validate_json(json.dumps({"name": name} | body)) == spec
