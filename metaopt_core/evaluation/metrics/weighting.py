"""The weighted mean over a task's queries, which most metrics use."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mean_over_queries(each: "Tensor", weight: "Tensor | None") -> "Tensor":
    """each [tasks, queries], weight [tasks, queries] → [tasks]; queries with weight 0 are ignored, whatever their value."""
    if weight is None:
        return each.mean(1)
    return (each.masked_fill(weight == 0, 0) * weight).sum(1) / weight.sum(1)
