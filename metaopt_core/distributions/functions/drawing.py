"""How tasks that are functions of one number are drawn.

A task is two or three parameters, uniform in the ranges of the spec, and inputs. The random numbers of a task don't depend on the
ranges, so a shifted variant of the held-out tasks consists of the same tasks in other ranges, and the differences are due to the
shift. A mixture of sinusoids alone is the same distribution as `sinusoid`, task by task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from safetensors.numpy import load_file, save_file
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, Prediction, TaskBatch
from metaopt_core.distributions.contract import Generated
from metaopt_core.distributions.functions import figures
from metaopt_core.distributions.functions.settings import FunctionsSettings, MixtureSettings
from metaopt_core.distributions.random import NEVER_TRAINED_ON, Stream, normal, uniform

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Streams:
    """Where a split's random numbers come from: parameters and inputs; the family and a third parameter; noise."""

    tasks: Stream
    family: Stream
    noise: Stream


_TRAIN = _Streams(Stream.TRAIN, Stream.TRAIN_FAMILY, Stream.TRAIN_NOISE)
_HELD_OUT: Mapping[HeldOutSplit, _Streams] = {
    "validation": _Streams(Stream.VALIDATION, Stream.VALIDATION_FAMILY, Stream.VALIDATION_NOISE),
    "test": _Streams(Stream.TEST, Stream.TEST_FAMILY, Stream.TEST_NOISE),
}


def materialize(spec: FunctionsSettings, seed: int, folder: Path) -> None:
    """Write the random numbers of the held-out tasks (held_out.safetensors).

    For either split: `<split>.tasks` [tasks, 2 + support_points] and `<split>.family` [tasks, 2], uniform in [0, 1): two parameters
    and the inputs, and the family with a third parameter; `<split>.noise` [tasks, support_points], standard normal.
    """
    held_out: dict[str, Array] = {}
    for split, streams in _HELD_OUT.items():
        tasks, points = getattr(spec.held_out, f"{split}_tasks"), spec.support_points
        held_out[f"{split}.tasks"] = uniform(seed, streams.tasks, 0, tasks, 2 + points)
        held_out[f"{split}.family"] = uniform(seed, streams.family, 0, tasks, 2)
        held_out[f"{split}.noise"] = normal(seed, streams.noise, 0, tasks, points)
    save_file({name: np.ascontiguousarray(numbers) for name, numbers in held_out.items()}, folder / "held_out.safetensors")


@dataclass(frozen=True)
class Functions(Generated):
    """The distribution with the random numbers of its held-out tasks (as in held_out.safetensors) in memory."""

    spec: FunctionsSettings
    seed: int
    held_out_numbers: Mapping[str, Array]
    train_classes: None = None

    @classmethod
    def load(cls, spec: FunctionsSettings, seed: int, folder: Path) -> "Functions":
        return cls(spec, seed, load_file(folder / "held_out.safetensors"))

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1: support and query inputs are uniform, every y has noise."""
        points = episode.shots + episode.queries
        numbers = uniform(self.seed, _TRAIN.tasks, start, count, 2 + points)
        family = uniform(self.seed, _TRAIN.family, start, count, 2) if isinstance(self.spec, MixtureSettings) else None
        x = _within(self.spec.x, numbers[:, 2:])
        y = _values(self.spec, numbers[:, :2], family, x)
        if self.spec.noise:
            y = y + self.spec.noise * normal(self.seed, _TRAIN.noise, start, count, points)
        support, query = np.s_[:, : episode.shots], np.s_[:, episode.shots :]
        return TaskBatch(_points(x[support]), _points(y[support]), _points(x[query]), _points(y[query]))

    def train_sample(self, trained: Episode, episode: Episode, start: int, count: int) -> TaskBatch:
        """The functions that were trained on, with new support points, and queries without noise on an even grid over x."""
        parameters = uniform(self.seed, _TRAIN.tasks, start, count, 2 + trained.shots + trained.queries)[:, :2]
        numbers = np.concatenate([parameters, uniform(self.seed, _TRAIN.tasks, NEVER_TRAINED_ON + start, count, episode.shots)], 1)
        family = uniform(self.seed, _TRAIN.family, start, count, 2)
        noise = normal(self.seed, _TRAIN.noise, start, count, episode.shots)
        return self._on_a_grid(episode, numbers, family, noise)

    def held_out(self, split: HeldOutSplit, episode: Episode, start: int, count: int) -> TaskBatch:
        """Tasks of a split: the first `shots` stored support points, and queries without noise on an even grid over x."""
        numbers = (self.held_out_numbers[f"{split}.{name}"] for name in ("tasks", "family", "noise"))
        return self._on_a_grid(episode, *(one[start : start + count] for one in numbers))

    def held_out_count(self, split: HeldOutSplit) -> int:
        return len(self.held_out_numbers[f"{split}.tasks"])

    def _on_a_grid(self, episode: Episode, numbers: Array, family: Array, noise: Array) -> TaskBatch:
        support_x = _within(self.spec.x, numbers[:, 2 : 2 + episode.shots])
        query_x = np.broadcast_to(np.linspace(*self.spec.x, episode.queries), (len(numbers), episode.queries))
        support_y, query_y = (_values(self.spec, numbers[:, :2], family, x) for x in (support_x, query_x))
        support_y = support_y + self.spec.noise * noise[:, : episode.shots]
        return TaskBatch(_points(support_x), _points(support_y), _points(query_x), _points(query_y))

    def on(self, device: torch.device) -> "Functions":  # noqa: ARG002 - there is no data to move
        return self

    def shifted(self, changes: Mapping[str, Any]) -> "Functions":
        """The same held-out tasks in other ranges, with other noise or of other families."""
        return replace(self, spec=self.spec.shifted(changes))

    def contents(self) -> Mapping[str, Any]:
        return {}

    def overview(self) -> Figure:
        return figures.overview(self.held_out("test", Episode(None, self.spec.support_points, 100), 0, figures.OVERVIEW_TASKS))

    def examples(self, tasks: TaskBatch, predictions: Sequence[Prediction]) -> Figure:
        return figures.examples(tasks, predictions)


def _values(spec: FunctionsSettings, parameters: Array, family: Array | None, x: Array) -> Array:
    """The functions' values [tasks, points] at x, from uniform numbers: parameters [tasks, 2], family [tasks, 2]."""
    first, second = parameters[:, :1], parameters[:, 1:]
    sinusoid = _within(spec.amplitude, first) * np.sin(x - _within(spec.phase, second))
    if not isinstance(spec, MixtureSettings):
        return sinusoid
    assert family is not None
    chosen, third = family[:, :1], family[:, 1:]
    line = _within(spec.slope, first) * x + _within(spec.offset, second)
    quadratic = _within(spec.curvature, first) * (x - _within(spec.vertex, third)) ** 2 + _within(spec.offset, second)
    weights = np.cumsum([spec.families.line, spec.families.quadratic, spec.families.sinusoid])
    kinds = np.searchsorted(weights / weights[-1], chosen, side="right")
    return np.asarray(np.choose(kinds, (line, quadratic, sinusoid)))


def _within(bounds: tuple[float, float], numbers: Array) -> Array:
    return bounds[0] + (bounds[1] - bounds[0]) * numbers


def _points(values: Array) -> Tensor:
    """[tasks, points] → [tasks, points, 1] in float32."""
    return torch.from_numpy(values.astype(np.float32))[..., None]
