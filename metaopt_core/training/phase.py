"""The training runs that a pipeline asks for, one after the other: each method says what it minimizes, the rest is shared."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution, Tasks
from metaopt_core.meta import step_sizes
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.meta.objectives import Objective
from metaopt_core.meta.parallel import one_thread
from metaopt_core.networks.network import Params
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.training.loop import Record, Trained, Training, fit

SNAPSHOTS = "snapshots"


def _unchanged(params: Params) -> Params:
    return params


@dataclass(frozen=True)
class Phase:
    """How one method is trained.

    key: the method's name in results. title: its name in progress bars and errors. objective: what it minimizes. initial: its
    initial parameters. predict: (parameters to adapt, tasks) → outputs for all queries after adaptation, for validation. to_adapt:
    maps the trained parameters to those that are adapted. keeps_snapshots: whether the parameters of every validation are kept.
    computed_by: what computes the gradient, in words.
    """

    key: str
    title: str
    objective: Objective
    initial: Params
    iterations: int
    predict: Callable[[Params, TaskBatch], Tensor]
    to_adapt: Callable[[Params], Params] = _unchanged
    keeps_snapshots: bool = False
    computed_by: str = ""


def train(
    spec: PipelineSpec,
    shape: TaskShape,
    distribution: TaskDistribution,
    phases: Sequence[Phase],
    checkpoints: Path,
    on_record: Callable[[str, Record], None] = lambda *_: None,
    traces: Path | None = None,
) -> dict[str, Trained]:
    """Train, or resume, every phase; its key → parameters to adapt on the CPU, history and seconds.

    checkpoints: a folder for this training run, whose subfolder SNAPSHOTS gets the parameters at every validation, one file
    ITERATION.safetensors each. on_record gets (key, point) for every point of a curve. traces: a folder for a profile of each
    phase.
    """
    results = {}
    for phase in phases:
        training = training_of(spec, shape, distribution, phase)
        if traces is not None:
            training = replace(training, trace=traces / f"{phase.key}.json.gz")
        if phase.keeps_snapshots:
            training = replace(training, snapshots=checkpoints / SNAPSHOTS)
        with _precision(spec), one_thread() if device_named(spec.device).type == "cpu" else nullcontext():
            trained = fit(training, phase.initial, checkpoints / f"{phase.key}.safetensors", partial(on_record, phase.key))
        params = {name: value.cpu() for name, value in phase.to_adapt(trained.params).items()}
        results[phase.key] = replace(trained, params=params)
    return results


def training_of(spec: PipelineSpec, shape: TaskShape, distribution: TaskDistribution, phase: Phase) -> Training:
    """A phase in the form that the outer loop takes."""
    device, judge = device_named(spec.device), Learner.for_training(spec, shape)
    distribution = distribution.on(device)
    episode = Episode(spec.train.ways, spec.validation_shots, spec.validation_queries, spec.validation_fewest_shots)
    validation = Tasks.held_out(distribution, "validation", episode).kept()
    trained = Episode(spec.train.ways, spec.train.most_shots, spec.train.queries, spec.train.fewest_shots)
    trained_on = Tasks.trained_on(distribution, trained, episode, len(validation)).kept()  # for the gap between the two

    def validate(params: Params) -> dict[str, float]:
        shared = phase.to_adapt(params)
        found: dict[str, float] = {}
        for split, tasks in (("validation", validation), ("meta_train", trained_on)):
            found |= judge.means(partial(phase.predict, shared), tasks, device, prefix=f"{split}_")
        return found

    return Training(
        name=phase.title,
        objective=phase.objective,
        distribution=distribution,
        episode=trained,
        meta_batch_size=spec.train.meta_batch_size,
        iterations=phase.iterations,
        outer=spec.train.outer,
        validate=validate,
        validate_every=spec.train.validation.every,
        checkpoint_every=spec.train.checkpoint_every,
        device=device,
        seed=spec.seed,
        patience=spec.train.validation.patience,
        project=partial(_keep_within, spec.train.inner.lr_bounds) if spec.train.inner.lr_bounds else None,
    )


def _keep_within(bounds: tuple[float, float], params: Params) -> None:
    """Clip learned step sizes to their bounds."""
    for size in step_sizes.split(params)[1].values():
        size.clamp_(*bounds)


@contextmanager
def _precision(spec: PipelineSpec) -> Iterator[None]:
    """Within a block, set the precision of a GPU's matrix products that the spec asks for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if spec.train.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
