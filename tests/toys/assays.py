"""Regression tables made up: a task is a linear function of four numbers, of which tasks may share much, or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaopt_core.distributions.contract import Distribution, Generated
from metaopt_core.spec.distribution import Targets, TaskShape

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from metaopt_core.distributions.batch import Episode, HeldOutSplit, PooledSplit, Prediction, Rows, TaskBatch
    from metaopt_core.distributions.random import Stream

FEATURES, ROWS = 4, 60


class Assays(Distribution):
    """The settings. shared: the standard deviation of what all tasks have in common; own: of what each has for itself."""

    noun = "assays"
    resamples = True
    judged_by = ("r2", "rmse", "loss")

    shared: float = 1.0
    own: float = 0.3
    offset: float = 0.5
    noise: float = 0.5
    train_tasks: int = 60

    @property
    def targets(self) -> Targets:
        return "real"

    def materialize(self, seed: int, downloads: Path, folder: Path) -> TaskShape:
        return TaskShape((FEATURES,), "real", 1, ("activity",), (3.0,), (2.0,))

    def load(self, seed: int, folder: Path) -> "LoadedAssays":
        return LoadedAssays(self, seed)


@dataclass(frozen=True)
class LoadedAssays(Generated):
    """Assays in memory. Task i of a split has 60 rows; a repeat is another order of them."""

    spec: Assays
    seed: int
    train_classes: None = None

    def train(self, episode: "Episode", start: int, count: int) -> "TaskBatch":
        import numpy as np

        from metaopt_core.distributions.random import Stream

        numbers = np.arange(start, start + count)
        return self._episodes(Stream.TRAIN, numbers % self.spec.train_tasks, numbers // self.spec.train_tasks, episode)

    def train_sample(self, trained: "Episode", episode: "Episode", start: int, count: int) -> "TaskBatch":
        return self.train(episode, start, count)

    def held_out(self, split: "HeldOutSplit", episode: "Episode", start: int, count: int) -> "TaskBatch":
        import numpy as np

        numbers = np.arange(start, start + count)
        return self._episodes(self._stream(split), numbers, np.full(count, episode.repeat), episode)

    def held_out_count(self, split: "HeldOutSplit") -> int:
        return self.spec.held_out.validation_tasks if split == "validation" else self.spec.held_out.test_tasks

    def _stream(self, split: "PooledSplit | HeldOutSplit") -> "Stream":
        from metaopt_core.distributions.random import Stream

        return {"train": Stream.TRAIN, "validation": Stream.VALIDATION, "test": Stream.TEST}[split]

    def _tasks(self, stream: "Stream", numbers: Any) -> Any:
        """x [tasks, 60, 4] and y [tasks, 60] of tasks by their numbers."""
        import numpy as np

        from metaopt_core.distributions.random import Stream, normal

        width = FEATURES + 1 + ROWS * (FEATURES + 1)
        drawn = normal(self.seed, stream, 0, int(numbers.max()) + 1, width)[numbers]
        common = self.spec.shared * normal(self.seed, Stream.SPLIT, 0, 1, FEATURES)
        slopes = common + self.spec.own * drawn[:, :FEATURES]
        rows = drawn[:, FEATURES + 1 :].reshape(len(numbers), ROWS, FEATURES + 1)
        x = rows[..., :FEATURES]
        y = np.einsum("tsf,tf->ts", x, slopes) + self.spec.offset * drawn[:, FEATURES, None] + self.spec.noise * rows[..., -1]
        return x.astype(np.float32), y.astype(np.float32)

    def _episodes(self, stream: "Stream", numbers: Any, draws: Any, episode: "Episode") -> "TaskBatch":
        import numpy as np
        import torch

        from metaopt_core.distributions.batch import TaskBatch

        x, y = self._tasks(stream, numbers)
        order = np.stack([np.random.default_rng([int(n), int(d)]).permutation(ROWS) for n, d in zip(numbers, draws, strict=True)])
        x, y = (
            torch.from_numpy(np.take_along_axis(one, place, 1))
            for one, place in ((x, order[..., None]), (y[..., None], order[..., None]))
        )
        shots, end = episode.shots, episode.shots + episode.queries
        assert end <= ROWS
        mean = y[:, :shots].mean(1)  # targets come less the support mean, and say so
        return TaskBatch(x[:, :shots], y[:, :shots] - mean[:, None], x[:, shots:end], y[:, shots:end] - mean[:, None], origin=mean)

    def rows(self, split: "PooledSplit") -> "Rows":
        import numpy as np
        import torch

        from metaopt_core.distributions.batch import Rows

        count = self.spec.train_tasks if split == "train" else self.held_out_count("validation")
        x, y = self._tasks(self._stream(split), np.arange(count))
        task = torch.arange(count).repeat_interleave(ROWS)
        return Rows(torch.from_numpy(x).reshape(-1, FEATURES), torch.from_numpy(y).reshape(-1, 1), task)

    def on(self, device: "torch.device") -> "LoadedAssays":
        return self

    def shifted(self, changes: Mapping[str, Any]) -> "LoadedAssays":
        return self

    def contents(self) -> Mapping[str, Any]:
        return {}

    def overview(self) -> "Figure":
        from matplotlib.figure import Figure

        return Figure()

    def examples(self, tasks: "TaskBatch", predictions: "Sequence[Prediction]") -> "Figure":
        from matplotlib.figure import Figure

        return Figure()
