"""Support sets as fitted methods take them, and what predicts from them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch


@dataclass(frozen=True)
class Support:
    """Support sets in float64: x [tasks, examples, features], y [tasks, examples, outputs], with nothing subtracted, or labels
    [tasks, examples], weight [tasks, examples], 0 for those that only fill up; ways: classes, if there are any."""

    x: Tensor
    y: Tensor
    weight: Tensor
    ways: int | None = None

    @classmethod
    def of(cls, tasks: TaskBatch) -> "Support":
        x, y = tasks.support_x.flatten(2).double().cpu(), tasks.support_y.cpu()
        weight = torch.ones(x.shape[:2], dtype=x.dtype) if tasks.support_weight is None else tasks.support_weight.double().cpu()
        if not y.is_floating_point():
            return cls(x, y, weight, tasks.ways if tasks.classes is not None else None)
        y = y.double()
        return cls(x, y if tasks.origin is None else y + tasks.origin.double().cpu()[:, None], weight)

    @property
    def count(self) -> Tensor:
        """The number of examples of each task [tasks], by weight."""
        return self.weight.sum(1)

    @property
    def mean(self) -> Tensor:
        """The mean target of each task [tasks, outputs]."""
        return (self.y * self.weight[..., None]).sum(1) / self.count[:, None]

    def examples(self) -> "Iterator[tuple[Tensor, Tensor, Tensor]]":
        """x, y and weights of each task's own examples."""
        for x, y, weight in zip(self.x, self.y, self.weight, strict=True):
            there = weight > 0
            yield x[there], y[there], weight[there]


Predictor = Callable[[Support, Tensor], tuple[Tensor, Tensor | None]]
"""Support sets and queries [tasks, queries, features] → outputs [tasks, queries, outputs], and their standard deviations if there
are any: targets with nothing subtracted, or logits of classes."""
