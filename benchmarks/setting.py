"""What all contenders share: the tasks of every meta-step and the initial parameters."""

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from benchmarks.workloads import FILTERS, HIDDEN, OUTER_LR, MetaStep
from flows import environment
from metaopt_core.distributions import contract
from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
from metaopt_core.distributions.omniglot import OmniglotSpec, archives, drawing
from metaopt_core.distributions.omniglot.settings import CHARACTERS
from metaopt_core.meta.learner import Learner
from metaopt_core.networks.network import Params
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec

_SEED = 0
_ITERATIONS = 60_000  # of the paper's training runs: what the pipeline bases its choices on
_INK = 0.15  # share of a picture's pixels, about that of Omniglot at 28 × 28


@dataclass(frozen=True)
class Setting:
    """A meta-step with its tasks and its initial parameters (in the shapes of `metaopt_core.networks`)."""

    meta_step: MetaStep
    spec: PipelineSpec
    shape: TaskShape
    distribution: TaskDistribution
    initial: Params

    def draw(self, start: int, steps: int) -> TaskBatch:
        """The tasks of the meta-steps start … start+steps−1, one after another."""
        meta_step = self.meta_step
        episode = Episode(meta_step.ways, meta_step.shots, meta_step.queries)
        return self.distribution.train(episode, start * meta_step.tasks, steps * meta_step.tasks)

    def batches(self, start: int, steps: int) -> list[TaskBatch]:
        """The same, a batch a meta-step."""
        drawn, tasks = self.draw(start, steps), self.meta_step.tasks
        return [drawn[step * tasks : (step + 1) * tasks] for step in range(steps)]


def cache() -> Path:
    """The folder that keeps what is made or fetched once."""
    return environment.current_home().root / "bench" / "cache"


def make_setting(meta_step: MetaStep) -> Setting:
    spec = _spec(meta_step)
    folder = _materialized(spec, pictures_folder())
    distribution, shape = contract.load(folder, _SEED)
    return Setting(meta_step, spec, shape, distribution, Learner.for_training(spec, shape).network.init(_SEED))


def pictures_folder() -> Path | None:
    """Where the real Omniglot archives are, if anywhere: where the variable says, or among the pipeline's downloads."""
    named = os.environ.get(archives.VARIABLE)
    if named:
        return Path(named)
    downloads = environment.current_home().downloads
    return downloads if all((downloads / part.archive).is_file() for part in archives.PARTS) else None


def in_dtype(batch: TaskBatch, dtype: torch.dtype) -> TaskBatch:
    """The batch with its real-valued tensors in another precision."""
    values = (getattr(batch, field.name) for field in fields(batch))
    return TaskBatch(*(value.to(dtype) if value is not None and value.is_floating_point() else value for value in values))


def _spec(meta_step: MetaStep) -> PipelineSpec:
    network = {"name": "conv4", "filters": FILTERS} if meta_step.ways else {"name": "mlp", "hidden": HIDDEN}
    return PipelineSpec.model_validate(
        {
            "name": "benchmark",
            "seed": _SEED,
            "device": "cpu",
            "generate": {"distribution": meta_step.kind, "held_out": {"validation_tasks": 2, "test_tasks": 2}},
            "train": {
                "model": network,
                "iterations": _ITERATIONS,
                "meta_batch_size": meta_step.tasks,
                "ways": meta_step.ways,
                "shots": meta_step.shots,
                "queries": meta_step.queries,
                "inner": {"lr": meta_step.inner_lr, "steps": meta_step.inner_steps},
                "outer": {"lr": OUTER_LR},
            },
            "evaluate": {"shots": 1, "queries": 1},
        }
    )


def _materialized(spec: PipelineSpec, pictures: Path | None) -> Path:
    """The distribution's folder, written at the first call with these pictures."""
    real = isinstance(spec.generate, OmniglotSpec) and pictures is not None
    source = archives.identity(str(pictures)) if real else "made up"
    key = hashlib.sha256(f"{spec.generate.model_dump_json()} {source}".encode()).hexdigest()[:12]
    folder = cache() / f"{spec.generate.distribution}-{key}"
    if not (folder / "shape.json").is_file():  # written last
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(spec.generate, OmniglotSpec):
            drawings = archives.read(str(pictures), cache()) if real else _noise()
            drawing.materialize(spec.generate, _SEED, drawings, folder)
            contract.record(spec.generate, spec.generate.shape, _SEED, folder)
        else:
            contract.materialize(spec.generate, _SEED, cache(), folder)
    return folder


def _noise() -> archives.Pictures:
    """As many pictures as Omniglot has, with as much ink. How fast learning computes doesn't depend on what is on them."""
    ink = np.random.default_rng(_SEED).random((CHARACTERS, 20, 28, 28), dtype=np.float32) < _INK
    names = [f"character{index:04}" for index in range(CHARACTERS)]
    return archives.Pictures(ink * np.uint8(255), ["noise"] * CHARACTERS, names)
