"""The mean absolute error, in the unit of the target."""

from typing import TYPE_CHECKING

from metaopt_core.evaluation.metrics.weighting import mean_over_queries
from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    from torch import Tensor


@metric(title="mean absolute error", targets="real", rank=40, power=1)
def mae(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs and targets [tasks, queries, outputs]; weight [tasks, queries]; a mean a task [tasks]."""
    return mean_over_queries((outputs - targets).abs().mean(-1), weight)
