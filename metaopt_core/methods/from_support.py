"""What fitted methods have in common: support sets as they take them, rows of all tasks, and choices on meta-validation tasks.

A choice may depend on how many support examples a task has. It is made for some numbers of them (`ladder`), and a task goes by the
nearest: that is part of what was fitted, and no test task is asked.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from metaopt_core.distributions.batch import Episode, Rows, TaskBatch, Tasks, with_own_shots
from metaopt_core.distributions.random import Stream
from metaopt_core.methods.contract import DEVIATION, TOGETHER, Predict, Setting
from metaopt_core.methods.support import Predictor, Support
from metaopt_core.networks.network import Params

_FEWEST = 4  # support examples: choices made for fewer would be noise
_TASKS_AT_ONCE = 64
_TASKS_DRAWN = 400  # where a distribution has no rows of its own


@dataclass(frozen=True)
class FromSupport:
    """A fitted method ready for tasks (`metaopt_core.methods.contract.Adapter`). It computes on the CPU."""

    predictor: Predictor
    deviates: bool = False

    steps = 0
    inner_lr = math.nan
    absolute = True  # where nothing is subtracted from targets, nothing has to be said of it

    def tasks_at_once(self, tasks: TaskBatch) -> int:
        return min(len(tasks), _TASKS_AT_ONCE)

    def to(self, device: torch.device) -> "FromSupport":  # noqa: ARG002
        return self

    def on(self, setting: Setting) -> "FromSupport":  # noqa: ARG002 - what is fitted doesn't depend on the tasks
        return self

    def adapted(self, tasks: TaskBatch) -> Iterator[Mapping[str, Predict]]:
        found: dict[str, Predict] = {TOGETHER: partial(self._outputs, tasks)}
        yield found | ({DEVIATION: partial(self._deviation, tasks)} if self.deviates else {})

    def _outputs(self, tasks: TaskBatch, query_x: Tensor, query_weight: Tensor | None = None) -> Tensor:  # noqa: ARG002
        found, _ = self.predictor(Support.of(tasks), query_x.flatten(2).double().cpu())
        if tasks.origin is not None:
            found = found - tasks.origin.double().cpu()[:, None]
        return found.to(query_x)

    def _deviation(self, tasks: TaskBatch, query_x: Tensor, query_weight: Tensor | None = None) -> Tensor:  # noqa: ARG002
        _, found = self.predictor(Support.of(tasks), query_x.flatten(2).double().cpu())
        assert found is not None
        return found.to(query_x)


# --- rows of all tasks --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooled:
    """Rows of all tasks: x [rows, features], y [rows, outputs] or labels [rows], task [rows], and weights of mean 1 that make every
    task count alike [rows]."""

    x: Tensor
    y: Tensor
    task: Tensor
    weight: Tensor


def pooled(setting: Setting, split: str) -> Pooled | None:
    """Those of the meta-train or meta-validation tasks; of tasks that are drawn, where a distribution keeps none. None for classes
    whose labels mean something else in each task."""
    assert split in ("train", "validation")
    if setting.distribution.train_classes is not None:
        return None
    rows = setting.distribution.rows("train" if split == "train" else "validation")
    if rows is None:
        tasks = drawn(setting, _TASKS_DRAWN) if split == "train" else next(iter(validation(setting)))[1]
        rows = _rows_of(tasks)
    count = torch.bincount(rows.task).double()
    weight = 1 / count[rows.task]
    y = rows.y.double() if rows.y.is_floating_point() else rows.y
    return Pooled(rows.x.flatten(1).double(), y, rows.task, weight * (len(weight) / weight.sum()))


def _rows_of(tasks: TaskBatch) -> Rows:
    support = Support.of(tasks)
    query_y = tasks.query_y.double() if tasks.origin is None else tasks.query_y.double() + tasks.origin.double()[:, None]
    query_weight = torch.ones(query_y.shape[:2]) if tasks.query_weight is None else tasks.query_weight
    there = torch.cat([support.weight > 0, query_weight > 0], 1)
    x, y = torch.cat([support.x, tasks.query_x.flatten(2).double()], 1), torch.cat([support.y, query_y], 1)
    task = torch.arange(len(tasks))[:, None].expand(there.shape)
    return Rows(x[there], y[there], task[there])


def by_task(rows: Pooled, most: int, tasks: int) -> Support:
    """The first tasks with at most so many of their rows, padded."""
    numbers = torch.unique(rows.task)[:tasks]
    places = [torch.nonzero(rows.task == number)[:, 0] for number in numbers]
    places = [place[_shuffled(len(place), int(number))[:most]] for place, number in zip(places, numbers, strict=True)]
    size = max(len(place) for place in places)
    filled = torch.stack([torch.nn.functional.pad(place, (0, size - len(place))) for place in places])
    weight = torch.stack([(torch.arange(size) < len(place)).double() for place in places])
    return Support(rows.x[filled] * weight[..., None], rows.y[filled] * weight[..., None], weight)


def _shuffled(count: int, number: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(number).permutation(count))


def drawn(setting: Setting, count: int) -> TaskBatch:
    """The first meta-train tasks, as training draws them."""
    train = setting.spec.train
    episode = Episode(train.ways, train.most_shots, train.queries, train.fewest_shots)
    return with_own_shots(setting.distribution.train(episode, 0, count), episode, setting.spec.seed, Stream.TRAIN_SHOTS, 0)


# --- choices on meta-validation tasks -----------------------------------------------------------------------------------


def ladder(setting: Setting) -> list[int]:
    """Numbers of support examples for which choices are made: the most of training and validation, half as many, and so on."""
    most = max(setting.spec.validation_shots, setting.spec.train.most_shots) if setting.spec.train.fewest_shots else None
    found: list[int] = []
    shots = most or setting.spec.validation_shots
    while shots >= _FEWEST or not found:
        found.append(shots)
        shots //= 2
    return found[::-1]


def validation(setting: Setting, most: int | None = None) -> Iterator[tuple[int, TaskBatch]]:
    """The meta-validation tasks with each of these numbers, the most first; with the most alone if a few tasks have enough."""
    spec, found = setting.spec, 0
    for shots in reversed(ladder(setting)):
        episode = Episode(spec.train.ways, shots, spec.validation_queries)
        tasks = Tasks.held_out(setting.distribution, "validation", episode)
        if len(tasks):
            found += 1
            yield shots, tasks.draw(0, min(len(tasks), most or len(tasks)))
    assert found, "generate has checked that there are such tasks"


@dataclass(frozen=True)
class Choices:
    """The best of some values for each number of support examples: shots [numbers], value [numbers], ascending in shots."""

    shots: Tensor
    value: Tensor

    def of(self, support: Support) -> Tensor:
        """The value for each task [tasks], by the nearest number of examples."""
        examples = (support.weight > 0).sum(1).clamp(min=1) / (support.ways or 1)
        distance = (examples.double().log()[:, None] - self.shots.double().log()).abs()
        return self.value[distance.argmin(1)]


def chosen(setting: Setting, values: Sequence[float], predictor: Callable[[float], Predictor], most: int | None = None) -> Choices:
    """The best of the values for each number of support examples. most: of the tasks that choose."""
    found = {shots: best(setting, [(shots, tasks)], values, predictor) for shots, tasks in validation(setting, most)}
    shots = sorted(found)
    return Choices(torch.tensor(shots), torch.tensor([found[number] for number in shots], dtype=torch.float64))


def best(
    setting: Setting,
    tasks: Sequence[tuple[int, TaskBatch]],
    values: Sequence[float],
    predictor: Callable[[float], Predictor],
) -> float:
    """The value whose predictor has the best score on all of the tasks."""
    return max(values, key=lambda value: score(setting, tasks, predictor(value)))


def score(setting: Setting, tasks: Sequence[tuple[int, TaskBatch]], predictor: Predictor) -> float:
    """The mean, over tasks and over numbers of examples, of the metric that methods are compared by: the larger, the better."""
    judge, adapter = setting.spec.metrics[0], FromSupport(predictor)
    means = []
    for _, batch in tasks:
        ((_, predict),) = next(iter(adapter.adapted(batch))).items()
        support = {"support_mean": batch.support_mean} if "support_mean" in judge.takes else {}
        values = judge.of(predict(batch.query_x, batch.query_weight), batch.query_y, batch.query_weight, **support)
        means.append(float(values.double().mean()))
    found = float(np.mean(means)) * (1 if judge.larger_is_better else -1)
    return found if math.isfinite(found) else -math.inf


# --- texts as tensors ---------------------------------------------------------------------------------------------------


def text(params: Params, name: str) -> str:
    """A text that was kept as bytes."""
    return params[name].numpy().tobytes().decode()


def as_bytes(content: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(content.encode(), np.uint8).copy())
