"""A batch of tasks as plain frozen data, and the interface that all distributions share."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from metaopt_core.distributions.random import Stream, uniform

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes half a second, and is rarely needed

    from metaopt_core.distributions.findings import Findings

HeldOutSplit = Literal["validation", "test"]
PooledSplit = Literal["train", "validation"]


@dataclass(frozen=True)
class TaskBatch:
    """T tasks with S support and Q query examples each.

    support_x [T, S, …], support_y [T, S, 1] (regression) or [T, S] (class labels 0 … ways−1, int64); the query likewise with Q.
    support_weight [T, S] and query_weight [T, Q]: weights of the examples, if they differ. Everything averages by them. 0
    pads: so that tasks of unequal size share a batch, and what stands in a padded place, NaN included, is replaced by zeros here.
    A task without support examples is not adapted; one without queries is refused, since nothing could judge it.
    classes [T, ways]: the class of the whole split that each label stands for (classification only).
    origin [T, outputs]: what was subtracted from a task's targets, in the same units (regression only): a target is origin + y.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    support_weight: Tensor | None = None
    query_weight: Tensor | None = None
    classes: Tensor | None = None
    origin: Tensor | None = None

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
            if part == "query" and not bool(kept.any(1).all()):
                raise ValueError("all queries of a task have weight 0: expected one that judges it, or a batch without the task")

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

    @property
    def support_mean(self) -> Tensor:
        """The mean of each task's support targets [tasks, outputs], of a regression."""
        if self.support_weight is None:
            return self.support_y.mean(1)
        weight = self.support_weight / self.support_weight.sum(1, keepdim=True)
        return (self.support_y * weight[..., None]).sum(1)

    def split(self, tasks: int) -> list["TaskBatch"]:
        """Parts of `tasks` tasks each (the last may have fewer), as views."""
        return [self[start : start + tasks] for start in range(0, len(self), tasks)]

    @classmethod
    def joined(cls, batches: "Sequence[TaskBatch]") -> "TaskBatch":
        """The tasks of several batches of one shape, in one; if only some have weights, the examples of the others weigh 1."""
        weighted = {name for batch in batches for name in ("support_weight", "query_weight") if getattr(batch, name) is not None}
        columns = zip(*(batch._weighing_one(weighted)._tensors() for batch in batches), strict=True)
        return cls(*(None if any(one is None for one in column) else torch.cat(column) for column in columns))  # type: ignore[arg-type]

    def _weighing_one(self, names: Collection[str]) -> "TaskBatch":
        """The same with ones for those of the named weights that it has none of."""
        missing = {name: getattr(self, name.replace("weight", "x")) for name in names if getattr(self, name) is None}
        return replace(self, **{name: torch.ones(x.shape[:2], device=x.device) for name, x in missing.items()})

    def to(self, device: torch.device | str) -> "TaskBatch":
        return TaskBatch(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self._tensors()))  # type: ignore[arg-type]

    def _tensors(self) -> list[Tensor | None]:
        return list(vars(self).values())


@dataclass(frozen=True)
class Episode:
    """The shape of a task: ways (none for regression), support examples and query examples (per class, if there are classes).

    fewest: if given, every task draws its own number of support examples, from this one to `shots`. repeat: which draw of
    the support examples of a held-out task it is.
    """

    ways: int | None
    shots: int
    queries: int
    fewest: int | None = None
    repeat: int = 0


@dataclass(frozen=True)
class Rows:
    """Examples of all tasks of a split together, on the CPU: x [N, …], y [N, outputs] or labels [N], task [N] (int64).

    y is in the units of the tasks' targets, with nothing subtracted: what `TaskBatch` has as origin + y.
    """

    x: Tensor
    y: Tensor
    task: Tensor


@dataclass(frozen=True)
class Prediction:
    """A method's predictions for queries, for figures: outputs [tasks, queries, outputs] before and after adaptation."""

    label: str
    color: str
    before: Tensor
    after: Tensor
    steps: int


class TaskDistribution(Protocol):
    """What training and evaluation need of a distribution. A loaded one holds its data in memory; drawing a task is indexing."""

    @property
    def train_classes(self) -> int | None:
        """Classes of the meta-train split; none for regression."""

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1."""

    def train_sample(self, trained: Episode, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1 of a training on episodes of a shape, in another shape and in the
        form of held-out ones: what differs between the two are the tasks."""

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        """Tasks of a held-out split as `generate` drew them, from number `start` of those with `enough` examples on: the first
        `shots` support examples of the first `ways` classes."""

    def held_out_count(self, split: HeldOutSplit) -> int:
        """How many tasks a held-out split has."""

    def enough(self, split: HeldOutSplit, episode: Episode) -> Sequence[int]:
        """The numbers of a held-out split's tasks that have enough examples for an episode, ascending; the others are left out."""

    def task_names(self, split: HeldOutSplit) -> Sequence[str] | None:
        """The names of a held-out split's tasks, by their numbers; none if they have no names."""

    def rows(self, split: PooledSplit) -> Rows | None:
        """The examples of a split's tasks together, for models of all tasks; at most `MOST_ROWS`, drawn evenly over the tasks. None
        where there are no such."""

    def findings(self) -> "Findings":
        """What is worth knowing of the data before anything is trained."""

    def on(self, device: torch.device) -> "TaskDistribution":
        """The same, with its data on a device, so that drawing a task there is indexing."""

    def shifted(self, changes: Mapping[str, Any]) -> "TaskDistribution":
        """The same, with the test tasks of a shifted variant (`DistributionSpec.shifted`), still disjoint from training."""

    def contents(self) -> Mapping[str, Any]:
        """A description of its content as JSON values, such as counts, which is recorded with the output."""

    def overview(self) -> "Figure":
        """A figure that shows what its tasks are."""

    def examples(self, tasks: TaskBatch, predictions: Sequence[Prediction]) -> "Figure":
        """A figure of a few tasks with methods' predictions for their queries; the first is the logged model's."""


