"""What was measured, as frozen data: what the report shows and what is saved."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """A measured number that is to be at most `at_most`."""

    claim: str
    measured: float
    at_most: float

    @property
    def reached(self) -> bool:
        return self.measured <= self.at_most


@dataclass(frozen=True)
class Timing:
    """Seconds a meta-step: median and quartiles over `blocks` timed blocks."""

    median: float
    lower: float
    upper: float
    blocks: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        lower, median, upper = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
        return cls(median, lower, upper, len(seconds))


@dataclass(frozen=True)
class ContenderResult:
    """One contender on one workload.

    threads: PyTorch's, where it uses them.
    gradient_difference: relative, in float64, from the reference's; none for the reference.
    gflops: needed arithmetic by median time.
    of_matmul: that by what a matrix product reached on the same threads, in the same rounds.
    first_step: seconds in a fresh process.
    peak_bytes: of that process up to there, above what it held idle.
    """

    name: str
    threads: int | None
    gradient_difference: float | None
    timing: Timing
    gflops: float
    of_matmul: float
    first_step: float
    peak_bytes: int


@dataclass(frozen=True)
class SpeedResult:
    id: str
    title: str
    flops: int  # needed for one meta-gradient
    matmul_gflops: dict[int, float]  # by threads
    contenders: list[ContenderResult]
    verdicts: list[Verdict]
    notes: list[str]


@dataclass(frozen=True)
class Curve:
    """A contender's numbers by inner steps."""

    name: str
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class CurvesResult:
    """W6 in bytes, W8 in seconds."""

    id: str
    title: str
    unit: str
    curves: list[Curve]
    verdicts: list[Verdict]
    notes: list[str]


@dataclass(frozen=True)
class Line:
    """Seconds a meta-step along an axis, with the straight line through them and the largest relative deviation from it."""

    title: str
    axis: str
    values: list[int]
    timings: list[Timing]
    intercept: float
    slope: float
    deviation: float


@dataclass(frozen=True)
class GrowthResult:
    id: str
    title: str
    lines: list[Line]
    verdicts: list[Verdict]
    notes: list[str]


Result = SpeedResult | CurvesResult | GrowthResult


def straight_line(values: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Intercept and slope of the least-squares line, and the largest relative deviation of a point from it.

    Squares of relative errors: noise grows with the time that is measured, and the deviation that is asked for is relative too.
    """
    x, y = np.asarray(values, float), np.asarray(seconds, float)
    (slope, intercept) = np.polyfit(x, y, 1, w=1 / y)
    line = intercept + slope * x
    return float(intercept), float(slope), float(np.max(np.abs(y - line) / np.abs(line)))
