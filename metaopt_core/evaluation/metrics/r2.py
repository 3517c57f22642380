"""R² against the mean of the task's support set, which needs no model."""

from typing import TYPE_CHECKING

from metaopt_core.evaluation.metrics.weighting import mean_over_queries
from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-4
"""The mean squared distance of a task's query targets from its support mean below which they count as constant. Targets of tables
are in units of the training tasks' standard deviation, of which this is a hundredth."""

_ROUNDING = 1e-6  # what is no difference between a prediction and the support mean

_ABOUT = (
    "1 less the squared error as a share of that of the support mean: 1 is perfect, 0 is no better than the mean of the examples "
    "that a task comes with, and less is worse than it"
)


@metric(title="R²", targets="real", rank=20, larger_is_better=True, takes=("support_mean",), about=_ABOUT)
def r2(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None", support_mean: "Tensor") -> "Tensor":
    """outputs and targets [tasks, queries, outputs]; weight [tasks, queries]; support_mean [tasks, outputs]; a number a task.

    0 for the support mean itself in any task, also in one whose targets are constant.
    """
    error = mean_over_queries((outputs - targets).square().mean(-1), weight)
    of_mean = mean_over_queries((support_mean[:, None] - targets).square().mean(-1), weight)
    better = of_mean - error
    better = better.masked_fill(better.abs() < _ROUNDING * of_mean, 0)
    return better / of_mean.clamp(min=SMALLEST)
