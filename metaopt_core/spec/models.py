"""What `pipelines.yaml` may say: one frozen, strict model a stage.

These models know every default, and no default is written anywhere else. They are also the parameters of the Prefect flows, so a
spec that arrives through Prefect's API meets the same rules as one that was read from a file.
"""

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

DRAWINGS_PER_CHARACTER = 20  # Omniglot: every character was drawn once by each of 20 people
CHARACTERS = 1623  # Omniglot: 964 background and 659 evaluation characters


class Spec(BaseModel):
    """Base of all: unknown keys and silently converted types are errors, and nothing changes after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    if type(value) is not int:  # a Literal of numbers would take 4.0 and true
        raise PydanticCustomError("whole", "expected 1, 2 or 4")
    return value


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise PydanticCustomError("range_order", "expected two numbers, the smaller one first")
    return bounds


Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
StepSize = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[float, float], BeforeValidator(_as_tuple), AfterValidator(_ascending)]


# --- generate -----------------------------------------------------------------------------------------------------------


class HeldOut(Spec):
    """Tasks that are drawn once, in `generate`, and are the same for every model that is ever compared on them."""

    validation_tasks: Positive = Field(200, description="Meta-validation tasks: they choose the best checkpoint.")
    test_tasks: Positive = Field(1000, description="Meta-test tasks: they are seen by `evaluate` alone.")


class RegressionSpec(Spec):
    """What distributions of functions of one number have in common."""

    distribution: Literal["sinusoid", "mixture"] = Field(description="Which p(T): where tasks come from.")
    x: Range = Field((-5.0, 5.0), description="Bounds of the uniform inputs.")
    noise: NotNegative = Field(
        0.0,
        description="Standard deviation of the normal noise on every observed y. The queries of held-out tasks have none: their "
        "error is that of the function.",
    )
    amplitude: Range = Field((0.1, 5.0), description="Sinusoids: bounds of the uniform amplitude.")
    phase: Range = Field((0.0, math.pi), description="Sinusoids: bounds of the uniform phase, in radians.")
    support_points: Positive = Field(
        20, description="Support points stored with each held-out task; evaluation with K shots uses the first K."
    )
    held_out: HeldOut = Field(HeldOut(), description="The tasks that are drawn once.")


class SinusoidSpec(RegressionSpec):
    """Sinusoid regression, y = amplitude · sin(x − phase) (Finn, Abbeel, Levine 2017, section 5.1)."""

    distribution: Literal["sinusoid"] = Field(description="Which p(T): where tasks come from.")


class Families(Spec):
    """How often each family of functions is drawn, relative to the others."""

    line: NotNegative = Field(0.0, description="y = slope · x + offset.")
    quadratic: NotNegative = Field(0.0, description="y = curvature · (x − vertex)² + offset.")
    sinusoid: NotNegative = Field(0.0, description="y = amplitude · sin(x − phase).")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(weight for _, weight in self):
            raise PydanticCustomError("families", "expected a number greater than 0 for line, quadratic or sinusoid")
        return self


class MixtureSpec(RegressionSpec):
    """Regression of lines, quadratics and sinusoids, each task of one family (Finn, Xu, Levine 2018; Vuorio et al. 2019)."""

    distribution: Literal["mixture"] = Field(description="Which p(T): where tasks come from.")
    families: Families = Field(
        Families(line=1.0, quadratic=1.0, sinusoid=1.0),
        description="How often each family is drawn, relative to the others; one that is not named is left out.",
    )
    slope: Range = Field((-3.0, 3.0), description="Lines: bounds of the uniform slope.")
    curvature: Range = Field((-0.15, 0.15), description="Quadratics: bounds of the uniform factor of the square.")
    vertex: Range = Field((-3.0, 3.0), description="Quadratics: bounds of the uniform x of the vertex.")
    offset: Range = Field((-3.0, 3.0), description="Lines and quadratics: bounds of the uniform number that is added.")


class CharacterSplit(Spec):
    """How many Omniglot characters each split gets; the splits share no character."""

    train: Positive = Field(1100, description="Characters of the meta-training tasks.")
    validation: Positive = Field(100, description="Characters of the meta-validation tasks.")
    test: Positive = Field(423, description="Characters of the meta-test tasks.")
    new_alphabets: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Characters, at least, of whole alphabets that no other split has any of; for the shifted test tasks with "
        "`alphabets: new`.",
    )


class OmniglotSpec(Spec):
    """Omniglot (Lake et al. 2015), split by character or by alphabet; each rotation of a character is a class of its own."""

    distribution: Literal["omniglot"] = Field(description="Which p(T): where tasks come from.")
    folder: str | None = Field(
        None,
        description="Folder with images_background.zip and images_evaluation.zip, or with the unpacked trees. Without it the "
        "environment variable METAOPT_OMNIGLOT is asked, and then the archives are downloaded.",
    )
    split_by: Literal["character", "alphabet"] = Field(
        "character",
        description="What is held out: single characters, or whole alphabets. Then validation and test have at least their numbers "
        "of characters, and train has what is left, or at least its number.",
    )
    characters: CharacterSplit = Field(CharacterSplit(), description="Characters in each split.")
    rotations: Annotated[Literal[1, 2, 4], BeforeValidator(_whole)] = Field(
        4, description="Classes made of a character: 1 as drawn, 2 with 180°, 4 with every 90°."
    )
    held_out_ways: Positive = Field(20, description="Classes stored with each held-out task; a model of N ways uses the first N.")
    held_out: HeldOut = Field(HeldOut(), description="The tasks that are drawn once.")


GenerateSpec = Annotated[SinusoidSpec | MixtureSpec | OmniglotSpec, Field(discriminator="distribution")]


# --- train --------------------------------------------------------------------------------------------------------------


class MLPSpec(Spec):
    """Fully connected network with ReLU between its layers."""

    name: Literal["mlp"] = Field(description="Which network.")
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(_as_tuple)] = Field(
        (40, 40), description="Units of each hidden layer."
    )


class _Pictures(Spec):
    """What convolutional networks have in common."""

    name: Literal["conv4", "resnet12"] = Field(description="Which network.")

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        """`batch_norm: transductive` is how `normalization: transductive` used to be written."""
        if isinstance(values, dict) and values.get("batch_norm") == "transductive":
            kept = {key: value for key, value in values.items() if key != "batch_norm"}
            return {"normalization": "transductive", **kept}
        return values

    normalization: Literal["transductive", "per_step", "group", "layer", "none"] = Field(
        "transductive",
        description="Whose statistics normalize: `transductive` is batch norm by those of the current batch, the query batch "
        "included, as in the paper; `per_step` is the same with a scale and a shift for each inner step (MAML++); `group` and "
        "`layer` are by those of each example alone; `none` adds a bias instead.",
    )
    groups: Positive = Field(8, description="Groups of filters, for the normalization `group`.")

    @property
    def normalized_by(self) -> str:
        """The normalization in words, as results state it."""
        return {
            "transductive": "transductive batch norm",
            "per_step": "per-step batch norm, of baselines the same in all steps",
            "group": f"group norm of {self.groups} groups",
            "layer": "layer norm",
            "none": "no normalization",
        }[self.normalization]


class Conv4Spec(_Pictures):
    """Four blocks of 3×3 convolution, normalization and ReLU, then a linear layer (Finn et al. 2017, sections 5.2 and 5.3)."""

    name: Literal["conv4"] = Field(description="Which network.")
    filters: Positive = Field(64, description="Filters of each convolution.")
    pooling: bool = Field(
        False,
        description="False: convolutions with stride 2, as the paper has it for Omniglot. True: with stride 1, then 2×2 "
        "max-pooling, as it has it for natural pictures, with 32 filters.",
    )

    @property
    def every_width(self) -> tuple[int, ...]:
        return (self.filters,)


class ResNet12Spec(_Pictures):
    """ResNet-12: residual blocks of three 3×3 convolutions, each block followed by 2×2 max-pooling (Lee et al. 2019)."""

    name: Literal["resnet12"] = Field(description="Which network.")
    widths: Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(_as_tuple)] = Field(
        (64, 128, 256, 512), description="Filters of each block's convolutions."
    )

    @property
    def every_width(self) -> tuple[int, ...]:
        return self.widths


def _import_path(path: str) -> str:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", path):
        raise PydanticCustomError("import_path", "expected module:Class, as in mypackage.nets:Net")
    return path


class ModuleSpec(Spec):
    """A torch.nn.Module of the user's own. Its class takes `outputs` by name, their number, and `input_shape` if it wants to."""

    name: Literal["module"] = Field(description="Which network.")
    path: Annotated[str, AfterValidator(_import_path)] = Field(
        description="Where its class is imported from, as in mypackage.nets:Net; beside the pipelines file, or on Python's path."
    )
    arguments: dict[str, Any] = Field({}, description="Further arguments of the class, by name.")


