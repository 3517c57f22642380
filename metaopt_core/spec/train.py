"""`train`: the meta-training of initial parameters, and the names of algorithms as presets of independent choices."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from metaopt_core.spec.base import MOST, Positive, Share, Spec, StepSize, Ways, as_tuple, ascending
from metaopt_core.spec.heads import ProcessSpec
from metaopt_core.spec.method import BaselineName
from metaopt_core.spec.networks import ModelSpec, PicturesSpec


class InnerSpec(Spec):
    """The inner loop: gradient descent on the support set, or a last layer that is solved for in closed form."""

    solver: Literal["gradient", "ridge", "gp"] = Field(
        "gradient",
        description="`gradient` takes the steps that other keys describe. `ridge` (R2-D2) and `gp` (DKT, ADKF) replace the "
        "network's last layer by ridge regression or a Gaussian process on its features, which are learned through the solution.",
    )
    prior: Literal["none", "pooled"] = Field(
        "none",
        description="Of `ridge` and `gp`: what the support set adapts. With `pooled`, it is the residual of a last layer that all "
        "tasks share, which is learned with the features.",
    )
    process: ProcessSpec | None = Field(None, description="The Gaussian process of `solver: gp`.")
    lr: StepSize = Field(0.01, description="Step size α of the inner loop; the initial value of learned step sizes.")
    steps: Positive = Field(1, description="Gradient steps from the initialization to the adapted parameters, in training.")
    learned_lr: Literal["none", "scalar", "per_layer_and_step", "per_parameter"] = Field(
        "none",
        description="Which step sizes the outer loop learns, with its own step size: none, one `scalar`, `per_layer_and_step`: one "
        "for each parameter tensor and inner step (MAML++), or `per_parameter`: one for each number (Meta-SGD).",
    )
    lr_bounds: Annotated[tuple[float, float], BeforeValidator(as_tuple), AfterValidator(ascending)] | None = Field(
        None, description="Learned step sizes are clipped to these bounds after every outer step; none means no bounds."
    )
    adapts: Literal["all", "head", "body"] | Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        "all",
        description="Which parameters the inner loop moves: `all`, only the `head`, which is the last layer (ANIL), only the "
        "`body`, which is the rest (BOIL), or a list of names, as in [conv3.*, linear.*].",
    )
    rule: Literal["gradient_descent", "momentum", "adam"] = Field(
        "gradient_descent", description="How a step uses a gradient; it is differentiated like the rest of the inner loop."
    )
    momentum: Annotated[float, Field(gt=0, lt=1)] = Field(0.9, description="μ of the rule `momentum`.")
    clip_norm: StepSize | None = Field(None, description="Largest norm of a task's gradient; none means no clipping.")
    minibatch: Positive | None = Field(
        None, description="Support examples of one inner step; each step takes the next ones. None means all of them in every step."
    )


class ShotsRange(Spec):
    """A range from which each training task draws its number of support examples."""

    low: Positive = Field(description="The fewest support examples (per class) of a training task.")
    high: Positive = Field(description="The most.")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.low < self.high:
            raise PydanticCustomError("range_order", "expected low to be less than high")
        return self


def _shots(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """One message for a value that neither type accepts, instead of pydantic's one for each type."""
    try:
        return validated(value)
    except ValidationError:
        if isinstance(value, dict):
            message = "expected low and high, two whole numbers of at least 1, the smaller one first, as in {low: 4, high: 50}"
            raise PydanticCustomError("shots_range", message) from None
        most = f"a whole number of at most {MOST}"
        few = "a whole number of at least 1, or two as in {low: 4, high: 50}"
        too_many = type(value) is int and value > MOST
        raise PydanticCustomError("shots", "expected {text}", {"text": most if too_many else few}) from None


Shots = Annotated[Positive | ShotsRange, WrapValidator(_shots)]


class ImplicitSpec(Spec):
    """The implicit meta-gradient (Rajeswaran et al. 2019)."""

    proximal: StepSize | None = Field(
        None,
        description="λ: the inner loss gets λ/2 times the squared distance from the initialization; none means 0.2 / `inner.lr`, "
        "so that each step goes a fifth of the way back.",
    )
    solver_steps: Positive = Field(
        5, description="Steps of conjugate gradients; the curve `solver_residual` shows the remaining residual."
    )


class OuterSpec(Spec):
    """The outer loop: Adam on the meta-gradient."""

    lr: StepSize = Field(0.001, description="Adam's step size.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="`cosine` lowers the step size to zero over the iterations."
    )
    clip_norm: StepSize | None = Field(None, description="Largest norm of the meta-gradient; none means no clipping.")


class ValidationSpec(Spec):
    """Meta-validation during training; the parameters with the lowest loss after `steps` steps are kept."""

    every: Positive = Field(1000, description="Iterations between two validations.")
    steps: Positive | None = Field(
        None,
        description="Adaptation steps: the horizon at which the model will be used; none means 10, or `inner.steps` if step sizes "
        "are learned for each step or parameter.",
    )
    shots: Positive | None = Field(
        None, description="Support examples a class; none means as in training, a number for each task if that is a range."
    )
    queries: Positive | None = Field(None, description="Query examples a class; none means as in training.")
    patience: Positive | None = Field(
        None, description="Training stops after this many validations in a row without a better loss; none means never."
    )


