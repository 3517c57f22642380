"""Tasks of the user's class in memory: training tasks are drawn as they are needed, held-out ones were stored by `generate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metaopt_core import progress
from metaopt_core.distributions import plain_figures
from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch
from metaopt_core.distributions.contract import Generated
from metaopt_core.distributions.python.settings import PythonSettings
from metaopt_core.distributions.python.user_class import NAMES, Array, Drawn, UserClass
from metaopt_core.distributions.random import Stream
from metaopt_core.errors import UserError
from metaopt_core.spec.distribution import TaskShape

_STREAMS: Mapping[HeldOutSplit, Stream] = {"validation": Stream.VALIDATION, "test": Stream.TEST}
_MOST_STORED = 16 * 2**30  # bytes of held-out tasks: more is a slip of the keyboard


def materialize(spec: PythonSettings, seed: int, folder: Path) -> TaskShape:
    """Try the class out, and write the held-out tasks: `<split>.<name>.npy`, [tasks, examples, …] each. Raises UserError."""
    source = UserClass(spec)
    shape = source.tried(seed)
    ways = None if spec.targets == "real" else spec.held_out_ways
    counts = {"validation": spec.held_out.validation_tasks, "test": spec.held_out.test_tasks}
    rows = (spec.support_points + spec.query_points) * (ways or 1)
    if (size := sum(counts.values()) * rows * 4 * int(np.prod(shape.input_shape))) > _MOST_STORED:
        raise UserError(
            f"generate.held_out: {sum(counts.values())} tasks of {rows} examples {list(shape.input_shape)} take {size / 2**30:.0f} "
            f"GiB: expected at most {_MOST_STORED / 2**30:.0f}; fewer tasks, support_points, query_points or held_out_ways"
        )
    with progress.bar(sum(counts.values()), "drawing held-out tasks") as bar:
        done = 0
        for split, stream in _STREAMS.items():
            stored: dict[str, Array] = {}
            for index in range(counts[split]):
                drawn = source.draw(seed, stream, index, ways, spec.support_points, spec.query_points)
                source.check_shape(drawn, shape, index, stream)
                for name in (*NAMES, "classes") if ways else NAMES:
                    value: Array = getattr(drawn, name)
                    if name not in stored:
                        path = folder / f"{split}.{name}.npy"
                        stored[name] = np.lib.format.open_memmap(path, "w+", value.dtype, (counts[split], *value.shape))
                    stored[name][index] = value
                bar.update(done := done + 1)
            for value in stored.values():
                value.flush()  # type: ignore[attr-defined]
    return shape


@dataclass(frozen=True)
class PythonTasks(Generated):
    """The distribution with its held-out tasks, `<split>.<name>`, which stay in their files until they are asked for."""

    spec: PythonSettings
    seed: int
    source: UserClass
    shape: TaskShape
    stored: Mapping[str, Array]

    @classmethod
    def load(cls, spec: PythonSettings, seed: int, folder: Path) -> "PythonTasks":
        names = (*NAMES, "classes") if spec.targets == "classes" else NAMES
        stored = {f"{split}.{name}": _opened(folder / f"{split}.{name}.npy") for split in _STREAMS for name in names}
        outputs = 1 if spec.targets == "classes" else stored["test.support_y"].shape[-1]
        shape = TaskShape(stored["test.support_x"].shape[2:], spec.targets, outputs)
        return cls(spec, seed, UserClass(spec), shape, stored)

    @property
    def train_classes(self) -> int | None:
        return self.source.classes

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1, of which each is a function of (seed, index, episode)."""
        drawn = []
        for index in range(start, start + count):
            drawn.append(self.source.draw(self.seed, Stream.TRAIN, index, episode.ways, episode.shots, episode.queries))
            self.source.check_shape(drawn[-1], self.shape, index, Stream.TRAIN)
        return _batch(drawn)

    def train_sample(self, trained: Episode, episode: Episode, start: int, count: int) -> TaskBatch:  # noqa: ARG002
        """Tasks of the same indices in another shape: the same ones, where the class draws what a task is before its examples."""
        return self.train(episode, start, count)

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        """Stored tasks: of the first `ways` classes the first `shots` support examples and the first queries."""
        stored = [self.stored[f"{split}.{name}"][start : start + count] for name in NAMES]
        classes = None
        if episode.ways is None:
            kept = [value[:, :each] for value, each in zip(stored, _twice(episode), strict=True)]
        else:
            kept = [
                _of_each(value, self.spec.held_out_ways, episode.ways, n) for value, n in zip(stored, _twice(episode), strict=True)
            ]
            classes = _tensor(self.stored[f"{split}.classes"][start : start + count, : episode.ways])
        support_x, support_y, query_x, query_y = (_tensor(value) for value in kept)
        return TaskBatch(support_x, support_y, query_x, query_y, classes=classes)

    def held_out_count(self, split: HeldOutSplit) -> int:
        return len(self.stored[f"{split}.support_x"])

    def on(self, device: torch.device) -> "PythonTasks":  # noqa: ARG002 - there is no data to move
        return self

    def shifted(self, changes: Mapping[str, Any]) -> "PythonTasks":  # noqa: ARG002 - ways, shots and queries are the episode's
        return self

    def contents(self) -> Mapping[str, Any]:
        return {"class": self.spec.path, "input_shape": list(self.shape.input_shape), "outputs": self.shape.outputs}

    def overview(self) -> Figure:
        ways = self.spec.held_out_ways if self.spec.targets == "classes" else None
        return plain_figures.overview(self.held_out("test", Episode(ways, self.spec.support_points, self.spec.query_points), 0, 8))

    def examples(self, tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
        return plain_figures.examples(tasks, predictions)


def _twice(episode: Episode) -> tuple[int, int, int, int]:
    return episode.shots, episode.shots, episode.queries, episode.queries


def _of_each(value: Array, stored_ways: int, ways: int, each: int) -> Array:
    """The first examples of each of the first classes, of examples [tasks, ways · examples, …] that are ordered by label."""
    by_class = value.reshape(len(value), stored_ways, -1, *value.shape[2:])[:, :ways, :each]
    return by_class.reshape(len(value), ways * each, *value.shape[2:])


def _opened(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.array(value))


def _batch(drawn: Sequence[Drawn]) -> TaskBatch:
    values = {name: torch.from_numpy(np.stack([getattr(one, name) for one in drawn])) for name in NAMES}
    classes = [one.classes for one in drawn if one.classes is not None]
    return TaskBatch(**values, classes=torch.from_numpy(np.stack(classes)) if classes else None)
