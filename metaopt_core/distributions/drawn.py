"""Distributions of regression tasks that one function draws: a subclass gives its settings, the shape of its tasks, and `draw`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from metaopt_core.distributions.contract import Distribution, Generated
from metaopt_core.spec.distribution import Targets, TaskShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from matplotlib.figure import Figure

    from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch
    from metaopt_core.distributions.random import Stream

_HELD_OUT_SEED = "held_out_seed.txt"


class Drawn(Distribution):
    """Base of distributions whose tasks are a function of (seed, stream, index). `shape` is known from the settings."""

    @property
    def targets(self) -> Targets:
        return "real"

    def draw(self, seed: int, stream: "Stream", episode: "Episode", start: int, count: int) -> "TaskBatch":
        """The tasks start … start+count−1 of a stream, with `shots` support and `queries` query examples.

        Take random numbers from `metaopt_core.distributions.random`, for these arguments.
        """
        raise NotImplementedError

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:  # noqa: ARG002
        assert self.shape is not None
        (folder / _HELD_OUT_SEED).write_text(str(seed))  # held-out tasks are made from it, whatever seed training has
        return self.shape

    def load(self, seed: int, folder: Path) -> "DrawnTasks":
        return DrawnTasks(self, seed, int((folder / _HELD_OUT_SEED).read_text()))

    def shifted(self, changes: Mapping[str, Any]) -> Self:
        return type(self).model_validate(self.model_dump() | dict(changes))


@dataclass(frozen=True)
class DrawnTasks(Generated):
    """The tasks in memory: nothing but their seeds."""

    spec: Drawn
    seed: int
    held_out_seed: int
    train_classes: None = None

    def train(self, episode: "Episode", start: int, count: int) -> "TaskBatch":
        from metaopt_core.distributions.random import Stream

        return self.spec.draw(self.seed, Stream.TRAIN, episode, start, count)

    def train_sample(self, trained: "Episode", episode: "Episode", start: int, count: int) -> "TaskBatch":  # noqa: ARG002
        return self.train(episode, start, count)

    def held_out(self, split: "HeldOutSplit", episode: "Episode", start: int, count: int) -> "TaskBatch":
        from metaopt_core.distributions.random import Stream

        stream = Stream.VALIDATION if split == "validation" else Stream.TEST
        return self.spec.draw(self.held_out_seed, stream, episode, start, count)

    def held_out_count(self, split: "HeldOutSplit") -> int:
        held_out = self.spec.held_out
        return held_out.validation_tasks if split == "validation" else held_out.test_tasks

    def on(self, device: "torch.device") -> "DrawnTasks":  # noqa: ARG002 - there is no data to move
        return self

    def shifted(self, changes: Mapping[str, Any]) -> "DrawnTasks":
        return replace(self, spec=self.spec.shifted(changes))

    def contents(self) -> Mapping[str, Any]:
        return {}

    def overview(self) -> "Figure":
        from metaopt_core.distributions import plain_figures
        from metaopt_core.distributions.batch import Episode

        return plain_figures.overview(self.held_out("test", Episode(None, 5, 50), 0, plain_figures.TASKS_SHOWN))

    def examples(self, tasks: "TaskBatch", predictions: "Sequence[Prediction]") -> "Figure":
        from metaopt_core.distributions import plain_figures

        return plain_figures.examples(tasks, predictions)
