"""The logged model: an MLflow pyfunc that adapts to the tasks it is given and predicts their queries.

MLflow stores this file as the model ("models from code") with copies of the modules that it imports, the meta-parameters as
safetensors and a recipe as JSON, so that loading it unpickles nothing and needs no checkout. `saving` writes it.

    model = mlflow.pyfunc.load_model("models:/m-…")
    model.predict({"support_x": …, "support_y": …, "query_x": …}, params={"steps": 5})

The three tensors are NumPy arrays of one task, [examples, …], or of a batch of tasks, [tasks, examples, …]; predictions have the
same form: [queries, outputs] or [tasks, queries, outputs], float32. The outputs are the predicted values of a regression, or
the probabilities of the classes of a classification (`.argmax(-1)` is the label). A model of a table takes rows instead, and
targets in their own unit: see `metaopt_core.distributions.in_units`. A task whose adaptation diverged predicts NaN.
If the network's normalization is transductive (see the spec), pass all queries of a task together, not one by one.

A single request must not block a server: steps and sizes have limits, which the model's description states and two environment
variables raise.
"""

import importlib
import json
import logging
import os
import sys
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel
from safetensors.torch import load_file

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.distributions.in_units import InUnits
from metaopt_core.meta.learner import Learner
from metaopt_core.networks.network import Params
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.train import TrainSpec

TENSORS = ("support_x", "support_y", "query_x")
MOST_STEPS = "METAOPT_MOST_STEPS"
MOST_NUMBERS = "METAOPT_MOST_NUMBERS"

_MOST_STEPS = 1000
_MOST_NUMBERS = 2**24  # in the three tensors together: 64 MB
_KINDS = {"c": "complex numbers", "M": "dates", "m": "durations", "U": "text", "S": "bytes"}  # of NumPy's types


