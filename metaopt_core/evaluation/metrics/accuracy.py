"""The share of queries whose class gets the largest output."""

from typing import TYPE_CHECKING

from metaopt_core.evaluation.metrics.weighting import mean_over_queries
from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    from torch import Tensor


@metric(title="accuracy", targets="classes", larger_is_better=True, form="percent", rank=0)
def accuracy(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs [tasks, queries, ways]; targets [tasks, queries], labels; weight [tasks, queries]; a share a task [tasks]."""
    right = (outputs.argmax(-1) == targets).float()
    return mean_over_queries(right, weight)
