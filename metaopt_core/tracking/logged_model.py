"""The logged model: an MLflow pyfunc that adapts to the tasks it is given and predicts their queries.

MLflow stores this file as the model ("models from code") with a copy of the library, the meta-parameters as safetensors and the
spec as JSON, so that loading it unpickles nothing and needs no checkout.

    model = mlflow.pyfunc.load_model("models:/m-…")
    model.predict({"support_x": …, "support_y": …, "query_x": …}, params={"steps": 5})

The three tensors are NumPy arrays of one task, [examples, …], or of a batch of tasks, [tasks, examples, …]; predictions come in
the same form: [queries, outputs] or [tasks, queries, outputs], float32. The outputs are the predicted value of a regression (one),
or the probabilities of the classes of a classification (`.argmax(-1)` is the label). A task whose adaptation diverged predicts NaN.
Where the network's normalization is transductive, as the spec says, the queries of a task are predicted together, not one by one.

In the signature each tensor is an `object` of shape (-1,), which is MLflow's way to say "any array": its other tensor types fix the
number of dimensions, and so would refuse either one task or a batch, as well as float64. Shapes and types are checked here.
"""

import importlib.metadata
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from safetensors.torch import load_file

from metaopt_core.meta.learner import Learner
from metaopt_core.networks.network import Params
from metaopt_core.spec import user_source
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec

REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "cronsim", "mlflow")  # stated: inferring them takes long


class Adapter:
    """Meta-parameters and the learner that adapts them."""

    def __init__(self, spec: PipelineSpec, shape: TaskShape, parameters: Params):
        self.spec, self.shape = spec, shape
        self.learner = Learner.from_spec(spec, shape)
        self.parameters = parameters

    def predict(self, model_input: Any, params: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """Predictions for `query_x` after `steps` steps on the support set; see the top of this file.

        Raises MlflowException (INVALID_PARAMETER_VALUE) for a missing tensor, a wrong shape, a label out of range, negative steps.
        """
        steps = params.get("steps", self.spec.horizon)
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
            raise _invalid(f"steps is {steps!r}: expected a whole number, 0 or more")
        support_x, support_y, query_x, one_task = self._tensors(model_input)
        with torch.enable_grad():  # also where the caller has switched gradients off: adaptation takes them
            outputs = self.learner.predict(self.parameters, support_x, support_y, query_x, int(steps))
        predictions: npt.NDArray[np.float32] = (outputs.softmax(-1) if self.learner.classification else outputs).detach().numpy()
        return predictions[0] if one_task else predictions

    def _tensors(self, model_input: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        """The checked inputs with a task dimension, and whether it was added."""
        names = ("support_x", "support_y", "query_x")
        if not isinstance(model_input, dict) or not set(names) <= model_input.keys():
            raise _invalid(f"the input is {_description(model_input)}: expected a dictionary with the arrays {', '.join(names)}")
        support_x, support_y, query_x = (_numbers(name, model_input[name]) for name in names)
        shape = self.shape.input_shape
        one_task = support_x.ndim == 1 + len(shape)
        lead = 1 if one_task else 2
        for name, array in (("support_x", support_x), ("query_x", query_x)):
            if array.ndim != lead + len(shape) or array.shape[lead:] != shape or 0 in array.shape:
                expected = ", ".join(str(size) for size in shape)
                raise _invalid(
                    f"{name} has shape {array.shape}: expected [examples, {expected}] for one task, or [tasks, examples, "
                    f"{expected}] for a batch, and the same of the two for each input"
                )
        if not one_task and support_x.shape[0] != query_x.shape[0]:
            raise _invalid(f"{support_x.shape[0]} tasks in support_x, {query_x.shape[0]} in query_x: expected as many")
        targets = support_x.shape[:lead] if self.learner.classification else (*support_x.shape[:lead], self.shape.outputs)
        if support_y.shape != targets:
            raise _invalid(f"support_y has shape {support_y.shape}: expected {targets}, a target for each example of support_x")
        if self.learner.classification:
            self._check_labels(support_y)
        x, y, q = (torch.from_numpy(array[None] if one_task else array) for array in (support_x, support_y, query_x))
        return x, y.long() if self.learner.classification else y, q, one_task

    def _check_labels(self, labels: npt.NDArray[np.float32]) -> None:
        ways = self.spec.train.ways or 0
        wrong = labels[(labels != np.floor(labels)) | (labels < 0) | (labels >= ways)]
        if wrong.size:
            raise _invalid(f"support_y has the label {wrong[0]:g}: expected whole numbers from 0 to {ways - 1}")


def _numbers(name: str, value: Any) -> npt.NDArray[np.float32]:
    try:
        array = np.ascontiguousarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise _invalid(f"{name} is {_description(value)}: expected an array of numbers, each task with as many examples") from None
    if not np.isfinite(array).all():
        raise _invalid(f"{name} has NaN or infinite values: expected finite numbers")
    return array


def _description(value: Any) -> str:
    return f"a dictionary with {', '.join(map(str, value))}" if isinstance(value, dict) else f"of type {type(value).__name__}"


def _invalid(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


# MLflow prints its advice to annotate `predict`. It would take a signature from the annotations, without the parameter `steps`.
with warnings.catch_warnings(record=True):

    class FewShotLearner(PythonModel):
        """The adapter in MLflow's form."""

        def load_context(self, context: Any) -> None:
            spec = PipelineSpec.model_validate_json(Path(context.artifacts["spec"]).read_text())
            shape = TaskShape.from_json(json.loads(Path(context.artifacts["shape"]).read_text()))
            self.adapter = Adapter(spec, shape, load_file(context.artifacts["parameters"]))

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
            return self.adapter.predict(model_input, params or {})


def signature(spec: PipelineSpec, shape: TaskShape) -> ModelSignature:
    """The three named tensors, the predictions, and the parameter `steps` with the spec's own number as its default."""
    anything: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(object), (-1,), name) for name in ("support_x", "support_y", "query_x")
    ]
    return ModelSignature(
        inputs=Schema(anything),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, shape.outputs_for(spec.train.ways)))]),
        params=ParamSchema([ParamSpec("steps", DataType.long, spec.horizon)]),
    )


