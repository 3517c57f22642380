"""The logged model: loaded without pickle in a process that has never seen the project, and clear about wrong inputs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pytest
import torch
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.model import PythonModel
from mlflow.pyfunc.scoring_server import init
from mlflow.types import DataType, ParamSchema, ParamSpec
from safetensors.torch import save_file

from metaopt_core.meta.learner import Learner
from metaopt_core.networks.network import Params
from metaopt_core.pipeline.execution import Execution
from metaopt_core.pipeline.home import Home
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.logged_model import MOST_NUMBERS, MOST_STEPS
from metaopt_core.tracking.publishing import publish
from metaopt_core.tracking.saving import save
from tests.made_outputs import publish_upstream, shape_of, sinusoid_spec

Arrays = dict[str, npt.NDArray[Any]]

TASKS, WAYS = 3, 4


@pytest.fixture(scope="module")
def regression() -> PipelineSpec:
    return sinusoid_spec("regression")


@pytest.fixture(scope="module")
def classification() -> PipelineSpec:
    train = {"model": {"name": "conv4", "filters": 4}, "iterations": 1, "ways": WAYS, "shots": 1, "queries": 2}
    body = {"name": "classification", "generate": {"distribution": "omniglot"}, "train": train, "evaluate": {"steps": 2}}
    return PipelineSpec.model_validate_json(json.dumps(body))


def _predict(model: PyFuncModel, arrays: Arrays, **params: Any) -> npt.NDArray[Any]:
    predictions = model.predict(arrays, params=params or None)
    assert isinstance(predictions, np.ndarray)
    return predictions


def _saved(spec: PipelineSpec, folder: Path) -> tuple[PyFuncModel, Params]:
    parameters = Learner.from_spec(spec, shape_of(spec)).initial(0)
    save_file(parameters, folder / "parameters.safetensors")
    save(spec, shape_of(spec), folder / "parameters.safetensors", folder / "model")
    return mlflow.pyfunc.load_model(str(folder / "model")), parameters


@pytest.fixture(scope="module")
def regressor(regression: PipelineSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[PyFuncModel, Params]:
    return _saved(regression, tmp_path_factory.mktemp("regressor"))


@pytest.fixture(scope="module")
def classifier(classification: PipelineSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[PyFuncModel, Params]:
    return _saved(classification, tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def curves() -> Arrays:
    """A batch of regression tasks."""
    random = np.random.default_rng(0)
    sizes = {"support_x": 5, "support_y": 5, "query_x": 7}
    return {name: random.uniform(-2, 2, (TASKS, size, 1)).astype(np.float32) for name, size in sizes.items()}


@pytest.fixture
def pictures() -> Arrays:
    """A batch of classification tasks."""
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(WAYS), (TASKS, 1))
    x = {"support_x": WAYS, "query_x": 2 * WAYS}
    return {"support_y": labels} | {name: random.random((TASKS, size, 1, 28, 28), dtype=np.float32) for name, size in x.items()}


def _expected(spec: PipelineSpec, parameters: Params, arrays: Arrays, steps: int) -> npt.NDArray[Any]:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    outputs: npt.NDArray[Any] = Learner.from_spec(spec, shape_of(spec)).predict(parameters, **tensors, steps=steps).numpy()
    return outputs


def test_it_predicts_what_the_learner_predicts(
    regression: PipelineSpec, regressor: tuple[PyFuncModel, Params], curves: Arrays
) -> None:
    model, parameters = regressor
    predictions = _predict(model, curves, steps=5)
    assert predictions.shape == (TASKS, 7, 1)
    np.testing.assert_allclose(predictions, _expected(regression, parameters, curves, 5), atol=1e-5)
    np.testing.assert_allclose(
        _predict(model, curves), _expected(regression, parameters, curves, regression.evaluate.steps), atol=1e-5
    )
    with torch.no_grad():
        np.testing.assert_array_equal(_predict(model, curves, steps=5), predictions)


@pytest.mark.parametrize("algorithm", ["ridge", "adkf"])
def test_a_head_in_closed_form_predicts_by_its_solution(algorithm: str, curves: Arrays, tmp_path: Path) -> None:
    train = {"model": {"name": "mlp", "hidden": [8]}, "iterations": 1, "shots": 5, "queries": 5, "algorithm": algorithm}
    spec = sinusoid_spec("solved", train=train)
    model, parameters = _saved(spec, tmp_path)
    predictions = _predict(model, curves)
    np.testing.assert_allclose(predictions, _expected(spec, parameters, curves, 1), atol=1e-5)
    assert np.abs(predictions - _predict(model, curves, steps=0)).max() > 0.01


def test_a_classification_gets_the_probabilities_of_its_classes(
    classification: PipelineSpec, classifier: tuple[PyFuncModel, Params], pictures: Arrays
) -> None:
    model, parameters = classifier
    probabilities = _predict(model, pictures, steps=1)
    assert probabilities.shape == (TASKS, 2 * WAYS, WAYS)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    logits = torch.from_numpy(_expected(classification, parameters, pictures, 1))
    np.testing.assert_allclose(probabilities, logits.softmax(-1), atol=1e-5)


def test_one_task_in_is_one_task_out(
    regressor: tuple[PyFuncModel, Params], classifier: tuple[PyFuncModel, Params], curves: Arrays, pictures: Arrays
) -> None:
    for (model, _), batch in ((regressor, curves), (classifier, pictures)):
        one = _predict(model, {name: array[1] for name, array in batch.items()})
        np.testing.assert_allclose(one, _predict(model, batch)[1], atol=1e-5)


def test_other_number_types_are_welcome(
    regressor: tuple[PyFuncModel, Params], classifier: tuple[PyFuncModel, Params], curves: Arrays, pictures: Arrays
) -> None:
    for (model, _), batch in ((regressor, curves), (classifier, pictures)):
        doubles = {name: array.astype(np.float64) for name, array in batch.items()}
        np.testing.assert_array_equal(_predict(model, doubles), _predict(model, batch))


Change = Callable[[Arrays], Arrays]


def _objects(rows: list[list[int]]) -> npt.NDArray[Any]:
    """As MLflow hands over rows of different lengths."""
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {name: a[name] for name in ("support_x", "query_x")}, "missing inputs .'support_y'."),
        (
            lambda a: a | {"query_x": a["query_x"][..., :14]},
            r"query_x has shape \(3, 8, 1, 28, 14\): expected \[examples, 1, 28, 28\]",
        ),
        (lambda a: a | {"query_x": a["query_x"][0]}, r"query_x has shape \(8, 1, 28, 28\)"),
        (lambda a: a | {"query_x": a["query_x"][:2]}, "3 tasks in support_x, 2 in query_x: expected as many"),
        (lambda a: a | {"query_x": a["query_x"][:, :0]}, r"query_x has shape \(3, 0, 1, 28, 28\)"),
        (lambda a: a | {"support_y": a["support_y"][:, :3]}, r"support_y has shape \(3, 3\): expected \(3, 4\)"),
        (lambda a: a | {"support_y": a["support_y"] + 1}, "support_y has the label 4: expected whole numbers from 0 to 3"),
        (lambda a: a | {"support_y": a["support_y"] - 1}, "support_y has the label -1"),
        (lambda a: a | {"support_y": a["support_y"] + 0.5}, "support_y has the label 0.5"),
        (lambda a: a | {"support_x": a["support_x"] * np.nan}, "support_x has NaN, infinite or too large values"),
        (lambda a: a | {"support_x": a["support_x"].astype(float) * 1e300}, "support_x has NaN, infinite or too large values"),
        (lambda a: a | {"support_y": np.full((3, 4), "1")}, "support_y holds text: expected an array of numbers"),
        (lambda a: a | {"support_x": a["support_x"] + 1j}, "support_x holds complex numbers: expected an array of numbers"),
        (lambda a: a | {"support_y": np.full((3, 4), "2026-01-01", "M8[D]")}, "support_y holds dates"),
        (lambda a: a | {"support_y": np.full((3, 4), 1, "m8[D]")}, "support_y holds durations"),
        (lambda a: a | {"support_y": np.full((3, 4), None)}, "support_y holds objects that are no numbers"),
        (lambda a: a | {"support_y": _objects([[0, 1], [0]])}, "support_y is no array of one shape"),
    ],
)
def test_a_wrong_input_is_named(classifier: tuple[PyFuncModel, Params], pictures: Arrays, change: Change, message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        classifier[0].predict(change(pictures))


@pytest.mark.parametrize("steps", [-1, 1.5, "many", True, 1001, 10**9, 10**30])
def test_wrong_steps_are_named(regressor: tuple[PyFuncModel, Params], curves: Arrays, steps: Any) -> None:
    with pytest.raises(MlflowException, match="steps"):
        regressor[0].predict(curves, params={"steps": steps})


def test_limits_are_declared_and_the_environment_raises_them(
    regressor: tuple[PyFuncModel, Params], curves: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = regressor[0].metadata.metadata
    assert declared is not None
    assert declared["steps"].startswith("0 to 1000; METAOPT_MOST_STEPS")
    assert declared["size"].startswith(f"at most {2**24} numbers")
    many = curves | {"query_x": np.zeros((TASKS, 2**23, 1), np.float32)}
    with pytest.raises(MlflowException, match=rf"the arrays have 25165854 numbers: expected at most {2**24} .* {MOST_NUMBERS}"):
        regressor[0].predict(many)
    with pytest.raises(MlflowException, match=f"expected a whole number from 0 to 1000; .* {MOST_STEPS}"):
        regressor[0].predict(curves, params={"steps": 1001})
    monkeypatch.setenv(MOST_STEPS, "1001")
    monkeypatch.setenv(MOST_NUMBERS, "50")
    raised, _ = _saved(sinusoid_spec("raised"), tmp_path)
    assert _predict(raised, {name: array[0] for name, array in curves.items()}, steps=1001).shape == (7, 1)
    with pytest.raises(MlflowException, match="the arrays have 51 numbers: expected at most 50"):
        raised.predict(curves)
    monkeypatch.setenv(MOST_STEPS, "many")
    with pytest.raises(MlflowException, match="METAOPT_MOST_STEPS is 'many': expected a whole number"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))


def test_an_unknown_parameter_is_an_error_of_this_model_alone(
    regressor: tuple[PyFuncModel, Params], curves: Arrays, tmp_path: Path
) -> None:
    with pytest.raises(MlflowException, match="unknown parameter 'step': expected only steps"):
        regressor[0].predict(curves, params={"step": 3})
    server = TestClient(init(regressor[0]))
    inputs = {name: array[0].tolist() for name, array in curves.items()}
    refused = server.post("/invocations", json={"inputs": inputs, "params": {"step": 3, "stpes": 1}})
    assert refused.status_code == 400
    assert "unknown parameter 'step', 'stpes'" in refused.text

    class Another(PythonModel):  # not annotated: MLflow would make a signature of that
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return params

    signature = ModelSignature(params=ParamSchema([ParamSpec("steps", DataType.long, 1)]))
    mlflow.pyfunc.save_model(str(tmp_path / "another"), python_model=Another(), signature=signature, pip_requirements=[])
    assert mlflow.pyfunc.load_model(str(tmp_path / "another")).predict([1], params={"step": 3}) == {"steps": 1}


def test_the_signature_names_the_tensors_and_the_parameter(regression: PipelineSpec, regressor: tuple[PyFuncModel, Params]) -> None:
    signature = regressor[0].metadata.signature
    assert signature.inputs.input_names() == ["support_x", "support_y", "query_x"]
    assert signature.params.params[0].name == "steps"
    assert signature.params.params[0].default == regression.evaluate.steps


def test_mlflows_own_scoring_server_can_serve_it(regressor: tuple[PyFuncModel, Params], curves: Arrays) -> None:
    server = TestClient(init(regressor[0]))
    inputs = {name: array[0].tolist() for name, array in curves.items()}
    answer = server.post("/invocations", json={"inputs": inputs, "params": {"steps": 3}})
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["predictions"], _predict(regressor[0], curves, steps=3)[0], atol=1e-5)
    assert server.post("/invocations", json={"inputs": inputs, "params": {"steps": -3}}).status_code == 400


_ELSEWHERE = """
import sys
import mlflow, numpy as np
uri, model_uri, arrays, answer = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model_uri)
np.save(answer, model.predict(dict(np.load(arrays)), params={"steps": 4}))
import metaopt_core
print(metaopt_core.__file__)
"""


def test_a_fresh_process_without_the_project_or_pickle_predicts_the_same(curves: Arrays, tmp_path: Path) -> None:
    home, spec = Home(tmp_path / "home"), sinusoid_spec("elsewhere", log={"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"})
    made = publish_upstream(home, spec)
    record = publish(Execution.of(home, spec), made)
    np.savez(tmp_path / "arrays.npz", **curves)  # type: ignore[arg-type]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    arguments = [record["tracking_uri"], record["model_uri"], str(tmp_path / "arrays.npz"), str(tmp_path / "answer.npy")]
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *arguments],
        env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(home.mlflow)  # the copy that came with the model
    parameters = Learner.from_spec(spec, shape_of(spec)).network.init(spec.seed)
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), _expected(spec, parameters, curves, 4), atol=1e-5)
    assert not [path for path in home.mlflow.rglob("*") if path.suffix in (".pkl", ".pickle")]
