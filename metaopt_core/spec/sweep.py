"""`sweep`: which values to search, for how long, and by what measure."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_serializer, model_validator
from pydantic_core import PydanticCustomError

from metaopt_core.spec.base import Positive, Spec, as_tuple
from metaopt_core.spec.metric import MetricName
from metaopt_core.spec.schedule import duration, seconds_of


class RangeSpec(Spec):
    """Numbers from `low` to `high`, both included; whole ones if the key takes no others."""

    low: float = Field(description="Smallest value.")
    high: float = Field(description="Largest value.")
    log: bool = Field(False, description="Whether to search on a logarithmic scale, as suits step sizes.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise PydanticCustomError("bounds", "expected low to be less than high, and greater than 0 if log is true")
        return self

    @field_serializer("low", "high")
    def _as_written(self, bound: float) -> int | float:
        """A whole number as an int, for keys that take no others."""
        return int(bound) if bound.is_integer() else bound


class ChoicesSpec(Spec):
    """One of several values, without an order."""

    choices: Annotated[tuple[Any, ...], Field(min_length=2), BeforeValidator(as_tuple)] = Field(
        description="The values; each may also be a list or a whole block."
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
    """What trials are judged by: what `evaluate` measures, but on the meta-validation tasks."""

    metric: MetricName = Field("loss", description="`loss` is minimized, `accuracy` maximized; or another metric for such tasks.")
    steps: Positive | None = Field(
        None, description="Adaptation steps after which it is measured; none means those after which methods are compared."
    )


class SweepSpec(Spec):
    """`metaopt sweep`: which values to search, for how long, and by what measure."""

    parameters: Annotated[dict[str, ParameterSpec], Field(min_length=1)] = Field(
        description="Dotted key of generate, train or evaluate → the values to search."
    )
    trials: Positive | None = Field(None, description="How many settings to try; none means as many as fit into `time`.")
    time: Annotated[str, AfterValidator(duration)] | None = Field(
        None, description="No trial starts after trials have run for this long: a number and s, m, h or d, as in 8m."
    )
    objective: ObjectiveSpec = Field(ObjectiveSpec(), description="What trials are judged by.")
    pruning: Literal["median", "none"] = Field(
        "median", description="`median` stops a trial that validates worse than the median of the others at the same iteration."
    )
    trial: dict[str, Any] = Field(
        {}, description="Dotted key → value only for trials, such as fewer iterations; the best setting then runs without them."
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.trials is None and self.time is None:
            raise PydanticCustomError("budget", "expected trials or time, or both")
        return self

    @property
    def seconds(self) -> float:
        """The time budget of trials."""
        return math.inf if self.time is None else seconds_of(self.time)