def save(
    spec: PipelineSpec, shape: TaskShape, parameters: Path, folder: Path, run_id: str | None = None, model_id: str | None = None
) -> None:
    """Write the model into a folder that doesn't exist yet.

    parameters: the safetensors file of the meta-parameters. run_id, model_id: where MLflow will keep it, noted in its description.
    """
    package = Path(__file__).resolve().parents[1]
    own = sorted({file for path in spec.import_paths for file in user_source.to_copy(path)})
    described = folder.with_name(f"{folder.name}-spec")
    described.mkdir()
    unscheduled = spec.model_copy(update={"schedule": None})  # a model has none, and its process may not know the time zone
    (described / "spec.json").write_text(unscheduled.model_dump_json(indent=1))
    (described / "shape.json").write_text(json.dumps(shape.as_json()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*An input example was not provided", category=UserWarning)
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).resolve()),
            artifacts={"parameters": str(parameters), **{name: str(described / f"{name}.json") for name in ("spec", "shape")}},
            code_paths=[str(package), *map(str, own)],
            signature=signature(spec, shape),
            pip_requirements=[f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in REQUIREMENTS],
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            metadata=_description_of_tensors(spec, shape),
        )


def _description_of_tensors(spec: PipelineSpec, shape: TaskShape) -> dict[str, str]:
    x = f"[examples, {', '.join(map(str, shape.input_shape))}]"
    ways = spec.train.ways
    return {
        "support_x": x,
        "support_y": f"[examples], labels 0 to {ways - 1}" if ways else f"[examples, {shape.outputs}]",
        "query_x": x,
        "predictions": f"[queries, {ways}], probabilities of the classes" if ways else f"[queries, {shape.outputs}]",
        "batch": "a batch of tasks has one dimension more in front of each",
    }


set_model(FewShotLearner())
