"""Writing the logged model: its signature, its description, and the code and libraries that it needs.

In the signature each tensor is an `object` of shape (-1,), MLflow's type for any array: its tensor types fix the number of
dimensions, so they would refuse either one task or a batch, and also float64. The model checks shapes and types itself.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Literal

import mlflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.method import MethodInfo, import_path
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.tracking.logged_model import MOST_NUMBERS, MOST_STEPS, TENSORS, Recipe
from metaopt_core.tracking.model_code import MODEL, of_pipeline


def recipe(spec: PipelineSpec, shape: TaskShape, model: str | None = None, inner_lr: float | None = None) -> Recipe:
    """How the logged model of a pipeline adapts.

    model: the key of its method, none means the one that the spec names. inner_lr: with which that was evaluated.
    """
    train = spec.train.model_copy(update={"baselines": None})  # the logged model has none
    method, lr = method_of(spec, model), inner_lr or spec.evaluate_inner_lr
    if method.of_model:
        adaptation: Literal["plain", "safe"] = "safe" if method.of_model == "safe" else "plain"
        steps = 1 if train.solved else spec.horizon
        return Recipe(train, shape, spec.evaluate_inner_lr, adaptation, steps)
    steps = spec.horizon if method.takes_steps else 0
    return Recipe(train, shape, lr, "plain", steps, import_path(method))


def method_of(spec: PipelineSpec, model: str | None) -> MethodInfo:
    """The method of a key, or else the one that the spec names for the logged model."""
    wanted = model or spec.model_method
    return next(method for method in spec.methods if method.key(spec.train) == wanted)


def save(
    spec: PipelineSpec,
    shape: TaskShape,
    parameters: Path,
    folder: Path,
    run_id: str | None = None,
    model_id: str | None = None,
    model: str | None = None,
    inner_lr: float | None = None,
) -> None:
    """Write the model into a folder that doesn't exist yet.

    parameters: the safetensors file of the method's parameters. run_id, model_id: where MLflow will keep it, for its description.
    model, inner_lr: as in `recipe`.
    """
    made = recipe(spec, shape, model, inner_lr)
    taken = of_pipeline(spec, made.method)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        beside = Path(name)
        (beside / "recipe.json").write_text(made.to_json())
        (beside / "code").mkdir()
        warnings.filterwarnings("ignore", message=r"(?s).*An input example was not provided", category=UserWarning)
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(MODEL),
            artifacts={"parameters": str(parameters), "recipe": str(beside / "recipe.json")},
            code_paths=[str(path) for path in taken.copy(beside / "code")],
            signature=signature(made),
            pip_requirements=list(taken.requirements),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            metadata=description(made),
        )


def signature(recipe: Recipe) -> ModelSignature:
    """The three named tensors, the predictions, and the parameter `steps` with the spec's own number as its default."""
    anything: list[ColSpec | TensorSpec] = [TensorSpec(np.dtype(object), (-1,), name) for name in TENSORS]
    outputs = recipe.shape.outputs_for(recipe.train.ways)
    return ModelSignature(
        inputs=Schema(anything),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, outputs))]),
        params=ParamSchema([ParamSpec("steps", DataType.long, recipe.steps)]),
    )


def description(recipe: Recipe) -> dict[str, str]:
    """In words, what the signature can't express."""
    x, ways = f"[examples, {', '.join(map(str, recipe.shape.input_shape))}]", recipe.train.ways
    y = f"[examples], labels 0 to {ways - 1}" if ways else f"[examples, {recipe.shape.outputs}]"
    predictions = f"[queries, {ways}], probabilities of the classes" if ways else f"[queries, {recipe.shape.outputs}]"
    return {
        "support_x": x,
        "support_y": y,
        "query_x": x,
        "predictions": predictions,
        "batch": "for a batch of tasks, each has one more leading dimension",
        "steps": f"0 to {recipe.most_steps}; {MOST_STEPS} in the environment of the process that predicts allows more",
        "size": f"at most {recipe.most_numbers} numbers in the three arrays together; {MOST_NUMBERS} allows more",
    }
