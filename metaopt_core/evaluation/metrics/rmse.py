"""The root of the mean squared error, in the unit of the target."""

from typing import TYPE_CHECKING

from metaopt_core.evaluation.metrics.weighting import mean_over_queries
from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    from torch import Tensor


@metric(title="root mean squared error", targets="real", rank=30, power=1, about="each task's own, and the mean of these")
def rmse(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs and targets [tasks, queries, outputs]; weight [tasks, queries]; a number a task [tasks]."""
    return mean_over_queries((outputs - targets).square().mean(-1), weight).sqrt()