MOST_ROWS = 200_000
"""Examples that pooled models are fitted to."""

PART_BYTES = 2**27
"""Tasks are drawn in parts of about this size, so that memory doesn't grow with their number or size."""


def bytes_of(tasks: TaskBatch) -> int:
    """The memory of a batch."""
    return sum(value.nbytes for value in vars(tasks).values() if value is not None)


def own_shots(episode: Episode, seed: int, stream: Stream, start: int, count: int) -> Tensor:
    """The tasks' numbers of support examples (per class) [count], each as likely from the episode's fewest to its shots."""
    fewest = episode.shots if episode.fewest is None else episode.fewest
    numbers = uniform(seed, stream, start, count, 1)[:, 0]
    return torch.from_numpy(fewest + (numbers * (episode.shots - fewest + 1)).astype(np.int64))


def with_own_shots(tasks: TaskBatch, episode: Episode, seed: int, stream: Stream, start: int) -> TaskBatch:
    """Tasks from index `start` on, each with its own number of support examples: the others get weight 0.

    Of a class's examples the first ones are kept; examples are ordered by label. A distribution may draw the numbers itself, by
    `own_shots`, to make more of a small task's examples queries: then nothing changes here.
    """
    if episode.fewest is None:
        return tasks
    x = tasks.support_x
    place = torch.arange(episode.shots, device=x.device).repeat(episode.ways or 1)
    kept = (place < own_shots(episode, seed, stream, start, len(tasks)).to(x.device)[:, None]).to(x.dtype)
    weight = kept if tasks.support_weight is None else tasks.support_weight * kept
    return replace(tasks, support_weight=weight)


def _with_own_shots(draw: Callable[[int, int], TaskBatch], episode: Episode) -> Callable[[int, int], TaskBatch]:
    """Held-out tasks, whose numbers are the same for every model."""
    if episode.fewest is None:
        return draw
    return lambda start, count: with_own_shots(draw(start, count), episode, 0, Stream.HELD_OUT_SHOTS, start)


@dataclass(frozen=True)
class Tasks:
    """Many tasks, drawn when they are needed.

    draw: (start, count) → those tasks. numbers: of each among the tasks of its split; none means 0, 1, …
    """

    count: int
    draw: Callable[[int, int], TaskBatch]
    numbers: Sequence[int] | None = None

    @classmethod
    def held_out(cls, distribution: TaskDistribution, split: HeldOutSplit, episode: Episode) -> "Tasks":
        """All tasks of a held-out split that have enough examples."""
        numbers = distribution.enough(split, episode)
        return cls(len(numbers), _with_own_shots(partial(distribution.held_out, split, episode), episode), numbers)

    @classmethod
    def trained_on(cls, distribution: TaskDistribution, trained: Episode, episode: Episode, count: int) -> "Tasks":
        """The first meta-train tasks, in the form of held-out ones."""
        return cls(count, _with_own_shots(partial(distribution.train_sample, trained, episode), episode))

    def __len__(self) -> int:
        return self.count

    def all(self) -> TaskBatch:
        """All tasks at once, if they are few."""
        return self.draw(0, self.count)

    def picked(self, numbers: Sequence[int]) -> TaskBatch:
        """The tasks with the given numbers."""
        places = numbers if self.numbers is None else [list(self.numbers).index(number) for number in numbers]
        return TaskBatch.joined([self.draw(place, 1) for place in places])

    @cached_property
    def part(self) -> int:
        """How many tasks are drawn together."""
        return max(1, min(self.count, PART_BYTES // max(1, bytes_of(self.draw(0, 1)))))

    def parts(self, device: torch.device) -> Iterator[TaskBatch]:
        """All tasks, one part at a time, on a device."""
        for start in range(0, self.count, self.part):
            yield self.draw(start, min(self.part, self.count - start)).to(device)

    def kept(self) -> "Tasks":
        """The same tasks, drawn only once if they fit into one part."""
        if self.part < self.count:
            return self
        drawn = self.all()
        return replace(self, draw=lambda start, count: drawn[start : start + count])
