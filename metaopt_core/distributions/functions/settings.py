"""The settings of functions of one number, and which of them are impossible."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from metaopt_core.spec.base import Impossibility, NotNegative, Positive, Range, Spec
from metaopt_core.spec.distribution import Asked, DistributionSpec, Targets, TaskShape


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


class FunctionsShift(Spec):
    """What a variant of the test tasks may change."""

    distribution: Literal["sinusoid", "mixture"] | None = Field(None, description="Regression: another kind of functions.")
    x: Range | None = Field(None, description="Regression: other bounds of the inputs.")
    noise: NotNegative | None = Field(None, description="Regression: other noise on the support points.")
    amplitude: Range | None = Field(None, description="Sinusoids: other bounds of the amplitude.")
    phase: Range | None = Field(None, description="Sinusoids: other bounds of the phase.")
    families: Families | None = Field(None, description="Mixture: other frequencies of the families.")
    slope: Range | None = Field(None, description="Mixture: other bounds of the slope of lines.")
    curvature: Range | None = Field(None, description="Mixture: other bounds of the curvature of quadratics.")
    vertex: Range | None = Field(None, description="Mixture: other bounds of the vertex of quadratics.")
    offset: Range | None = Field(None, description="Mixture: other bounds of the constant of lines and quadratics.")


class FunctionsSettings(DistributionSpec):
    """The settings that all distributions of functions of one number share."""

    Shift: ClassVar[type[Spec]] = FunctionsShift
    judged_by = ("loss",)
    not_shown = frozenset({"distribution", "held_out", "seed", "support_points"})

    x: Range = Field((-5.0, 5.0), description="Bounds of the uniform inputs.")
    noise: NotNegative = Field(
        0.0,
        description="Standard deviation of the normal noise on every observed y. The queries of held-out tasks have none, so that "
        "the error is that of the function.",
    )
    amplitude: Range = Field((0.1, 5.0), description="Sinusoids: bounds of the uniform amplitude.")
    phase: Range = Field((0.0, math.pi), description="Sinusoids: bounds of the uniform phase, in radians.")
    support_points: Positive = Field(
        20, description="Support points stored with each held-out task; evaluation with K shots uses the first K."
    )

    @property
    def targets(self) -> Targets:
        return "real"

    @property
    def shape(self) -> TaskShape:
        return TaskShape((1,), "real")

    def impossibilities(self, asked: Asked) -> Iterator[Impossibility]:
        for block, (shots, _) in asked.episodes.items():
            place = (*block, "shots")
            if (block == ("train",) or place in asked.said) and shots > self.support_points:
                yield (
                    place if place in asked.said else ("train", "shots"),
                    f"{shots} shots, but held-out tasks store {self.support_points} support points: expected at most that many, "
                    "or a larger generate.support_points",
                )

    def shifted(self, changes: Mapping[str, Any]) -> "FunctionsSettings":
        raise NotImplementedError  # the kinds are known where they are components


class MixtureSettings(FunctionsSettings):
    """The further settings of a mixture."""

    families: Families = Field(
        Families(line=1.0, quadratic=1.0, sinusoid=1.0),
        description="How often each family is drawn, relative to the others; one that is not named is left out.",
    )
    slope: Range = Field((-3.0, 3.0), description="Lines: bounds of the uniform slope.")
    curvature: Range = Field((-0.15, 0.15), description="Quadratics: bounds of the uniform coefficient of the square.")
    vertex: Range = Field((-3.0, 3.0), description="Quadratics: bounds of the uniform x of the vertex.")
    offset: Range = Field((-3.0, 3.0), description="Lines and quadratics: bounds of the uniform constant.")