ModelSpec = Annotated[MLPSpec | Conv4Spec | ResNet12Spec | ModuleSpec, Field(discriminator="name")]


class InnerSpec(Spec):
    """The inner loop: gradient descent on the support set."""

    lr: StepSize = Field(0.01, description="Step size α of the inner loop, or where learned step sizes begin.")
    steps: Positive = Field(1, description="Gradient steps from the initialization to the adapted parameters, in training.")
    learned_lr: Literal["none", "scalar", "per_layer_and_step", "per_parameter"] = Field(
        "none",
        description="Which step sizes the outer loop learns, by its own step size: none, one `scalar`, `per_layer_and_step` one "
        "for each tensor of parameters and inner step (MAML++), or `per_parameter` one for each number in them (Meta-SGD).",
    )
    lr_bounds: Annotated[tuple[float, float], BeforeValidator(_as_tuple), AfterValidator(_ascending)] | None = Field(
        None, description="Learned step sizes are kept between these two after every outer step; none means that they are free."
    )
    adapts: Literal["all", "head", "body"] | Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_tuple)] = Field(
        "all",
        description="Which parameters the inner loop moves: `all`, the `head` alone, which is the last layer (ANIL), the `body` "
        "alone, which is all the rest (BOIL), or a list of names, as in [conv3.*, linear.*].",
    )
    rule: Literal["gradient_descent", "momentum", "adam"] = Field(
        "gradient_descent", description="What a step makes of a gradient; it is differentiated like all of the inner loop."
    )
    momentum: Annotated[float, Field(gt=0, lt=1)] = Field(0.9, description="μ of the rule `momentum`.")
    clip_norm: StepSize | None = Field(None, description="Largest norm of a task's gradient; none means no clipping.")
    minibatch: Positive | None = Field(
        None, description="Support examples of an inner step, which takes the next ones; none means all of them in every step."
    )


