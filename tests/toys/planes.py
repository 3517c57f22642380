"""Regression of y = steepness · w·x. How many numbers an x has is known only after `generate`, as with a table that is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt_core.distributions.contract import Distribution, Generated
from metaopt_core.spec.base import Spec
from metaopt_core.spec.distribution import Targets, TaskShape

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch
    from metaopt_core.distributions.random import Stream


class PlanesShift(Spec):
    """What a variant of the test tasks may change."""

    steepness: float | None = None


class Planes(Distribution):
    """The settings."""

    noun = "planes"
    Shift = PlanesShift

    steepness: float = 1.0

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
class LoadedPlanes(Generated):
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

    def _tasks(self, stream: "Stream", episode: "Episode", start: int, count: int) -> "TaskBatch":
        import torch

        from metaopt_core.distributions.batch import TaskBatch
        from metaopt_core.distributions.random import normal

        shots, examples = episode.shots, episode.shots + episode.queries
        numbers = torch.from_numpy(normal(self.seed, stream, start, count, (1 + examples) * self.width)).float()
        weights, x = numbers.view(count, 1 + examples, self.width).split([1, examples], 1)
        y = self.spec.steepness * (x * weights).sum(-1, keepdim=True)
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
