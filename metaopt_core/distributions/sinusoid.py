"""Sinusoid regression, y = amplitude · sin(x − phase) (Finn, Abbeel, Levine 2017, section 5.1)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from metaopt_core.distributions.batch import Episode, HeldOutSplit, TaskBatch
from metaopt_core.distributions.random import Stream, uniform
from metaopt_core.spec.models import SinusoidSpec

Array = npt.NDArray[np.float64]
_STREAMS = {"validation": Stream.VALIDATION, "test": Stream.TEST}


def materialize(spec: SinusoidSpec, seed: int, folder: Path) -> None:
    """Write the ranges (distribution.json) and the held-out tasks (held_out.safetensors) into a folder."""
    held_out: dict[str, Array] = {}
    for split, stream in _STREAMS.items():
        tasks = getattr(spec.held_out, f"{split}_tasks")
        amplitude, phase, x = _draw(spec, uniform(seed, stream, 0, tasks, 2 + spec.support_points))
        held_out |= {f"{split}.amplitude": amplitude, f"{split}.phase": phase, f"{split}.support_x": x}
    save_file(held_out, folder / "held_out.safetensors")
    (folder / "distribution.json").write_text(json.dumps(spec.model_dump(mode="json") | {"seed": seed}, indent=1))


def _draw(spec: SinusoidSpec, uniforms: Array) -> tuple[Array, Array, Array]:
    """Amplitude [tasks], phase [tasks] and inputs [tasks, points] from uniform numbers [tasks, 2 + points]."""

    def within(bounds: tuple[float, float], numbers: Array) -> Array:
        return np.ascontiguousarray(bounds[0] + (bounds[1] - bounds[0]) * numbers)

    return within(spec.amplitude, uniforms[:, 0]), within(spec.phase, uniforms[:, 1]), within(spec.x, uniforms[:, 2:])


@dataclass(frozen=True)
class Sinusoid:
    """The distribution with its held-out tasks in memory."""

    spec: SinusoidSpec
    seed: int
    held_out_tasks: dict[str, Array]
    train_classes: None = None

    @classmethod
    def load(cls, folder: Path) -> "Sinusoid":
        values = json.loads((folder / "distribution.json").read_text())
        seed = values.pop("seed")
        return cls(SinusoidSpec.model_validate(values), seed, load_file(folder / "held_out.safetensors"))

    def train(self, episode: Episode, start: int, count: int) -> TaskBatch:
        """The meta-train tasks with indices start … start+count−1: support and query inputs are uniform."""
        numbers = uniform(self.seed, Stream.TRAIN, start, count, 2 + episode.shots + episode.queries)
        amplitude, phase, x = _draw(self.spec, numbers)
        return _tasks(amplitude, phase, x[:, : episode.shots], x[:, episode.shots :])

    def held_out(self, split: HeldOutSplit, episode: Episode) -> TaskBatch:
        """All tasks of a split: the first `shots` stored support points; queries on an even grid over the range of x."""
        amplitude, phase, x = (self.held_out_tasks[f"{split}.{name}"] for name in ("amplitude", "phase", "support_x"))
        grid = np.broadcast_to(np.linspace(*self.spec.x, episode.queries), (len(x), episode.queries))
        return _tasks(amplitude, phase, x[:, : episode.shots], grid)


def _tasks(amplitude: Array, phase: Array, support_x: Array, query_x: Array) -> TaskBatch:
    def points(x: Array) -> tuple[Tensor, Tensor]:
        y = amplitude[:, None] * np.sin(x - phase[:, None])
        return torch.from_numpy(x.astype(np.float32))[..., None], torch.from_numpy(y.astype(np.float32))[..., None]

    return TaskBatch(*points(support_x), *points(query_x))