_SOLVED = {"meta_gradient": "exact", "outer_loss": "last_step", "first_order_share": 0.0, "backward": "auto", "implicit": None}
_ONE_STEP = {
    "steps": 1,
    "learned_lr": "none",
    "lr_bounds": None,
    "adapts": "all",
    "rule": "gradient_descent",
    "clip_norm": None,
    "minibatch": None,
}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "maml": {},
    "fomaml": {"meta_gradient": "first_order"},
    "reptile": {"meta_gradient": "reptile", "inner": {"steps": 5}},
    "anil": {"inner": {"adapts": "head", "steps": 5}},
    "boil": {"inner": {"adapts": "body"}},
    "meta-sgd": {"inner": {"learned_lr": "per_parameter"}, "validation": {"steps": None}},
    "maml++": {
        "outer_loss": "multi_step",
        "first_order_share": 0.3,
        "inner": {"learned_lr": "per_layer_and_step", "steps": 3},
        "validation": {"steps": None},
        "outer": {"schedule": "cosine"},
        "model": {"normalization": "per_step"},
    },
    "imaml": {"meta_gradient": "implicit", "inner": {"steps": 5, "clip_norm": 3.0}},
    "ridge": _SOLVED | {"inner": _ONE_STEP | {"solver": "ridge"}},
    "r2d2": _SOLVED | {"inner": _ONE_STEP | {"solver": "ridge"}},
    "dkt": _SOLVED | {"inner": _ONE_STEP | {"solver": "gp"}},
    "adkf": _SOLVED | {"inner": _ONE_STEP | {"solver": "gp", "process": {"kernel_parameters": "by_task", "trained_by": "queries"}}},
}
"""The presets that algorithm names stand for; `model` is left out for a network that doesn't normalize by a batch.

If a pipeline that extends another one names another algorithm, or `--set` does, the preset replaces these settings of the lower
layer. Settings beside the name override the preset. `validation.steps` of none is the matching horizon: the number of steps that
step sizes were learned for.
"""


# What results are stored under, apart from the labels, which change nothing that is stored.
_KEYS = {"anil": "anil", "boil": "boil", "meta-sgd": "meta-sgd", "maml++": "mamlpp"}
_KEYS_BY_META_GRADIENT = {"exact": "maml", "first_order": "fomaml", "reptile": "reptile", "implicit": "imaml"}

_KEYS_OF_SOLVED = {"R2-D2": "r2d2", "DKT": "dkt", "ADKF": "adkf"}

_LABELS = {"anil": "ANIL", "boil": "BOIL", "meta-sgd": "Meta-SGD", "maml++": "MAML++"}
_LABELS_BY_META_GRADIENT = {"exact": "MAML", "first_order": "FOMAML", "reptile": "Reptile", "implicit": "iMAML"}