class ImplicitSpec(Spec):
    """The implicit meta-gradient (Rajeswaran et al. 2019)."""

    proximal: StepSize = Field(2.0, description="λ: the inner loss gets λ/2 times the squared distance from the initialization.")
    solver_steps: Positive = Field(
        5, description="Steps of conjugate gradients; `solver_residual` in the curves says what is left."
    )


class OuterSpec(Spec):
    """The outer loop: Adam on the meta-gradient."""

    lr: StepSize = Field(0.001, description="Adam's step size.")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="`cosine` lets the step size fall to zero over the iterations."
    )
    clip_norm: StepSize | None = Field(None, description="Largest norm of the meta-gradient; none means no clipping.")


class ValidationSpec(Spec):
    """Meta-validation during training; the parameters with the lowest loss after `steps` steps are the ones that are kept."""

    every: Positive = Field(1000, description="Iterations between two validations.")
    steps: Positive = Field(10, description="Adaptation steps: the horizon at which the model will be used.")
    shots: Positive | None = Field(None, description="Support examples a class; none means as in training.")
    queries: Positive | None = Field(None, description="Query examples a class; none means as in training.")
    patience: Positive | None = Field(
        None, description="Validations in a row without a better loss after which training stops; none means that it never does."
    )


ALGORITHMS: dict[str, dict[str, Any]] = {
    "maml": {},
    "fomaml": {"meta_gradient": "first_order"},
    "reptile": {"meta_gradient": "reptile"},
    "anil": {"inner": {"adapts": "head"}},
    "boil": {"inner": {"adapts": "body"}},
    "meta-sgd": {"inner": {"learned_lr": "per_parameter"}},
    "maml++": {
        "outer_loss": "multi_step",
        "first_order_share": 0.3,
        "inner": {"learned_lr": "per_layer_and_step"},
        "outer": {"schedule": "cosine"},
        "model": {"normalization": "per_step"},
    },
    "imaml": {"meta_gradient": "implicit"},
}
"""What the names of algorithms stand for; a network that doesn't normalize by a batch has none of `model`."""


_LABELS = {"anil": "ANIL", "boil": "BOIL", "meta-sgd": "Meta-SGD", "maml++": "MAML++"}
_LABELS_BY_META_GRADIENT = {"exact": "MAML", "first_order": "FOMAML", "reptile": "Reptile", "implicit": "iMAML"}


