"""A distribution, a method and a metric as somebody outside of the package would write them; nothing in it knows of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt_core.distributions.contract import Distribution
from metaopt_core.methods.contract import TOGETHER, Adapter, Method, Predict, Setting
from metaopt_core.spec.base import Spec
from metaopt_core.spec.distribution import Targets, TaskShape
from metaopt_core.spec.metric import metric

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor

    from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch
    from metaopt_core.networks.network import Params


class PlanesShift(Spec):
    """What a variant of the test tasks may change."""

    slope: float | None = None


class Planes(Distribution):
    """Regression of y = w·x; how many numbers x has is known only after `generate`, as with a table that is read."""

    noun = "planes"
    Shift = PlanesShift

    slope: float = 1.0

    @property
    def targets(self) -> Targets:
        return "real"

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:
        (folder / "width.txt").write_text("3")
        return TaskShape((3,), "real")

    def load(self, seed: int, folder: Path) -> "LoadedPlanes":
        return LoadedPlanes(self, seed, int((folder / "width.txt").read_text()))

    def shifted(self, changes: Mapping[str, Any]) -> "Planes":
        return self.model_copy(update=dict(changes))


@dataclass(frozen=True)
class LoadedPlanes:
    """Planes in memory: a task is a function of its index."""

    spec: Planes
    seed: int
    width: int
    train_classes: None = None

    def train(self, episode: "Episode", start: int, count: int) -> "TaskBatch":
        from metaopt_core.distributions.random import Stream

        return self._tasks(Stream.TRAIN, episode, start, count)

    def train_sample(self, trained: "Episode", episode: "Episode", start: int, count: int) -> "TaskBatch":
        return self.train(episode, start, count)

    def held_out(self, split: "HeldOutSplit", episode: "Episode", start: int, count: int) -> "TaskBatch":
        from metaopt_core.distributions.random import Stream

        return self._tasks(Stream.VALIDATION if split == "validation" else Stream.TEST, episode, start, count)

    def held_out_count(self, split: "HeldOutSplit") -> int:
        return self.spec.held_out.validation_tasks if split == "validation" else self.spec.held_out.test_tasks

    def _tasks(self, stream: Any, episode: "Episode", start: int, count: int) -> "TaskBatch":
        import torch

        from metaopt_core.distributions.batch import TaskBatch
        from metaopt_core.distributions.random import normal

        examples = episode.shots + episode.queries
        numbers = torch.from_numpy(normal(self.seed, stream, start, count, (1 + examples) * self.width)).float()
        weights, x = numbers.view(count, 1 + examples, self.width).split([1, examples], 1)
        y = self.spec.slope * (x * weights).sum(-1, keepdim=True)
        shots = episode.shots
        return TaskBatch(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:])

    def on(self, device: "torch.device") -> "LoadedPlanes":
        return self

    def shifted(self, changes: Mapping[str, Any]) -> "LoadedPlanes":
        return replace(self, spec=self.spec.shifted(changes))

    def contents(self) -> Mapping[str, Any]:
        return {"width": self.width}

    def overview(self) -> "Figure":
        from matplotlib.figure import Figure

        return Figure()

    def examples(self, tasks: "TaskBatch", predictions: "Sequence[Prediction]") -> "Figure":
        from matplotlib.figure import Figure

        return Figure()


class LeastSquares(Method):
    """The solution of least squares on a task's support set, which needs no training."""

    name = "least_squares"
    title = "least squares"
    color = "tab:red"
    line = "--"

    def prepare(self, setting: Setting, trained: "Mapping[str, Params]") -> Adapter | None:
        return Solved()


@dataclass(frozen=True)
class Solved:
    """The method ready for tasks."""

    steps: int = 0
    inner_lr: float = float("nan")

    def tasks_at_once(self, tasks: "TaskBatch") -> int:
        return len(tasks)

    def to(self, device: "torch.device") -> "Solved":
        return self

    def on(self, setting: Setting) -> "Solved":
        return self

    def adapted(self, tasks: "TaskBatch") -> Iterator[Mapping[str, Predict]]:
        weights = tasks.support_x.pinverse() @ tasks.support_y
        yield {TOGETHER: lambda query_x, query_weight: query_x @ weights}


@metric(title="largest error", targets="real", rank=60)
def largest_error(outputs: "Tensor", targets: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
    """outputs and targets [tasks, queries, outputs]; weight [tasks, queries]; each task's largest error [tasks]."""
    error = (outputs - targets).abs().amax(2)
    return error.amax(1) if weight is None else error.masked_fill(weight == 0, 0).amax(1)
