"""The mean squared error."""

from typing import TYPE_CHECKING

from metaopt_core.evaluation.metrics.weighting import mean_over_queries
from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    from torch import Tensor


@metric(name="loss", title="mean squared error", targets="real", rank=0, follows_reduction=True)
def squared_error(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs and targets [tasks, queries, outputs]; weight [tasks, queries]; each task's mean over its queries [tasks]."""
    each = (outputs - targets).square().mean(-1)
    return mean_over_queries(each, weight)