class TrainSpec(Spec):
    """Meta-training."""

    @model_validator(mode="wrap")
    @classmethod
    def _named(cls, values: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in what the algorithm's name stands for, where the spec says nothing itself. It counts as not set."""
        name = values.get("algorithm") if isinstance(values, dict) else None
        if not isinstance(name, str):
            return validated(values)
        choices, model = ALGORITHMS.get(name, {}), values.get("model")
        if not (isinstance(model, dict) and model.get("name") in ("conv4", "resnet12")) or "batch_norm" in model:
            choices = {key: value for key, value in choices.items() if key != "model"}
        made = validated(_under(values, choices))
        _unset(made, values, choices)
        return made

    model: ModelSpec = Field(description="The network whose initial parameters are learned.")
    iterations: Positive = Field(description="Steps of the outer loop.")
    meta_batch_size: Positive = Field(25, description="Tasks per outer step.")
    ways: Annotated[int, Field(ge=2)] | None = Field(None, description="Classes of a task (classification only).")
    shots: Positive = Field(description="Support examples (per class) that a task is adapted on.")
    queries: Positive = Field(description="Query examples (per class) that judge the adapted parameters.")
    reduction: Literal["mean", "sum_over_ways"] = Field(
        "mean",
        description="How a task's losses become one: `mean` over its examples, or that times the number of ways, as the 2017 code "
        "does, which acts like a step size `ways` times as large.",
    )
    algorithm: Literal["maml", "fomaml", "reptile", "anil", "boil", "meta-sgd", "maml++", "imaml"] = Field(
        "maml",
        description="A name for several of the choices below. A choice that is made itself goes before what the name stands for.",
    )
    meta_gradient: Literal["exact", "first_order", "reptile", "implicit"] = Field(
        "exact",
        description="`exact`, through the inner loop (MAML); `first_order`, without second derivatives (FOMAML); `reptile`, the "
        "way that the inner loop went on all examples of a task; `implicit`, from where the inner loop ends alone (iMAML).",
    )
    outer_loss: Literal["last_step", "multi_step"] = Field(
        "last_step",
        description="Which query losses count: after the `last_step`, or (MAML++) after every step, all alike at first and then "
        "the last one ever more.",
    )
    multi_step_share: Share = Field(
        0.15, description="Share of the iterations in which `multi_step` counts more than the last step."
    )
    first_order_share: Share = Field(
        0.0, description="Share of the iterations, from the first, in which `exact` leaves out second derivatives (MAML++)."
    )
    implicit: ImplicitSpec | None = Field(None, description="The implicit meta-gradient's own settings.")
    inner: InnerSpec = Field(InnerSpec(), description="The inner loop.")
    outer: OuterSpec = Field(OuterSpec(), description="The outer loop.")
    validation: ValidationSpec = Field(ValidationSpec(), description="Meta-validation during training.")
    baselines: Annotated[tuple[Literal["pretrained", "protonet"], ...], BeforeValidator(_as_tuple)] | None = Field(
        None,
        description="Baselines that are trained as well: `pretrained` on all tasks together, and `protonet`, the nearest class "
        "mean in a learned embedding (classification only); none means all that apply.",
    )
    pretrain_iterations: Positive | None = Field(
        None, description="Iterations of each of the baselines; none means as many as `iterations`."
    )
    backward: Literal["auto", "recursion", "unrolled"] = Field(
        "auto",
        description="Whether inner steps are kept for the way back (`unrolled`) or made again (`recursion`: memory does not grow "
        "with them); the exact meta-gradient is the same. `auto` takes what is quicker by measurement, and fits into memory.",
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="How a GPU computes the network in training; parameters and both loops' updates are float32. A CPU computes in "
        "float32 whatever this says.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether torch.compile makes the meta-gradient's functions; `auto` does it for long trainings where the "
        "network has no compiled loops of its own.",
    )
    checkpoint_every: StepSize = Field(
        30.0, description="Seconds between two checkpoints. Does not change the result, so changing it re-runs nothing."
    )

    @property
    def label(self) -> str:
        """The algorithm's name as people write it."""
        return _LABELS.get(self.algorithm) or _LABELS_BY_META_GRADIENT[self.meta_gradient]


# --- evaluate, log ------------------------------------------------------------------------------------------------------

IN_DISTRIBUTION = "in-distribution"
"""The name of the test tasks that are not shifted, where results say which ones they are of."""


class ShiftSpec(Spec):
    """What a variant of the test tasks changes: settings of `generate` that training does not know, and of the protocol."""

    distribution: Literal["sinusoid", "mixture"] | None = Field(None, description="Regression: another kind of functions.")
    x: Range | None = Field(None, description="Regression: other bounds of the inputs.")
    noise: NotNegative | None = Field(None, description="Regression: other noise on the support points.")
    amplitude: Range | None = Field(None, description="Sinusoids: other bounds of the amplitude.")
    phase: Range | None = Field(None, description="Sinusoids: other bounds of the phase.")
    families: Families | None = Field(None, description="Mixture: other frequencies of the families.")
    slope: Range | None = Field(None, description="Mixture: other bounds of the slope of lines.")
    curvature: Range | None = Field(None, description="Mixture: other bounds of the curvature of quadratics.")
    vertex: Range | None = Field(None, description="Mixture: other bounds of the vertex of quadratics.")
    offset: Range | None = Field(None, description="Mixture: other bounds of what is added to lines and quadratics.")
    alphabets: Literal["new"] | None = Field(
        None, description="Omniglot: characters of the alphabets that `characters.new_alphabets` keeps apart."
    )
    ways: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Classification: another number of classes. Further outputs start as those that were learned, one by one.",
    )
    shots: Positive | None = Field(None, description="Another number of support examples (per class).")
    queries: Positive | None = Field(None, description="Another number of query examples (per class).")

    @model_serializer(mode="wrap")
    def _what_is_said(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}

    def of(self, generate: GenerateSpec) -> GenerateSpec:
        """The distribution with what is shifted; what does not apply to it is left out."""
        kind = _KINDS[self.distribution or generate.distribution]
        kept, changed = ({key: value for key, value in spec if key in kind.model_fields} for spec in (generate, self))
        return kind.model_validate(kept | {key: value for key, value in changed.items() if value is not None})


_KINDS: dict[str, type[SinusoidSpec] | type[MixtureSpec] | type[OmniglotSpec]] = {
    "sinusoid": SinusoidSpec,
    "mixture": MixtureSpec,
    "omniglot": OmniglotSpec,
}


def _variant_names(shifts: dict[str, Any]) -> dict[str, Any]:
    for name in shifts:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == IN_DISTRIBUTION:
            message = "expected names of lower-case letters, digits, _ and -, a letter or digit first, other than in-distribution"
            raise PydanticCustomError("variant_name", message)
    return shifts


class EvaluateSpec(Spec):
    """Few-shot adaptation to every meta-test task, for the learned parameters and for each baseline."""

    steps: Positive = Field(
        10,
        description="Adaptation steps; every number from 0 to this is recorded. Methods are compared after "
        "`train.validation.steps` of them, or after the last where these are fewer.",
    )
    shots: Positive | None = Field(None, description="Support examples (per class); none means as in training.")
    queries: Positive | None = Field(
        None, description="Query examples (per class), for sinusoids on an even grid; none means as in training."
    )
    inner_lr: StepSize | None = Field(
        None,
        description="Step size of adaptation; none means as in training. Learned step sizes stay.",
    )
    baseline_lrs: Annotated[tuple[StepSize, ...], Field(min_length=1), BeforeValidator(_as_tuple)] | None = Field(
        None,
        description="Step sizes from which each baseline takes the one that is best on the meta-validation tasks; none means 0.03, "
        "0.1, 0.3, 1, 3 and 10 times that of the inner loop.",
    )
    adaptation: Literal["plain", "safe"] = Field(
        "plain",
        description="How the logged model adapts: `plain` gradient descent, or `safe`, with step sizes that halve until the "
        "support loss falls, and stopping once adaptation surely harms a held-out part of a support set of 25 or more. Both are "
        "evaluated.",
    )
    shifted: Annotated[dict[str, ShiftSpec | None], AfterValidator(_variant_names)] | None = Field(
        None,
        description="Variants of the test tasks that differ from what was trained on, by name; each says what it changes. One that "
        "is null is left out.",
    )

    @property
    def method(self) -> str:
        """The method of the results that the logged model adapts by."""
        return "maml" if self.adaptation == "plain" else "maml_safe"


