"""What `pipelines.yaml` may say: one frozen, strict model a stage.

These models know every default, and no default is written anywhere else. They are also the parameters of the Prefect flows, so a
spec that arrives through Prefect's API meets the same rules as one that was read from a file.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
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
StepSize = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[float, float], BeforeValidator(_as_tuple), AfterValidator(_ascending)]


# --- generate -----------------------------------------------------------------------------------------------------------


class HeldOut(Spec):
    """Tasks that are drawn once, in `generate`, and are the same for every model that is ever compared on them."""

    validation_tasks: Positive = Field(200, description="Meta-validation tasks: they choose the best checkpoint.")
    test_tasks: Positive = Field(1000, description="Meta-test tasks: they are seen by `evaluate` alone.")


class SinusoidSpec(Spec):
    """Sinusoid regression, y = amplitude · sin(x − phase) (Finn, Abbeel, Levine 2017, section 5.1)."""

    distribution: Literal["sinusoid"] = Field(description="Which p(T): where tasks come from.")
    amplitude: Range = Field((0.1, 5.0), description="Bounds of the uniform amplitude.")
    phase: Range = Field((0.0, math.pi), description="Bounds of the uniform phase, in radians.")
    x: Range = Field((-5.0, 5.0), description="Bounds of the uniform inputs.")
    support_points: Positive = Field(
        20, description="Support points stored with each held-out task; evaluation with K shots uses the first K."
    )
    held_out: HeldOut = Field(HeldOut(), description="The tasks that are drawn once.")


class CharacterSplit(Spec):
    """How many Omniglot characters each split gets; the splits share no character."""

    train: Positive = Field(1100, description="Characters of the meta-training tasks.")
    validation: Positive = Field(100, description="Characters of the meta-validation tasks.")
    test: Positive = Field(423, description="Characters of the meta-test tasks.")


class OmniglotSpec(Spec):
    """Omniglot characters (Lake et al. 2015), split by character; each rotation of a character is a class of its own."""

    distribution: Literal["omniglot"] = Field(description="Which p(T): where tasks come from.")
    folder: str | None = Field(
        None,
        description="Folder with images_background.zip and images_evaluation.zip, or with the unpacked trees. Without it the "
        "environment variable METAOPT_OMNIGLOT is asked, and then the archives are downloaded.",
    )
    characters: CharacterSplit = Field(CharacterSplit(), description="Characters in each split.")
    rotations: Annotated[Literal[1, 2, 4], BeforeValidator(_whole)] = Field(
        4, description="Classes made of a character: 1 as drawn, 2 with 180°, 4 with every 90°."
    )
    held_out_ways: Positive = Field(20, description="Classes stored with each held-out task; a model of N ways uses the first N.")
    held_out: HeldOut = Field(HeldOut(), description="The tasks that are drawn once.")


GenerateSpec = Annotated[SinusoidSpec | OmniglotSpec, Field(discriminator="distribution")]


# --- train --------------------------------------------------------------------------------------------------------------


class MLPSpec(Spec):
    """Fully connected network with ReLU between its layers."""

    name: Literal["mlp"] = Field(description="Which network.")
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1), BeforeValidator(_as_tuple)] = Field(
        (40, 40), description="Units of each hidden layer."
    )


class Conv4Spec(Spec):
    """Four blocks of 3×3 convolution with stride 2, batch norm and ReLU, then a linear layer (Finn et al. 2017, section 5.2)."""

    name: Literal["conv4"] = Field(description="Which network.")
    filters: Positive = Field(64, description="Filters of each convolution.")
    batch_norm: Literal["transductive"] = Field(
        "transductive",
        description="Whose statistics normalize: `transductive` is those of the current batch, the query batch included, as in the "
        "paper.",
    )


ModelSpec = Annotated[MLPSpec | Conv4Spec, Field(discriminator="name")]


class InnerSpec(Spec):
    """The inner loop: gradient descent on the support set."""

    lr: StepSize = Field(0.01, description="Step size α of the inner loop, or where learned step sizes begin.")
    steps: Positive = Field(1, description="Gradient steps from the initialization to the adapted parameters, in training.")
    learned_lr: Literal["none", "scalar", "per_layer_and_step", "per_parameter"] = Field(
        "none",
        description="Which step sizes the outer loop learns, by its own step size: none, one `scalar`, `per_layer_and_step` one "
        "for each tensor of parameters and inner step (MAML++), or `per_parameter` one for each number in them (Meta-SGD).",
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


class TrainSpec(Spec):
    """Meta-training by exact (second-order) MAML."""

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
    inner: InnerSpec = Field(InnerSpec(), description="The inner loop.")
    outer: OuterSpec = Field(OuterSpec(), description="The outer loop.")
    validation: ValidationSpec = Field(ValidationSpec(), description="Meta-validation during training.")
    baselines: Annotated[tuple[Literal["pretrained", "protonet"], ...], BeforeValidator(_as_tuple)] | None = Field(
        None,
        description="Baselines that are trained beside MAML: `pretrained` on all tasks together, and `protonet`, the nearest class "
        "mean in a learned embedding (classification only); none means all that apply.",
    )
    pretrain_iterations: Positive | None = Field(
        None, description="Iterations of each of the baselines; none means as many as `iterations`."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether the meta-gradient is compiled; `auto` does it for small networks and long trainings."
    )
    checkpoint_every: StepSize = Field(
        30.0, description="Seconds between two checkpoints. Does not change the result, so changing it re-runs nothing."
    )


# --- evaluate, log ------------------------------------------------------------------------------------------------------


class EvaluateSpec(Spec):
    """Few-shot adaptation to every meta-test task, for MAML and for each baseline."""

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
        match = _DURATION.fullmatch(self.every)
        assert match is not None  # the validator has seen to it
        return int(match[1]) * _UNIT_SECONDS[match[2]]


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


# --- the whole ----------------------------------------------------------------------------------------------------------


class PipelineSpec(Spec):
    """One pipeline of `pipelines.yaml`, with all defaults filled in."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="The pipeline's key in pipelines.yaml.")
    description: str = Field("", description="One line for `metaopt list`.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Every random number is a function of it.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` is the GPU where there is one, else the CPU. Not part of a result's identity."
    )
    generate: GenerateSpec = Field(description="Stage 1: the task distribution.")
    train: TrainSpec = Field(description="Stage 2: meta-training.")
    evaluate: EvaluateSpec = Field(EvaluateSpec(), description="Stage 3: adaptation to new tasks.")
    log: LogSpec = Field(LogSpec(), description="Stage 4: the MLflow run.")
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


