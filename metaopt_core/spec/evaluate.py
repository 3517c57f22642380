"""`evaluate`: few-shot adaptation to new tasks, and to variants of them."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from metaopt_core.spec.base import MOST, Positive, Repetitions, Spec, StepSize, Ways, as_tuple
from metaopt_core.spec.generate import shipped
from metaopt_core.spec.metric import MetricPath

IN_DISTRIBUTION = "in-distribution"
"""The name of the unshifted test tasks in results."""


class ShiftSpec(Spec):
    """What a variant of the test tasks changes: settings of `generate`, unknown to training, and of the protocol.

    Settings of a distribution are checked by the whole pipeline, which knows the distribution.
    """

    model_config = ConfigDict(extra="allow")

    ways: Ways | None = Field(
        None,
        description="Classification: another number of classes. Additional outputs start as copies of the learned ones, in order.",
    )
    shots: Positive | None = Field(None, description="Another number of support examples (per class).")
    queries: Positive | None = Field(None, description="Another number of query examples (per class).")

    @model_serializer(mode="wrap")
    def _what_is_said(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}

    @property
    def said(self) -> dict[str, Any]:
        """Key → value of everything that it changes."""
        return {key: value for key, value in self if value is not None}

    @property
    def changes(self) -> dict[str, Any]:
        """What it changes in the distribution."""
        return {key: value for key, value in self.said.items() if key not in PROTOCOL}


PROTOCOL = frozenset({"ways", "shots", "queries"})
"""What a variant may change in the protocol, for any distribution."""


def _with_shifts_of_all() -> type[ShiftSpec]:
    """The model with everything that any shipped distribution can shift, for the schema and for messages that name types."""
    fields: dict[str, Any] = {}
    for distribution in shipped():
        fields |= {name: (field.annotation, field) for name, field in distribution.Shift.model_fields.items()}
    made: type[ShiftSpec] = create_model("ShiftSpec", __base__=ShiftSpec, __doc__=ShiftSpec.__doc__, **fields)
    return made


if TYPE_CHECKING:
    AnyShift = ShiftSpec
else:
    AnyShift = _with_shifts_of_all()


def _variant_names(shifts: dict[str, Any]) -> dict[str, Any]:
    for name in shifts:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == IN_DISTRIBUTION:
            message = "expected names of lower-case letters, digits, _ and -, a letter or digit first, other than in-distribution"
            raise PydanticCustomError("variant_name", message)
    return shifts


def _shots(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """One message for a value that neither type takes, where pydantic has one for each type."""
    try:
        found = validated(as_tuple(value))
    except ValidationError:
        most = f"a whole number of at most {MOST}"
        few = "a whole number of at least 1, or several as in [5, 10, 20]"
        raise PydanticCustomError("shots", "expected {text}", {"text": most if _too_many(value) else few}) from None
    if isinstance(found, tuple) and list(found) != sorted(set(found)):
        raise PydanticCustomError("shots", "expected different numbers, the smallest one first")
    return found


def _too_many(value: Any) -> bool:
    return type(value) is int and value > MOST


Shots = Annotated[Positive | Annotated[tuple[Positive, ...], Field(min_length=1, max_length=20)], WrapValidator(_shots)]


class EvaluateSpec(Spec):
    """Few-shot adaptation to every meta-test task, for the learned parameters and for each baseline."""

    steps: Positive = Field(
        10,
        description="Adaptation steps; every number from 0 to this is recorded. Methods are compared after "
        "`train.validation.steps` of them, or after the last one if there are fewer.",
    )
    shots: Shots | None = Field(
        None,
        description="Support examples (per class), or several numbers, as in [5, 10, 20]: every method is evaluated with each of "
        "them, and what asks for one number takes the largest; none means as in training, the most if that is a range.",
    )
    queries: Positive | None = Field(
        None, description="Query examples (per class), for sinusoids on an even grid; none means as in training."
    )
    inner_lr: StepSize | None = Field(
        None,
        description="Step size of adaptation; none means as in training. Learned step sizes stay.",
    )
    repeats: Repetitions = Field(
        1,
        description="How often each test task is evaluated, every time with other support examples; a task's numbers are averaged "
        "before anything else, so that a task counts once.",
    )
    baseline_lrs: Annotated[tuple[StepSize, ...], Field(min_length=1), BeforeValidator(as_tuple)] | None = Field(
        None,
        description="Step sizes from which each baseline uses the one that does best on the meta-validation tasks; none means "
        "0.03, 0.1, 0.3, 1, 3 and 10 times that of the inner loop.",
    )
    adaptation: Literal["plain", "safe"] = Field(
        "plain",
        description="How the logged model adapts: `plain` gradient descent, or `safe`, with step sizes that halve until the "
        "support loss falls, and which stops once adaptation clearly harms a held-out part of a support set of 25 or more. Both "
        "are evaluated.",
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="Which method the logged model is: one of those that are compared, by its name in the results, as in "
        "mixed_model; or `best`, the best one on the meta-validation tasks. None means the algorithm of `train`.",
    )
    shifted: Annotated[dict[str, AnyShift | None], Field(max_length=100), AfterValidator(_variant_names)] | None = Field(
        None,
        description="Variants of the test tasks that differ from the training tasks, by name; each says what it changes. Null "
        "leaves one out.",
    )
    over_training: bool = Field(
        False,
        description="Whether the parameters at every validation are also evaluated on the meta-test tasks, as a curve. The "
        "pipeline does not choose by it; if you change a setting because of it, you have used the test tasks to choose.",
    )
    metrics: Annotated[tuple[MetricPath, ...], BeforeValidator(as_tuple)] = Field(
        (), description="Further metrics by import path, as in [mypackage.metrics:median_error]; those that ship are always there."
    )