def _under(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Values with defaults for what they leave out, key by key at every depth."""
    filled = dict(values)
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(values.get(key), dict):
            filled[key] = _under(values[key], default)
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


def _model_name(name: str) -> str:
    if not re.fullmatch(r"[\w .-]*\w[\w .-]*", name):
        raise PydanticCustomError("model_name", "expected a name of letters, digits, spaces and the signs _ . - alone")
    return name


class LogSpec(Spec):
    """The MLflow run of an execution."""

    tracking_uri: str | None = Field(
        None, description="MLflow server; none means the environment variable MLFLOW_TRACKING_URI, else the embedded store."
    )
    experiment: str | None = Field(None, min_length=1, description="MLflow experiment; none means the pipeline's name.")
    register_as: Annotated[str, AfterValidator(_model_name)] | None = Field(
        None, description="Registered model that gets a version; none means no version."
    )


# --- schedule -----------------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"([0-9]{1,6})\s*([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _cron(expression: str) -> str:
    try:
        if len(expression.split()) != 5:
            raise CronSimError("Wrong number of fields")
        CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        why = {"why": str(error).lower()}
        raise PydanticCustomError("cron", "expected a cron expression of five fields, as in 0 3 * * * ({why})", why) from None
    return expression


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError("timezone", "expected an IANA time zone, as in Europe/Berlin") from None
    return name


def _duration(text: str) -> str:
    match = _DURATION.fullmatch(text)
    if not match or int(match[1]) == 0:
        raise PydanticCustomError("duration", "expected a whole number and s, m, h or d, as in 6h")
    return text


def _seconds(duration: str) -> int:
    match = _DURATION.fullmatch(duration)
    assert match is not None  # the validator has seen to it
    return int(match[1]) * _UNIT_SECONDS[match[2]]


class CronSchedule(Spec):
    """Runs at the times of a cron expression."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(description="Cron expression of five fields.")
    timezone: Annotated[str, AfterValidator(_timezone)] = Field("UTC", description="IANA time zone, such as Europe/Berlin.")


class IntervalSchedule(Spec):
    """Runs again and again after a fixed time."""

    every: Annotated[str, AfterValidator(_duration)] = Field(
        description="Time between two starts: a number and s, m, h or d, as in 6h."
    )

    @property
    def seconds(self) -> int:
        return _seconds(self.every)


def _kind_of_schedule(value: Any) -> str | None:
    """The tag of a schedule: the one of `cron` and `every` that is given."""
    given = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    kinds = [kind for kind in ("cron", "every") if kind in given]
    return kinds[0] if len(kinds) == 1 else None


ScheduleSpec = Annotated[
    Annotated[CronSchedule, Tag("cron")] | Annotated[IntervalSchedule, Tag("every")],
    Discriminator(
        _kind_of_schedule,
        custom_error_type="schedule",
        custom_error_message="expected a mapping with either cron or every",
    ),
]


# --- sweep --------------------------------------------------------------------------------------------------------------


class RangeSpec(Spec):
    """Numbers from `low` to `high`, both included; whole ones where the key takes no other."""

    low: float = Field(description="Smallest value.")
    high: float = Field(description="Largest value.")
    log: bool = Field(False, description="Whether the search goes by the logarithm, as suits step sizes.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise PydanticCustomError("bounds", "expected low to be less than high, and greater than 0 where log is true")
        return self


class ChoicesSpec(Spec):
    """One of some values, in no order."""

    choices: Annotated[tuple[Any, ...], Field(min_length=2), BeforeValidator(_as_tuple)] = Field(
        description="The values; a list or a whole block can be one."
    )


def _kind_of_parameter(value: Any) -> str | None:
    """The tag of a parameter: `low` for a range, or `choices`."""
    given = set(value if isinstance(value, dict) else getattr(value, "model_fields_set", ()))
    if "choices" in given:
        return None if given & {"low", "high", "log"} else "choices"
    return "low" if given & {"low", "high"} else None


ParameterSpec = Annotated[
    Annotated[RangeSpec, Tag("low")] | Annotated[ChoicesSpec, Tag("choices")],
    Discriminator(
        _kind_of_parameter,
        custom_error_type="parameter",
        custom_error_message="expected a mapping with either low and high, or choices",
    ),
]


class ObjectiveSpec(Spec):
    """What the best trial is best at: what `evaluate` measures, but on the meta-validation tasks."""

    metric: Literal["loss", "accuracy"] = Field("loss", description="`loss` is minimized, `accuracy` maximized.")
    steps: Positive | None = Field(
        None, description="Adaptation steps after which it is measured; none means those at which methods are compared."
    )


class SweepSpec(Spec):
    """`metaopt sweep`: which values to search, for how long, and by what measure."""

    parameters: Annotated[dict[str, ParameterSpec], Field(min_length=1)] = Field(
        description="Dotted key of generate, train or evaluate → the values to search."
    )
    trials: Positive | None = Field(None, description="How many settings are tried; none means as many as fit into `time`.")
    time: Annotated[str, AfterValidator(_duration)] | None = Field(
        None, description="No trial begins after this much time with trials running: a number and s, m, h or d, as in 8m."
    )
    objective: ObjectiveSpec = Field(ObjectiveSpec(), description="What the best trial is best at.")
    pruning: Literal["median", "none"] = Field(
        "median", description="`median` ends a trial that validates worse than the median of the others did at the same iteration."
    )
    trial: dict[str, Any] = Field(
        {}, description="Dotted key → value in trials alone, such as fewer iterations; the best setting then runs without them."
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.trials is None and self.time is None:
            raise PydanticCustomError("budget", "expected trials or time, or both")
        return self

    @property
    def seconds(self) -> float:
        """The time that there is for trials."""
        return math.inf if self.time is None else _seconds(self.time)


# --- the whole ----------------------------------------------------------------------------------------------------------


class PipelineSpec(Spec):
    """One pipeline of `pipelines.yaml`, with all defaults filled in."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="The pipeline's key in pipelines.yaml.")
    description: str = Field("", description="One line for `metaopt list`.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Every random number is a function of it.")
    seeds: Positive = Field(
        1, description="How often it runs, with seed, seed + 1, …; more than once, results are also averaged over the seeds."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` is the GPU where there is one, else the CPU. Not part of a result's identity."
    )
    generate: GenerateSpec = Field(description="Stage 1: the task distribution.")
    train: TrainSpec = Field(description="Stage 2: meta-training.")
    evaluate: EvaluateSpec = Field(EvaluateSpec(), description="Stage 3: adaptation to new tasks.")
    log: LogSpec = Field(LogSpec(), description="Stage 4: the MLflow run.")
    sweep: SweepSpec | None = Field(None, description="What `metaopt sweep` searches; a run takes no notice of it.")
    schedule: ScheduleSpec | None = Field(None, description="When `metaopt serve` runs it; none means only when asked.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problems = list(impossibilities(self))
        if problems:
            text = "; ".join(f"{'.'.join(path)}: {message}" for path, message in problems)
            raise PydanticCustomError("impossible", "{text}", {"text": text, "problems": problems})
        return self

    # What `none` stands for, resolved in one place.

    @property
    def validation_shots(self) -> int:
        return self.train.validation.shots or self.train.shots

    @property
    def validation_queries(self) -> int:
        return self.train.validation.queries or self.train.queries

    @property
    def evaluate_shots(self) -> int:
        return self.evaluate.shots or self.train.shots

    @property
    def evaluate_queries(self) -> int:
        return self.evaluate.queries or self.train.queries

    @property
    def shifted(self) -> "dict[str, PipelineSpec]":
        """The variants of the test tasks, each as the pipeline that would evaluate nothing else; for `evaluate` alone."""
        return {name: _shifted(self, shift) for name, shift in self.shifts.items()}

    @property
    def shifts(self) -> dict[str, ShiftSpec]:
        return {name: shift for name, shift in (self.evaluate.shifted or {}).items() if shift is not None}

    @property
    def evaluate_inner_lr(self) -> float:
        return self.evaluate.inner_lr or self.train.inner.lr

    @property
    def pretrain_iterations(self) -> int:
        return self.train.pretrain_iterations or self.train.iterations

    @property
    def baselines(self) -> tuple[str, ...]:
        """The baselines that are trained."""
        applicable = ("pretrained",) if self.train.ways is None else ("pretrained", "protonet")
        return applicable if self.train.baselines is None else tuple(name for name in applicable if name in self.train.baselines)

    @property
    def baseline_lrs(self) -> tuple[float, ...]:
        times = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
        return self.evaluate.baseline_lrs or tuple(float(f"{factor * self.evaluate_inner_lr:.6g}") for factor in times)

    @property
    def horizon(self) -> int:
        """The number of adaptation steps with which the model is used, and at which methods are compared."""
        return min(self.train.validation.steps, self.evaluate.steps)


Problem = tuple[tuple[str, ...], str]  # path to the key that has to change, message


def _shifted(spec: PipelineSpec, shift: ShiftSpec) -> PipelineSpec:
    protocol = {"shots": shift.shots or spec.evaluate_shots, "queries": shift.queries or spec.evaluate_queries, "shifted": None}
    changes = {
        "generate": shift.of(spec.generate),
        "train": spec.train.model_copy(update={"ways": shift.ways or spec.train.ways}),
        "evaluate": spec.evaluate.model_copy(update=protocol),
    }
    return spec.model_copy(update=changes)


def impossibilities(spec: PipelineSpec) -> Iterator[Problem]:
    """Combinations of values, each fine alone, that no run could carry out."""
    yield from _plain_impossibilities(spec)
    for name, shift in spec.shifts.items():
        yield from _shift_impossibilities(spec, name, shift)
    if spec.sweep is not None:
        yield from _sweep_impossibilities(spec, spec.sweep)


def _plain_impossibilities(spec: PipelineSpec, trains: bool = True) -> Iterator[Problem]:
    """trains: whether tasks of these ways are trained on, or evaluated alone."""
    if isinstance(spec.generate, OmniglotSpec):
        yield from _omniglot_impossibilities(spec, spec.generate, trains)
    else:
        yield from _regression_impossibilities(spec, spec.generate)
    yield from _train_impossibilities(spec.train)
    if spec.evaluate.adaptation == "safe":
        yield from _safe_impossibilities(spec.train)


def _safe_impossibilities(train: TrainSpec) -> Iterator[Problem]:
    why = None
    if train.inner.rule != "gradient_descent":
        why = f"train.inner.rule is {train.inner.rule}"
    elif train.inner.minibatch is not None:
        why = f"train.inner.minibatch is {train.inner.minibatch}"
    elif train.meta_gradient == "implicit":
        why = "train.meta_gradient is implicit, whose inner loss has a term of its own"
    elif isinstance(train.model, Conv4Spec | ResNet12Spec) and train.model.normalization == "per_step":
        why = "train.model.normalization is per_step, which belongs to the steps as they were learned"
    if why is not None:
        yield ("evaluate", "adaptation"), f"safe is gradient descent on the whole support set, but {why}: expected plain"


def _train_impossibilities(train: TrainSpec) -> Iterator[Problem]:
    model = train.model
    if isinstance(model, Conv4Spec | ResNet12Spec) and model.normalization == "group":
        indivisible = [filters for filters in model.every_width if filters % model.groups]
        if indivisible:
            yield (
                ("train", "model", "groups"),
                f"{model.groups} groups of {indivisible[0]} filters: expected a divisor",
            )
    kind, inner = train.meta_gradient, train.inner
    if isinstance(model, Conv4Spec | ResNet12Spec) and model.normalization == "per_step":
        where = "train", "model", "normalization"
        first_order = kind == "first_order" or train.first_order_share == 1
        several_losses = train.outer_loss == "multi_step" and train.multi_step_share > 0
        if kind in {"reptile", "implicit"}:
            yield (
                where,
                f"the meta-gradient `{kind}` says nothing about what belongs to a single step: expected another than per_step",
            )
        elif inner.steps > 1 and first_order and not several_losses:
            yield (
                where,
                "by a first-order meta-gradient of the last step's loss, no other step's scale and shift are learned: expected "
                "outer_loss: multi_step, or another than per_step",
            )
    if kind in {"reptile", "implicit"}:
        if inner.adapts != "all":
            yield ("train", "inner", "adapts"), f"the meta-gradient `{kind}` learns nothing but what adapts: expected all"
        if inner.learned_lr != "none":
            yield ("train", "inner", "learned_lr"), f"the meta-gradient `{kind}` says nothing about step sizes: expected none"
        if train.outer_loss != "last_step":
            yield ("train", "outer_loss"), f"the meta-gradient `{kind}` knows the end of the inner loop alone: expected last_step"
    if kind != "exact":
        if train.first_order_share:
            yield ("train", "first_order_share"), f"the meta-gradient is `{kind}` from the first iteration on: expected 0"
        if train.backward != "auto":
            yield ("train", "backward"), f"the meta-gradient `{kind}` does not go back through the inner loop: expected auto"
    if kind == "implicit" and inner.minibatch is not None:
        yield ("train", "inner", "minibatch"), "the implicit meta-gradient is of one inner loss, the whole support set's: remove it"
    if train.implicit is not None and kind != "implicit":
        yield ("train", "implicit"), f"the meta-gradient is `{kind}`: remove it, or expected meta_gradient: implicit"
    if inner.lr_bounds is not None:
        low, high = inner.lr_bounds
        if inner.learned_lr == "none":
            yield ("train", "inner", "lr_bounds"), "no step size is learned: remove it, or choose a learned_lr"
        elif not low <= inner.lr <= high:
            yield (
                ("train", "inner", "lr"),
                f"{inner.lr:g}, where step sizes begin, is out of lr_bounds: expected {low:g} to {high:g}",
            )
    support = train.shots * (train.ways or 1)
    if inner.minibatch is not None and inner.minibatch > support:
        yield ("train", "inner", "minibatch"), f"{inner.minibatch} of {support} support examples: expected at most all of them"


def _sweep_impossibilities(spec: PipelineSpec, sweep: SweepSpec) -> Iterator[Problem]:
    if sweep.objective.metric == "accuracy" and spec.train.ways is None:
        yield ("sweep", "objective", "metric"), "accuracy needs classes, and regression tasks have none: expected loss"
    if (sweep.objective.steps or 0) > spec.evaluate.steps:
        yield (
            ("sweep", "objective", "steps"),
            f"{sweep.objective.steps} steps, but evaluate goes to {spec.evaluate.steps}: expected at most that many, or a larger "
            "evaluate.steps",
        )
    for key in sweep.trial.keys() & sweep.parameters.keys():
        yield ("sweep", "trial", key), "searched under sweep.parameters: expected it in one of the two"


def _shift_impossibilities(spec: PipelineSpec, name: str, shift: ShiftSpec) -> Iterator[Problem]:
    """What a variant changes that its tasks don't have, and what would be impossible for a pipeline of its own."""
    generate, place = spec.generate, ("evaluate", "shifted", name)
    said = [key for key, value in shift if value is not None]
    if not said:
        yield place, f"nothing is shifted, expected a key such as {'ways' if isinstance(generate, OmniglotSpec) else 'x'}"
        return
    if isinstance(generate, OmniglotSpec):
        takes = {"alphabets", "ways", "shots", "queries"}
    else:
        takes = {"distribution", "shots", "queries", *type(shift.of(generate)).model_fields} - {"support_points", "held_out"}
    if strange := [key for key in said if key not in takes]:
        kind = generate.distribution if isinstance(generate, OmniglotSpec) else shift.distribution or generate.distribution
        for key in strange:
            yield (*place, key), f"{kind} tasks have no such setting, expected one of {', '.join(sorted(takes))}"
        return
    if shift.alphabets and isinstance(generate, OmniglotSpec) and not generate.characters.new_alphabets:
        yield (*place, "alphabets"), "none are kept apart: expected generate.characters.new_alphabets to say how many characters"
    before = set(_plain_impossibilities(spec))
    for path, message in _plain_impossibilities(_shifted(spec, shift), trains=False):
        if (path, message) not in before:
            yield (*place, *(key for key in path[-1:] if key in said)), message


_PLURALS = {"sinusoid": "sinusoids", "mixture": "mixtures of functions"}


def _regression_impossibilities(spec: PipelineSpec, generate: SinusoidSpec | MixtureSpec) -> Iterator[Problem]:
    kind = _PLURALS[generate.distribution]
    if spec.train.ways is not None:
        yield ("train", "ways"), f"{spec.train.ways} ways, but {kind} are regression tasks and have no classes: remove it"
    if spec.train.reduction != "mean":
        yield ("train", "reduction"), f"sum_over_ways needs classes, and {kind} have none: expected mean"
    if "protonet" in (spec.train.baselines or ()):
        yield ("train", "baselines"), f"protonet needs classes, and {kind} have none: remove it"
    if isinstance(spec.train.model, _Pictures):
        yield ("train", "model", "name"), f"{spec.train.model.name} takes pictures, and {kind} have none: expected mlp or module"
    own_shots = {("train", "validation", "shots"): spec.train.validation.shots, ("evaluate", "shots"): spec.evaluate.shots}
    stored = {path if own else ("train", "shots"): own or spec.train.shots for path, own in own_shots.items()}
    for path, shots in stored.items():
        if shots > generate.support_points:
            yield (
                path,
                f"{shots} shots, but held-out tasks store {generate.support_points} support points: expected at most that many, "
                "or a larger generate.support_points",
            )


def _omniglot_impossibilities(spec: PipelineSpec, generate: OmniglotSpec, trains: bool) -> Iterator[Problem]:
    split = generate.characters
    if split.new_alphabets and generate.split_by == "alphabet":
        yield (
            ("generate", "characters", "new_alphabets"),
            f"{split.new_alphabets} characters, but split_by is alphabet, so that the test tasks are of new alphabets already: "
            "expected 0",
        )
    if (wanted := split.train + split.validation + split.test + split.new_alphabets) > CHARACTERS:
        yield ("generate", "characters"), f"{wanted} characters in all, but Omniglot has {CHARACTERS}: expected at most that many"
    if spec.train.ways is None:
        yield ("train", "ways"), "missing, and Omniglot tasks are classification: expected the number of classes of a task"
        return
    path: tuple[str, ...]
    splits = {"train": split.train} if trains else {}
    splits |= {"validation": split.validation, "test": split.test}
    splits |= {"new_alphabets": split.new_alphabets} if split.new_alphabets else {}
    for name, characters in splits.items():
        ways = spec.train.ways if name == "train" else generate.held_out_ways
        path = ("train", "ways") if name == "train" else ("generate", "held_out_ways")
        classes = characters * generate.rotations
        if ways > classes:
            yield path, f"{ways} ways, but the {name} split has {classes} classes: expected at most that many"
    if spec.train.ways > generate.held_out_ways:
        yield (
            ("train", "ways"),
            f"{spec.train.ways} ways, but held-out tasks store {generate.held_out_ways} classes: expected at most that many, or a "
            "larger generate.held_out_ways",
        )
    training = (spec.train.shots, spec.train.queries)
    episodes: dict[tuple[str, ...], tuple[int, int]] = {
        ("train", "validation"): (spec.validation_shots, spec.validation_queries),
        ("evaluate",): (spec.evaluate_shots, spec.evaluate_queries),
    }
    differing = {path: episode for path, episode in episodes.items() if episode != training}  # the others say it a second time
    for path, (shots, queries) in {("train",): training, **differing}.items():
        if shots + queries > DRAWINGS_PER_CHARACTER:
            yield (
                path,
                f"{shots} shots and {queries} queries, but a character has {DRAWINGS_PER_CHARACTER} drawings: expected at most "
                "that many together",
            )
