"""Results over seeds: statistics of the seeds' means, and one MLflow run above theirs."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from metaopt_core.pipeline import repetitions
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.tracking.connection import embedded_uri
from tasks.log import log
from tasks.merge import summarize
from tests.made_outputs import publish_upstream, sinusoid_spec


def test_the_seeds_of_a_pipeline_are_one_run_with_an_interval_over_them(tmp_path: Path) -> None:
    home, spec = Home(tmp_path), sinusoid_spec("waves", seeds=2, seed=3)
    assert [one.seed for one in repetitions.repeats(spec)] == [3, 4]
    outputs = []
    for one in repetitions.repeats(spec):
        made = publish_upstream(home, one)
        outputs.append(made | {"log": log.fn(Execution.of(home, one), made)})
    for factor, output in enumerate((made["evaluate"] for made in outputs), 1):
        results = json.loads((output / "summary.json").read_text())
        results["methods"]["maml"]["steps"][2]["loss"]["mean"] = factor / 10
        results["shifted"] = {"far": results | {"changes": {"x": [5.0, 10.0]}}}
        results["shifted"]["far"].pop("shifted", None)
        (output / "summary.json").write_text(json.dumps(results))

    for _ in range(2):  # the second time changes nothing
        summarize.fn(Execution.of(home, spec), outputs)
    found = json.loads(repetitions.record(home, spec).read_text())
    loss = found["methods"]["maml"]["steps"][2]["loss"]
    assert loss["worst"] == 2.0
    paired = found["differences"][0]["loss"]
    assert (paired["mean"], paired["ci95"], paired["survives"]) == (pytest.approx(-0.25), pytest.approx(0), True)
    far = found["shifted"]["far"]["methods"]["maml"]
    assert (far["steps"][2]["loss"], far["change"]["mean"]) == (loss, 0)
    assert loss["mean"] == pytest.approx(0.15)
    assert loss["ci95"] == pytest.approx(12.7062 * 0.05)  # Student's t for two values, times the standard error

    client = MlflowClient(embedded_uri(home))
    (group,) = client.search_runs(["1"], "tags.`metaopt.pipeline` = 'waves' AND params.seeds = '2'")
    history = client.get_metric_history(group.info.run_id, "meta_test/loss/maml")
    assert {point.step: point.value for point in history}[2] == pytest.approx(0.15)
    assert len(history) == 3
    nested = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{group.info.run_id}'")
    assert {run.info.run_id for run in nested} == {made["log"].extra["run_id"] for made in outputs}
