"""The largest error of a task's queries."""

from typing import TYPE_CHECKING

from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    from torch import Tensor


@metric(title="largest error", targets="real", rank=60)
def largest_error(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs and targets [tasks, queries, outputs]; weight [tasks, queries]; each task's largest error [tasks]."""
    error = (outputs - targets).abs().amax(2)
    return error.amax(1) if weight is None else error.masked_fill(weight == 0, 0).amax(1)