def impossibilities(spec: PipelineSpec) -> Iterator[Problem]:
    """Combinations of values, each fine alone, that no run could carry out."""
    if isinstance(spec.generate, SinusoidSpec):
        yield from _sinusoid_impossibilities(spec, spec.generate)
    else:
        yield from _omniglot_impossibilities(spec, spec.generate)


def _sinusoid_impossibilities(spec: PipelineSpec, generate: SinusoidSpec) -> Iterator[Problem]:
    if spec.train.ways is not None:
        yield ("train", "ways"), f"{spec.train.ways} ways, but sinusoids are regression tasks and have no classes: remove it"
    if spec.train.reduction != "mean":
        yield ("train", "reduction"), "sum_over_ways needs classes, and sinusoids have none: expected mean"
    if "protonet" in (spec.train.baselines or ()):
        yield ("train", "baselines"), "protonet needs classes, and sinusoids have none: remove it"
    if spec.train.model.name != "mlp":
        yield ("train", "model", "name"), f"{spec.train.model.name} takes pictures, and sinusoids have none: expected mlp"
    own_shots = {("train", "validation", "shots"): spec.train.validation.shots, ("evaluate", "shots"): spec.evaluate.shots}
    stored = {path if own else ("train", "shots"): own or spec.train.shots for path, own in own_shots.items()}
    for path, shots in stored.items():
        if shots > generate.support_points:
            yield (
                path,
                f"{shots} shots, but held-out tasks store {generate.support_points} support points: expected at most that many, "
                "or a larger generate.support_points",
            )


def _omniglot_impossibilities(spec: PipelineSpec, generate: OmniglotSpec) -> Iterator[Problem]:
    if spec.train.compile == "on" and spec.train.model.name == "conv4":
        yield ("train", "compile"), "conv4 runs on native kernels that can't be compiled: expected auto or off"
    split = generate.characters
    if (wanted := split.train + split.validation + split.test) > CHARACTERS:
        yield ("generate", "characters"), f"{wanted} characters in all, but Omniglot has {CHARACTERS}: expected at most that many"
    if spec.train.ways is None:
        yield ("train", "ways"), "missing, and Omniglot tasks are classification: expected the number of classes of a task"
        return
    path: tuple[str, ...]
    for name, characters in (("train", split.train), ("validation", split.validation), ("test", split.test)):
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
