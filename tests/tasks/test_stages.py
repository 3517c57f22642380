"""All four stages on small real pipelines: what they publish, and that the logged model gives evaluate's own numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from metaopt_core import evaluation
from metaopt_core.distributions.materialize import load
from metaopt_core.home import Home
from metaopt_core.spec.models import PipelineSpec
from metaopt_core.stages import STAGES, identities
from metaopt_core.store import StageOutput, Store
from tasks.evaluate import evaluate
from tasks.generate import generate
from tasks.log import log
from tasks.train import train
from tests.small import SMALL_CONV

BODIES: dict[str, Any] = {"generate": generate, "train": train, "evaluate": evaluate, "log": log}

SINUSOID: dict[str, Any] = {
    "name": "small-sinusoid",
    "generate": {"distribution": "sinusoid", "held_out": {"validation_tasks": 10, "test_tasks": 30}},
    "train": {
        "model": {"name": "mlp"},
        "iterations": 40,
        "shots": 10,
        "queries": 10,
        "validation": {"every": 20, "steps": 3},
    },
    "evaluate": {"steps": 4, "shots": 5, "queries": 50},
}
OMNIGLOT: dict[str, Any] = SMALL_CONV.model_dump(mode="json")

PREDICT = """
import sys, mlflow, numpy as np
from safetensors.numpy import load_file, save_file
uri, model_uri, inputs, outputs, steps = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model_uri)
predictions = [model.predict(load_file(inputs), params={"steps": step}) for step in range(int(steps) + 1)]
save_file({"predictions": np.stack(predictions)}, outputs)
"""


def run_all(spec: PipelineSpec, home: Home) -> dict[str, StageOutput]:
    outputs: dict[str, StageOutput] = {}
    for name, identity in identities(spec).items():
        upstream = {stage: outputs[stage] for stage in STAGES[name].upstream}
        outputs[name] = BODIES[name].fn(spec, home, identity, upstream)
        assert Store(home).get(identity, upstream) == outputs[name]
    return outputs


@pytest.fixture(scope="module", params=["sinusoid", "omniglot"])
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PipelineSpec, Home, dict[str, StageOutput]]:
    body = SINUSOID
    if request.param == "omniglot":
        folder = request.getfixturevalue("omniglot_folder")
        body = OMNIGLOT | {"generate": OMNIGLOT["generate"] | {"folder": str(folder)}}
    spec = PipelineSpec.model_validate(body)
    home = Home(tmp_path_factory.mktemp(request.param))
    return spec, home, run_all(spec, home)


def test_every_output_has_its_files(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, home, outputs = ran
    pictures = spec.generate.distribution == "omniglot"
    expected = {
        "generate": {"distribution.json", "held_out.safetensors"}
        | ({"pictures.safetensors", "splits.parquet", "contact_sheet.png"} if pictures else {"tasks.png"}),
        "train": {"parameters.safetensors", "pretrained.safetensors", "history.parquet"},
        "evaluate": {"tasks.parquet", "summary.json", "adaptation.png", "examples.png"},
        "log": {"log.json"},
    }
    for name, output in outputs.items():
        assert {path.name for path in Path(output.folder).iterdir()} == expected[name] | {"manifest.json"}
    assert not list(home.checkpoints.iterdir())


def test_the_table_has_a_row_a_method_and_task(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, _, outputs = ran
    table = pd.read_parquet(outputs["evaluate"] / "tasks.parquet")
    steps = range(spec.evaluate.steps + 1)
    measures = ["loss", "accuracy"] if spec.train.ways else ["loss"]
    assert list(table.columns) == ["method", "task", *(f"{measure}_{step}" for measure in measures for step in steps)]
    assert table.groupby("method").size().to_dict() == {"maml": 30, "pretrained": 30, "random": 30}
    summary = json.loads((outputs["evaluate"] / "summary.json").read_text())
    assert summary["normalization"] == ("transductive batch norm" if spec.train.ways else None)
    for method, result in summary["methods"].items():
        column = table.loc[table["method"] == method, f"loss_{steps[-1]}"]
        assert result["steps"][-1]["loss"]["mean"] == pytest.approx(column.mean(), rel=1e-5)


def test_the_history_ends_where_training_did(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, _, outputs = ran
    history = pd.read_parquet(outputs["train"] / "history.parquet")
    assert history.groupby("phase")["iteration"].max().to_dict() == {
        "maml": spec.train.iterations,
        "pretrained": spec.train.iterations,
    }
    assert {"loss", "validation_loss"} <= set(history["name"])
    assert np.isfinite(history["value"]).all()


def test_the_logged_model_gives_evaluates_own_numbers_in_a_fresh_process(
    ran: tuple[PipelineSpec, Home, dict[str, StageOutput]], tmp_path: Path
) -> None:
    spec, _, outputs = ran
    tasks = evaluation.test_tasks(spec, load(outputs["generate"] / ""))
    given = {name: np.ascontiguousarray(getattr(tasks, name).numpy()) for name in ("support_x", "support_y", "query_x")}
    save_file(given, tmp_path / "inputs.safetensors")
    (tmp_path / "predict.py").write_text(PREDICT)
    record = outputs["log"].extra
    arguments = [record["tracking_uri"], record["model_uri"], "inputs.safetensors", "outputs.safetensors", str(spec.evaluate.steps)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "predict.py", *arguments],
        cwd=tmp_path,
        env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        check=True,
    )
    from safetensors.numpy import load_file

    predictions = load_file(tmp_path / "outputs.safetensors")["predictions"]  # [steps + 1, tasks, queries, outputs]
    target = tasks.query_y.numpy()
    table = pd.read_parquet(outputs["evaluate"] / "tasks.parquet").query("method == 'maml'")
    for step, predicted in enumerate(predictions):
        if spec.train.ways is None:
            loss = np.square(predicted - target).mean((1, 2))
        else:
            likelihood = np.take_along_axis(predicted, target[..., None], 2)[..., 0]
            loss = -np.log(likelihood).mean(1) * spec.train.ways
            assert (predicted.argmax(-1) == target).mean(1) == pytest.approx(table[f"accuracy_{step}"].to_numpy(), abs=1e-6)
        assert loss == pytest.approx(table[f"loss_{step}"].to_numpy(), rel=2e-4, abs=1e-6)
