"""Methods other than the algorithm of `train` are logged and served: arrays and code, and nothing that would be unpickled."""

from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from metaopt_core.methods.contract import TOGETHER, compared
from metaopt_core.methods.from_support import as_bytes
from metaopt_core.networks.network import Params
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.saving import recipe, save

SPEC = PipelineSpec.model_validate(
    {
        "name": "served",
        "generate": {"distribution": "tests.toys.assays:Assays"},
        "train": {
            "model": {"name": "mlp", "hidden": [8]},
            "iterations": 1,
            "shots": 5,
            "queries": 5,
            "baselines": ["mixed_model", "pooled_boosting_offset", "pretrained"],
        },
    }
)
SHAPE, RANDOM = TaskShape((4,), "real"), np.random.default_rng(0)
ARRAYS = {
    "support_x": RANDOM.normal(size=(2, 5, 4)),
    "support_y": RANDOM.normal(size=(2, 5, 1)),
    "query_x": RANDOM.normal(size=(2, 3, 4)),
}


def parameters() -> dict[str, Params]:
    prior = {"beta": (1, 5), "intercept": (1,), "slopes": (1, 4), "signal": (1,), "scales": (1, 4), "noise": (1,)}
    mixed = {name: torch.from_numpy(RANDOM.random(shape) + 0.5) for name, shape in prior.items()}
    x = RANDOM.normal(size=(60, 4))
    trees = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(x, x[:, 0]), 3).model_to_string()
    return {"mixed_model": mixed, "pooled_boosting_offset": {"model_0": as_bytes(trees), "examples": torch.ones(1).double()}}


@pytest.mark.parametrize("name", ["mixed_model", "pooled_boosting_offset"])
def test_a_fitted_method_predicts_as_it_did_in_evaluation(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = parameters()[name]
    save_file(params, tmp_path / "parameters.safetensors")
    save(SPEC, SHAPE, tmp_path / "parameters.safetensors", tmp_path / "model", model=name)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    found: Any = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(ARRAYS)
    (method,) = (one for one in compared(SPEC) if one.name == name)
    from metaopt_core.distributions.batch import TaskBatch

    x, y, query = (torch.from_numpy(array).float() for array in ARRAYS.values())
    predictions = next(
        iter(method.served(SPEC.train, SHAPE, 0.01, 0, params).adapted(TaskBatch(x, y, query, torch.zeros(2, 3, 1))))
    )
    assert found == pytest.approx(predictions[TOGETHER](query, None).numpy(), rel=1e-5)
    taken = {path.name for path in (tmp_path / "model" / "code" / "metaopt_core" / "methods").glob("*.py")}
    assert f"{name}.py" in taken
    assert "random_forest.py" not in taken
    required = (tmp_path / "model" / "requirements.txt").read_text()
    assert ("lightgbm" in required) == (name == "pooled_boosting_offset")


def test_the_pre_trained_network_adapts_with_the_step_size_that_was_chosen() -> None:
    made = recipe(SPEC, SHAPE, "pretrained", 0.3)
    assert (made.method, made.inner_lr, made.steps) == ("metaopt_core.methods.pretrained:Pretrained", 0.3, SPEC.horizon)
    assert recipe(SPEC, SHAPE, "maml_safe").adaptation == "safe"
    assert recipe(SPEC, SHAPE).method == ""