class TrainSpec(Spec):
    """Meta-training."""

    @model_validator(mode="wrap")
    @classmethod
    def _named(cls, values: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in the algorithm's preset where the spec sets nothing itself. These values count as not set."""
        name = values.get("algorithm") if isinstance(values, dict) else None
        if not isinstance(name, str):
            return validated(values)
        choices, model = ALGORITHMS.get(name, {}), values.get("model")
        pictures = model.get("name") in ("conv4", "resnet12") if isinstance(model, dict) else isinstance(model, PicturesSpec)
        if not pictures or (isinstance(model, dict) and "batch_norm" in model):
            choices = {key: value for key, value in choices.items() if key != "model"}
        made = validated(_under(values, choices))
        _unset(made, values, choices)
        return made

    model: ModelSpec = Field(description="The network whose initial parameters are learned.")
    iterations: Positive = Field(description="Steps of the outer loop.")
    meta_batch_size: Positive = Field(25, description="Tasks per outer step.")
    ways: Ways | None = Field(None, description="Classes of a task (classification only).")
    shots: Shots = Field(
        description="Support examples (per class) that a task is adapted on; with {low: 4, high: 50} every training task draws its "
        "own number, so that one model serves all of them."
    )
    queries: Positive = Field(description="Query examples (per class) that judge the adapted parameters.")
    reduction: Literal["mean", "sum_over_ways"] = Field(
        "mean",
        description="How a task's losses are reduced: `mean` over its examples, or that times the number of ways, as in the 2017 "
        "code, which acts like a step size `ways` times as large.",
    )
    algorithm: Literal[
        "maml", "fomaml", "reptile", "anil", "boil", "meta-sgd", "maml++", "imaml", "ridge", "r2d2", "dkt", "adkf"
    ] = Field(
        "maml",
        description="A preset for several of the choices below. Explicit settings override it.",
    )
    meta_gradient: Literal["exact", "first_order", "reptile", "implicit"] = Field(
        "exact",
        description="`exact`, through the inner loop (MAML); `first_order`, without second derivatives (FOMAML); `reptile`, the "
        "direction that the inner loop took on all examples of a task; `implicit`, from the end of the inner loop only (iMAML).",
    )
    outer_loss: Literal["last_step", "multi_step"] = Field(
        "last_step",
        description="Which query losses count: after the `last_step`, or (MAML++) after every step, with equal weights at first "
        "and then with increasing weight on the last.",
    )
    multi_step_share: Share = Field(
        0.15, description="Share of the iterations, from the first, in which `multi_step` counts more than the last step."
    )
    first_order_share: Share = Field(
        0.0, description="Share of the iterations, from the first, in which `exact` leaves out second derivatives (MAML++)."
    )
    implicit: ImplicitSpec | None = Field(None, description="The implicit meta-gradient's own settings.")
    inner: InnerSpec = Field(InnerSpec(), description="The inner loop.")
    outer: OuterSpec = Field(OuterSpec(), description="The outer loop.")
    validation: ValidationSpec = Field(ValidationSpec(), description="Meta-validation during training.")
    baselines: Annotated[tuple[BaselineName, ...], BeforeValidator(as_tuple)] | None = Field(
        None,
        description="Baselines to compare with: `pretrained` on all tasks together, `protonet`, the nearest class mean in a "
        "learned embedding (classification only), or your own by import path; none means all shipped ones that apply.",
    )
    pretrain_iterations: Positive | None = Field(
        None, description="Iterations of each baseline; none means as many as `iterations`."
    )
    backward: Literal["auto", "recursion", "unrolled"] = Field(
        "auto",
        description="Whether inner steps are kept for the backward pass (`unrolled`) or recomputed (`recursion`: memory does not "
        "grow with them); the exact meta-gradient is the same. `auto` keeps them where they fit into memory, which is faster.",
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="How a GPU computes the network in training; parameters and both loops' updates are float32. A CPU computes in "
        "float32 regardless.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether torch.compile compiles the meta-gradient; `auto` does so for long training runs if the network has no "
        "compiled loops of its own.",
    )
    checkpoint_every: StepSize = Field(
        30.0, description="Seconds between two checkpoints. It does not affect the result, so changing it re-runs nothing."
    )

    @property
    def proximal(self) -> float:
        """λ of the implicit meta-gradient."""
        return (self.implicit or ImplicitSpec()).proximal or 0.2 / self.inner.lr

    @property
    def most_shots(self) -> int:
        """Support examples of a training task (per class), or the most of them."""
        return self.shots.high if isinstance(self.shots, ShotsRange) else self.shots

    @property
    def fewest_shots(self) -> int | None:
        """The fewest support examples of a training task, where each draws its own number."""
        return self.shots.low if isinstance(self.shots, ShotsRange) else None

    @property
    def learns_sizes(self) -> bool:
        """Whether there are learned step sizes that fit only the steps of training."""
        return self.inner.learned_lr in {"per_parameter", "per_layer_and_step"}

    @property
    def solved(self) -> bool:
        """Whether a head is solved for in closed form, instead of gradient steps."""
        return self.inner.solver != "gradient"

    @property
    def label(self) -> str:
        """The algorithm's name as people write it."""
        if self.inner.solver == "ridge":
            return "R2-D2"
        if self.inner.solver == "gp":
            return "ADKF" if (self.inner.process or ProcessSpec()).kernel_parameters == "by_task" else "DKT"
        return _LABELS.get(self.algorithm) or _LABELS_BY_META_GRADIENT[self.meta_gradient]

    @property
    def slug(self) -> str:
        """Its name in results, files and metrics."""
        if self.solved:
            return _KEYS_OF_SOLVED[self.label]
        return _KEYS.get(self.algorithm) or _KEYS_BY_META_GRADIENT[self.meta_gradient]


def without_what_it_brings(algorithm: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """A lower layer's `train` block below one that names another algorithm, without the settings that the preset replaces."""
    return _without(block, ALGORITHMS.get(algorithm, {}))


def _without(block: Mapping[str, Any], brought: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in block.items():
        if key in brought and isinstance(brought[key], Mapping) and isinstance(value, Mapping):
            kept[key] = _without(value, brought[key])
        elif key not in brought:
            kept[key] = value
    return kept


def _under(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Values with defaults for what they leave out, key by key at every depth."""
    filled = dict(values)
    for key, default in defaults.items():
        own = values.get(key)
        if isinstance(default, dict) and isinstance(own, dict):
            filled[key] = _under(own, default)
        elif isinstance(default, dict) and isinstance(own, BaseModel):
            filled[key] = own.model_copy(
                update={name: value for name, value in default.items() if name not in own.model_fields_set}
            )
        else:
            filled.setdefault(key, default)
    return filled


def _unset(made: BaseModel, said: dict[str, Any], filled: dict[str, Any]) -> None:
    """Mark what was filled in as not set, at every depth."""
    for key, value in filled.items():
        if key not in said:
            made.model_fields_set.discard(key)
        elif isinstance(value, dict) and isinstance(said[key], dict):
            _unset(getattr(made, key), said[key], value)
        elif isinstance(value, dict) and isinstance(said[key], BaseModel):
            getattr(made, key).model_fields_set.difference_update(value.keys() - said[key].model_fields_set)
