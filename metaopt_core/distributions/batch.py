"""A batch of tasks as plain frozen data, and what is common to every distribution that tasks come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes half a second, and most have no use for it

HeldOutSplit = Literal["validation", "test"]


@dataclass(frozen=True)
class TaskBatch:
    """T tasks with S support and Q query examples each.

    support_x [T, S, …], support_y [T, S, 1] (regression) or [T, S] (class labels 0 … ways−1, int64); the query likewise with Q.
    support_weight [T, S] and query_weight [T, Q]: weights of the examples, where not all are alike. Everything averages by them. 0
    pads: so that tasks of unequal size share a batch, and what stands in a padded place, NaN included, is replaced by zeros here.
    classes [T, ways]: the class of the whole split that each label stands for (classification only).
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    support_weight: Tensor | None = None
    query_weight: Tensor | None = None
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        for part in ("support", "query"):
            weight: Tensor | None = getattr(self, f"{part}_weight")
            if weight is None:
                continue
            kept = weight > 0
            for name in (f"{part}_x", f"{part}_y"):
                value: Tensor = getattr(self, name)
                there = kept.view(*kept.shape, *(1 for _ in value.shape[2:]))
                object.__setattr__(self, name, value.masked_fill(~there, 0))

    def __len__(self) -> int:
        return self.support_x.shape[0]

    def __getitem__(self, tasks: slice | list[int]) -> "TaskBatch":
        """The tasks of a slice, as views, or those of the given numbers."""
        return TaskBatch(*[None if tensor is None else tensor[tasks] for tensor in self._tensors()])  # type: ignore[arg-type]

    @property
    def ways(self) -> int:
        """Classes of a task; for batches that know their classes."""
        assert self.classes is not None
        return self.classes.shape[1]

    def split(self, tasks: int) -> list["TaskBatch"]:
        """Parts of that many tasks (the last may have fewer), as views."""
        return [self[start : start + tasks] for start in range(0, len(self), tasks)]

    def to(self, device: torch.device | str) -> "TaskBatch":
        return TaskBatch(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self._tensors()))  # type: ignore[arg-type]

    def _tensors(self) -> list[Tensor | None]:
        return list(vars(self).values())


@dataclass(frozen=True)
class Episode:
    """The shape of a task: ways (none for regression), support examples and query examples (per class, where there are classes)."""

    ways: int | None
    shots: int
    queries: int


@dataclass(frozen=True)
class Prediction:
    """What a method made of a few tasks' queries, for a figure: outputs [tasks, queries, outputs] before and after adaptation."""

    label: str
    color: str
    before: Tensor
    after: Tensor
    steps: int


class TaskDistribution(Protocol):
    """What training and evaluation ask of a distribution. A loaded one holds its data in memory; drawing a task is indexing."""

    @property
    def train_classes(self) -> int | None:
        """Classes of the meta-train split; none for regression."""

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1."""

    def train_sample(self, trained: Episode, episode: Episode, count: int) -> TaskBatch:
        """The first meta-train tasks of a training on episodes of a shape, in another shape and in the form of held-out ones: what
        differs between the two are the tasks."""

    def held_out(self, split: HeldOutSplit, episode: Episode) -> TaskBatch:
        """All tasks of a held-out split as `generate` drew them: the first `shots` support examples of the first `ways` classes."""

    def on(self, device: torch.device) -> "TaskDistribution":
        """The same with its data on a device, where drawing a task then is indexing."""

    def shifted(self, changes: Mapping[str, Any]) -> "TaskDistribution":
        """The same with the test tasks of a shifted variant (`DistributionSpec.shifted`). They are still disjoint from training."""

    def contents(self) -> Mapping[str, Any]:
        """What is in it, as JSON values to be recorded with the output: counts, say."""

    def overview(self) -> "Figure":
        """A figure that shows what its tasks are."""

    def examples(self, tasks: TaskBatch, predictions: Sequence[Prediction]) -> "Figure":
        """A figure of a few tasks with what methods made of their queries; the first is the logged model's."""
