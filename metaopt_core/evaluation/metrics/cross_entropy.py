"""The cross-entropy, in nats."""

from typing import TYPE_CHECKING

from metaopt_core.evaluation.metrics.weighting import mean_over_queries
from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    from torch import Tensor


@metric(name="loss", title="cross-entropy", targets="classes", rank=10, unit="nats", follows_reduction=True)
def cross_entropy(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs [tasks, queries, ways], logits; targets [tasks, queries], labels; weight [tasks, queries]; a mean a task [tasks]."""
    import torch.nn.functional as F

    each = F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")
    return mean_over_queries(each, weight)