@dataclass(frozen=True)
class Recipe:
    """How meta-parameters are adapted: how they were trained, what tasks look like, and the spec's step size and steps.

    method: import path (`module:Class`) of another method than the one that `train` names, whose parameters these are; empty for
    that one.
    """

    train: TrainSpec
    shape: TaskShape
    inner_lr: float
    adaptation: Literal["plain", "safe"]
    steps: int
    method: str = ""

    @property
    def most_steps(self) -> int:
        return max(_MOST_STEPS, self.steps)

    @property
    def most_numbers(self) -> int:
        return _MOST_NUMBERS

    def to_json(self) -> str:
        values = {"train": self.train.model_dump(mode="json"), "shape": self.shape.as_json(), "inner_lr": self.inner_lr}
        return json.dumps(values | {"adaptation": self.adaptation, "steps": self.steps, "method": self.method}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        train = TrainSpec.model_validate_json(json.dumps(values.pop("train")))
        return cls(train, TaskShape.from_json(values.pop("shape")), **values)


class Adapter:
    """Meta-parameters and the learner that adapts them."""

    def __init__(self, recipe: Recipe, parameters: Params):
        self.recipe = recipe
        self.learner = replace(Learner.of(recipe.train, recipe.shape, recipe.inner_lr), adaptation=recipe.adaptation)
        self.parameters = parameters
        self.other = _other(recipe, parameters) if recipe.method else None
        self.most_steps = _limit(MOST_STEPS, recipe.most_steps)
        self.most_numbers = _limit(MOST_NUMBERS, recipe.most_numbers)

    @property
    def absolute(self) -> bool:
        """Whether its method takes targets with nothing subtracted, and predicts such."""
        return bool(getattr(self.other, "absolute", False))

    def predict(self, model_input: Any, params: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """Predictions for `query_x` after `steps` steps on the support set; see the top of this file.

        Raises MlflowException (INVALID_PARAMETER_VALUE) for a missing tensor, a wrong shape or type, a label out of range, an
        unknown parameter, and more steps or numbers than the limits allow.
        """
        if unknown := sorted(params.keys() - {"steps"}):
            raise unknown_parameters(unknown)
        steps = params.get("steps", self.recipe.steps)
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or not 0 <= steps <= self.most_steps:
            raise invalid(
                f"steps is {steps!r}: expected a whole number from 0 to {self.most_steps}; the environment variable {MOST_STEPS} "
                "of the process that predicts allows more"
            )
        support_x, support_y, query_x, one_task = self._tensors(model_input)
        with torch.enable_grad():  # adaptation takes gradients even if the caller has disabled them
            if self.other:
                outputs = self._by_other(support_x, support_y, query_x, int(steps))
            else:
                outputs = self.learner.predict(self.parameters, support_x, support_y, query_x, int(steps))
        predictions: npt.NDArray[np.float32] = (outputs.softmax(-1) if self.learner.classification else outputs).detach().numpy()
        return predictions[0] if one_task else predictions

    def _by_other(self, support_x: torch.Tensor, support_y: torch.Tensor, query_x: torch.Tensor, steps: int) -> torch.Tensor:
        """The outputs of another method after so many steps, or after all that it takes."""
        assert self.other is not None
        ways, tasks = self.recipe.train.ways, len(support_x)
        classes = None if ways is None else torch.arange(ways).expand(tasks, -1)
        query_y = support_y.new_zeros((tasks, query_x.shape[1], *support_y.shape[2:]))
        for step, predictions in enumerate(self.other.adapted(TaskBatch(support_x, support_y, query_x, query_y, classes=classes))):
            if step == min(steps, self.other.steps):
                outputs: torch.Tensor = predictions[""](query_x, None)
                return outputs
        raise AssertionError("an adapter predicts after every step")

    def _tensors(self, model_input: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        """The checked inputs with a task dimension, and whether it was added."""
        if not isinstance(model_input, dict) or not set(TENSORS) <= model_input.keys():
            raise invalid(f"the input is {_description(model_input)}: expected a dictionary with the arrays {', '.join(TENSORS)}")
        given = {name: np.asarray(model_input[name]) for name in TENSORS}
        if (size := sum(array.size for array in given.values())) > self.most_numbers:
            raise invalid(
                f"the arrays have {size} numbers: expected at most {self.most_numbers} together, as in fewer tasks at a time; the "
                f"environment variable {MOST_NUMBERS} of the process that predicts allows more"
            )
        support_x, support_y, query_x = (_numbers(name, array) for name, array in given.items())
        shape = self.recipe.shape.input_shape
        one_task = support_x.ndim == 1 + len(shape)
        lead = 1 if one_task else 2
        for name, array in (("support_x", support_x), ("query_x", query_x)):
            if array.ndim != lead + len(shape) or array.shape[lead:] != shape or 0 in array.shape:
                expected = ", ".join(str(size) for size in shape)
                raise invalid(
                    f"{name} has shape {array.shape}: expected [examples, {expected}] for one task, or [tasks, examples, "
                    f"{expected}] for a batch, and the same of the two for each input"
                )
        if not one_task and support_x.shape[0] != query_x.shape[0]:
            raise invalid(f"{support_x.shape[0]} tasks in support_x, {query_x.shape[0]} in query_x: expected as many")
        outputs = self.recipe.shape.outputs
        targets = support_x.shape[:lead] if self.learner.classification else (*support_x.shape[:lead], outputs)
        if support_y.shape != targets:
            raise invalid(f"support_y has shape {support_y.shape}: expected {targets}, a target for each example of support_x")
        if self.learner.classification:
            self._check_labels(support_y)
        x, y, q = (torch.from_numpy(array[None] if one_task else array) for array in (support_x, support_y, query_x))
        return x, y.long() if self.learner.classification else y, q, one_task

    def _check_labels(self, labels: npt.NDArray[np.float32]) -> None:
        ways = self.recipe.train.ways or 0
        wrong = labels[(labels != np.floor(labels)) | (labels < 0) | (labels >= ways)]
        if wrong.size:
            raise invalid(f"support_y has the label {wrong[0]:g}: expected whole numbers from 0 to {ways - 1}")


def _other(recipe: Recipe, parameters: Params) -> Any:
    """The adapter of the method that a recipe names."""
    module, _, name = recipe.method.partition(":")
    method = getattr(importlib.import_module(module), name)()
    return method.served(recipe.train, recipe.shape, recipe.inner_lr, recipe.most_steps, parameters)


def _limit(variable: str, otherwise: int) -> int:
    """A limit of the process, or else the model's own."""
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise invalid(f"the environment variable {variable} is {text!r}: expected a whole number")
    return int(text) if text else otherwise


def _numbers(name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    expected = "expected an array of numbers, each task with as many examples"
    if array.dtype == object:  # MLflow passes lists in this form
        try:
            array = np.array(array.tolist())
        except (TypeError, ValueError):  # rows of different lengths
            raise invalid(f"{name} is no array of one shape: {expected}") from None
    if array.dtype.kind not in "biuf":
        raise invalid(f"{name} holds {_KINDS.get(array.dtype.kind, 'objects that are no numbers')}: {expected}")
    with np.errstate(over="ignore"):  # numbers that are too large become infinite
        numbers = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise invalid(f"{name} has NaN, infinite or too large values: expected finite numbers")
    return numbers


def _description(value: Any) -> str:
    return f"a dictionary with {', '.join(map(str, value))}" if isinstance(value, dict) else f"of type {type(value).__name__}"


def unknown_parameters(names: list[str]) -> MlflowException:
    return invalid(f"unknown parameter {', '.join(map(repr, names))}: expected only steps")


def invalid(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


# MLflow advises to annotate `predict`, but would derive a signature from the annotations, without the parameter `steps`.
with warnings.catch_warnings(record=True):

    class FewShotLearner(PythonModel):
        """The adapter in MLflow's form."""

        def load_context(self, context: Any) -> None:
            recipe = Recipe.from_json(Path(context.artifacts["recipe"]).read_text())
            adapter = Adapter(recipe, load_file(context.artifacts["parameters"]))
            prepared = recipe.shape.preparation
            self.adapter: InUnits | Adapter = InUnits(adapter, prepared) if prepared else adapter
            _refuse_unknown_parameters(self)

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
            try:
                return self.adapter.predict(model_input, params or {})
            except ValueError as error:  # of a table's rows
                raise invalid(str(error)) from None


class _UnknownParameters(logging.Filter):
    """Turns MLflow's warning that it drops parameters missing from the signature into an error."""

    def __init__(self, model: FewShotLearner):
        super().__init__()
        self._model = weakref.ref(model)

    def filter(self, record: logging.LogRecord) -> bool:
        model = self._model()
        if model is None or record.funcName != "_enforce_params_schema" or "Unrecognized params" not in str(record.msg):
            return True
        frame: FrameType | None = sys._getframe()
        ignored: list[str] = []
        while frame is not None:
            if frame.f_code.co_name == record.funcName:
                ignored = sorted(frame.f_locals.get("ignored_keys", ()))
            asked = getattr(frame.f_locals.get("self"), "_model_impl", None)  # MLflow's own object around a model
            if getattr(asked, "python_model", None) is model:
                raise unknown_parameters(ignored)
            frame = frame.f_back
        return True


def _refuse_unknown_parameters(model: FewShotLearner) -> None:
    """Make a misspelt parameter an error instead of a prediction with the default. MLflow 3.17 has no other hook for this."""
    logger, refusal = logging.getLogger("mlflow.models.utils"), _UnknownParameters(model)
    logger.addFilter(refusal)
    weakref.finalize(model, logger.removeFilter, refusal)


set_model(FewShotLearner())
