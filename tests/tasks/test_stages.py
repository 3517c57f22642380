"""All four stages on small real pipelines: what they publish, and that the logged model gives evaluate's own numbers."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from rich.console import Console
from safetensors.numpy import save_file

from metaopt_core.distributions.contract import load
from metaopt_core.evaluation import protocol as evaluation
from metaopt_core.pipeline.home import Home
from metaopt_core.pipeline.store import StageOutput
from metaopt_core.reporting import numbers, tables, terminal
from metaopt_core.spec.pipeline import PipelineSpec
from tests.tasks.ran import BASELINES

FIGURES = ("adaptation", "examples", "losses", "shifted", "training", "worst")


PREDICT = """
import sys, mlflow, numpy as np
from safetensors.numpy import load_file, save_file
uri, model_uri, inputs, outputs, steps = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model_uri)
predictions = [model.predict(load_file(inputs), params={"steps": step}) for step in range(int(steps) + 1)]
save_file({"predictions": np.stack(predictions)}, outputs)
"""


def test_every_output_has_its_files(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, home, outputs = ran
    pictures = spec.generate.distribution == "omniglot"
    expected = {
        "generate": {"distribution.json", "shape.json", "held_out.safetensors", "tasks.png"}
        | ({"pictures.safetensors", "splits.parquet"} if pictures else set()),
        "train": {
            "parameters.safetensors",
            *(f"snapshots/{iteration}.safetensors" for iteration in (3, 6) if pictures),
            *(f"snapshots/{iteration}.safetensors" for iteration in (20, 40) if not pictures),
            "history.parquet",
            "times.parquet",
            *(f"{name}.safetensors" for name in BASELINES[pictures]),
        },
        "evaluate": {"tasks.parquet", "summary.json", *(f"{name}.png" for name in FIGURES)}
        | ({"calibration.png", "over_training.parquet"} if pictures else set()),
        "log": {"log.json", "report.html"},
    }
    for name, output in outputs.items():
        files = (path for path in Path(output.folder).rglob("*") if path.is_file())
        assert {path.relative_to(output.folder).as_posix() for path in files} == expected[name] | {"manifest.json"}
    assert not list(home.checkpoints.iterdir())


def test_mlflow_has_every_variant_under_a_prefix_of_its_own(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, _, outputs = ran
    record = outputs["log"].extra
    metrics = MlflowClient(record["tracking_uri"]).get_run(record["run_id"]).data.metrics
    summary = json.loads((outputs["evaluate"] / "summary.json").read_text())
    for variant, tested in summary["shifted"].items():
        steps = tested["methods"]["maml"]["steps"]
        assert metrics[f"shifted/{variant}/loss/maml"] == pytest.approx(steps[-1]["loss"]["mean"])
        assert metrics[f"shifted_logged_model/{variant}_loss"] == pytest.approx(steps[spec.horizon]["loss"]["mean"])
    assert {name.split("/")[1] for name in metrics if name.startswith("shifted/")} == set(spec.shifts)


def test_tables_have_shifted_tasks_below_those_as_trained_for(ran: tuple[PipelineSpec, Home, dict[str, StageOutput]]) -> None:
    spec, _, outputs = ran
    summary = json.loads((outputs["evaluate"] / "summary.json").read_text())
    table = tables.shifted(summary)
    assert [group.text for group, _ in table.groups() if group] == ["in-distribution", *spec.shifts]
    change = next(iter(summary["shifted"].values()))["methods"]["maml"]["change"]["mean"]
    of_first_variant = table.groups()[1][1]
    assert (of_first_variant[0].cells[0].text, of_first_variant[0].cells[2].text) == ("MAML", numbers.change(change))
    large = summary["methods"]["random"]["steps"][spec.horizon]["loss"]
    large |= {"mean": 1e30, "ci95": 1e30, "median": 1e30}  # as where tasks diverge
    for shown in (table, tables.shifted(summary)):
        console = Console(record=True, width=80, file=io.StringIO())
        terminal.show(console, shown)
        lines = console.export_text().splitlines()
        assert any("MAML" in line and numbers.change(change) in line for line in lines)
        assert max(len(line.rstrip()) for line in lines if "±" in line) <= 80


def test_the_logged_model_gives_evaluates_own_numbers_in_a_fresh_process(
    ran: tuple[PipelineSpec, Home, dict[str, StageOutput]], tmp_path: Path
) -> None:
    spec, _, outputs = ran
    distribution, _ = load(outputs["generate"] / "", spec.seed)
    tasks = evaluation.test_tasks(spec, distribution).all()
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
    table = pd.read_parquet(outputs["evaluate"] / "tasks.parquet").query("method == 'maml' and variant == 'in-distribution'")
    for step, predicted in enumerate(predictions):
        if spec.train.ways is None:
            loss = np.square(predicted - target).mean((1, 2))
        else:
            likelihood = np.take_along_axis(predicted, target[..., None], 2)[..., 0]
            loss = -np.log(likelihood).mean(1) * spec.train.ways
            assert (predicted.argmax(-1) == target).mean(1) == pytest.approx(table[f"accuracy_{step}"].to_numpy(), abs=1e-6)
        assert loss == pytest.approx(table[f"loss_{step}"].to_numpy(), rel=2e-4, abs=1e-6)
