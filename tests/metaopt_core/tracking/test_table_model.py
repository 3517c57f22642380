"""The logged model of a table, loaded as anybody would load it."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file

from metaopt_core.distributions.batch import Episode
from metaopt_core.meta.learner import Learner
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.saving import save
from tests.metaopt_core.distributions.table.tables import frame, of_frame


def test_rows_of_a_table_are_predicted_in_the_unit_of_its_target(tmp_path: Path) -> None:
    rows = frame(40, 20)
    table, shape = of_frame(rows, tmp_path / "data")
    body = {
        "name": "own",
        "generate": {"distribution": "table", "path": "data.parquet", "task": "task", "target": "y"},
        "train": {"model": {"name": "mlp", "hidden": [8]}, "iterations": 1, "shots": 5, "queries": 15, "inner": {"lr": 0.05}},
        "evaluate": {"steps": 3},
    }
    spec = PipelineSpec.model_validate(body)
    learner = Learner.from_spec(spec, shape)
    parameters = learner.network.init(0)
    save_file(parameters, tmp_path / "parameters.safetensors")
    save(spec, shape, tmp_path / "parameters.safetensors", tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))

    tasks = table.held_out("test", Episode(None, 5, 15), 0, 1)
    assert tasks.origin is not None
    outputs = learner.predict(parameters, tasks.support_x, tasks.support_y, tasks.query_x, 3) + tasks.origin[:, None]
    expected = (torch.tensor(shape.target_means) + torch.tensor(shape.target_scales) * outputs)[0, :, 0].numpy()

    task = rows[rows.task == table.splits["test"].names[0]]
    x = table.preparation.numeric[0]
    inputs = [torch.cat([part])[0, :, 0].numpy() * x.scale + x.mean for part in (tasks.support_x, tasks.query_x)]
    known, new = (task.iloc[np.abs(task.x.to_numpy() - values[:, None]).argmin(1)] for values in inputs)
    given = {"support_x": np.array(known.to_dict("records")), "query_x": np.array(new.to_dict("records"))}
    found = model.predict(given | {"support_y": known.y.to_numpy()}, params={"steps": 3})
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
    with pytest.raises(MlflowException, match="query_x: row 1 lacks vendor: expected every column"):
        model.predict(given | {"query_x": np.array([{"x": 1.0}]), "support_y": known.y.to_numpy()})
