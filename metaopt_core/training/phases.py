"""Meta-training as a spec asks for it: MAML, and the baselines that are trained: on all tasks together, and as a ProtoNet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
from metaopt_core.meta import step_sizes
from metaopt_core.meta.learner import INPUT_SHAPES, Learner, device_named
from metaopt_core.meta.objectives import AfterAdaptation, Joint, MetaGradientSettings, Objective, ProtoNet
from metaopt_core.meta.parallel import one_thread, side_by_side
from metaopt_core.methods.prototypes import embedding_learner, scores
from metaopt_core.networks.build import build
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Params
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.spec.models import ImplicitSpec, PipelineSpec
from metaopt_core.training.loop import Record, Trained, Training, fit

COMPILE_FROM_ITERATIONS = 20_000
"""Compiling takes about as long as it saves in 10,000 iterations; both grow with the inner steps."""

_SNAPSHOTS = "snapshots"

_TITLES = {"pretrained": "pre-training (baseline)", "protonet": "ProtoNet (baseline)"}


@dataclass(frozen=True)
class Phase:
    """One of the trainings, its initial parameters, and how its parameters become the ones that are adapted."""

    training: Training
    initial: Params
    to_adapt: Callable[[Params], Params]


def train(
    spec: PipelineSpec,
    distribution: TaskDistribution,
    checkpoints: Path,
    on_record: Callable[[str, Record], None] = lambda *_: None,
    traces: Path | None = None,
) -> dict[str, Trained]:
    """Train, or go on with, every phase; phase → parameters to adapt on the CPU, history and seconds.

    checkpoints: a folder of this training's own, which also has what `snapshots` reads. on_record gets (phase, point) of every
    curve, as it happens. traces: a folder for a profile of each phase.
    """
    results = {}
    for name in ("maml", *spec.baselines):
        phase = _phase(name, spec, distribution)
        training = phase.training if traces is None else replace(phase.training, trace=traces / f"{name}.json.gz")
        if name == "maml":
            training = replace(training, snapshots=checkpoints / _SNAPSHOTS)
        with _precision(spec), one_thread() if device_named(spec.device).type == "cpu" else nullcontext():
            trained = fit(training, phase.initial, checkpoints / f"{name}.safetensors", partial(on_record, name))
        params = {key: value.cpu() for key, value in phase.to_adapt(trained.params).items()}
        results[name] = replace(trained, params=params)
    return results


def snapshots(checkpoints: Path) -> dict[str, Tensor]:
    """The parameters at every validation of a training that was done with such a folder: ITERATION/NAME → tensor."""
    found: Params = {}
    for path in sorted((checkpoints / _SNAPSHOTS).iterdir(), key=lambda path: int(path.stem)):
        found |= {f"{path.stem}/{name}": value for name, value in load_file(path).items()}
    return found


def _phase(name: str, spec: PipelineSpec, distribution: TaskDistribution) -> Phase:
    learner = Learner.for_training(spec)
    initial = learner.network.init(spec.seed)
    objective: Objective
    if name == "maml":
        objective = AfterAdaptation(replace(learner, compiled=compiles(spec)), spec.train.inner.steps, _meta_gradient(spec))
        iterations, to_adapt = spec.train.iterations, _unchanged
        initial |= step_sizes.initial(spec.train.inner, initial)
    elif name == "protonet":
        embedding = embedding_learner(spec)
        objective, iterations, to_adapt = ProtoNet(embedding), spec.pretrain_iterations, _unchanged
        initial = embedding.network.init(spec.seed)
    else:
        learner = learner.as_baseline()
        initial = learner.network.init(spec.seed)
        objective, iterations, to_adapt = Joint(learner), spec.pretrain_iterations, _unchanged
        if distribution.train_classes is not None:
            # Trained to tell all classes apart; a new task then starts from its body and a last layer of zeros, since the labels of
            # a task mean nothing outside of it.
            network = build(spec.train.model, INPUT_SHAPES[spec.generate.distribution], distribution.train_classes)
            head = {key: torch.zeros_like(initial[key]) for key in learner.network.head}
            objective = Joint(replace(learner, network=network, loss_scale=1.0))
            initial = network.init(spec.seed)

            def to_adapt(params: Params) -> Params:
                return params | {key: value.to(params[key].device) for key, value in head.items()}

    device = device_named(spec.device)
    distribution = distribution.on(device)
    episode = Episode(spec.train.ways, spec.validation_shots, spec.validation_queries)
    validation = distribution.held_out("validation", episode).to(device)
    trained = Episode(spec.train.ways, spec.train.shots, spec.train.queries)
    trained_on = distribution.train_sample(trained, episode, len(validation)).to(device)  # for the gap between the two

    def predict(params: Params, tasks: TaskBatch) -> Tensor:
        if name == "protonet":

            def of_chunk(chunk: TaskBatch) -> Tensor:
                with torch.no_grad():
                    return scores(embedding.network, params, chunk.ways, chunk.support_x, chunk.support_y, chunk.query_x)

            return torch.cat(side_by_side(of_chunk, tasks.split(embedding.tasks_at_once(tasks)), device))
        return learner.predict(params, tasks.support_x, tasks.support_y, tasks.query_x, spec.train.validation.steps)

    def validate(params: Params) -> dict[str, float]:
        shared, found = to_adapt(params), {}
        for split, tasks in (("validation", validation), ("meta_train", trained_on)):
            outputs = predict(shared, tasks)
            found[f"{split}_loss"] = learner.loss(outputs, tasks.query_y).mean().item()
            if learner.classification:
                found[f"{split}_accuracy"] = (outputs.argmax(-1) == tasks.query_y).float().mean().item()
        return found

    training = Training(
        name=_TITLES.get(name, spec.train.label),
        objective=objective,
        distribution=distribution,
        episode=trained,
        meta_batch_size=spec.train.meta_batch_size,
        iterations=iterations,
        outer=spec.train.outer,
        validate=validate,
        validate_every=spec.train.validation.every,
        checkpoint_every=spec.train.checkpoint_every,
        device=device,
        patience=spec.train.validation.patience,
        project=partial(_keep_within, spec.train.inner.lr_bounds) if spec.train.inner.lr_bounds else None,
    )
    return Phase(training, initial, to_adapt)


def _meta_gradient(spec: PipelineSpec) -> MetaGradientSettings:
    train = spec.train
    return MetaGradientSettings(
        kind=train.meta_gradient,
        unrolled={"auto": None, "unrolled": True, "recursion": False}[train.backward],
        multi_step_until=round(train.multi_step_share * train.iterations) if train.outer_loss == "multi_step" else 0,
        first_order_until=round(train.first_order_share * train.iterations),
        solver_steps=(train.implicit or ImplicitSpec()).solver_steps,
    )


def _keep_within(bounds: tuple[float, float], params: Params) -> None:
    """Move learned step sizes into their bounds."""
    for size in step_sizes.split(params)[1].values():
        size.clamp_(*bounds)


@contextmanager
def _precision(spec: PipelineSpec) -> Iterator[None]:
    """For the length of a block, the precision that a spec asks a GPU's matrix products to have."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if spec.train.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compiles(spec: PipelineSpec) -> Literal["cpu", "cuda"] | None:
    """Whether torch.compile makes the functions of the meta-gradient, and for which device: where asked, else where that is repaid.

    Networks with loops of their own are quicker by these on a CPU.
    """
    device: Literal["cpu", "cuda"] = "cuda" if device_named(spec.device).type == "cuda" else "cpu"
    if spec.train.compile != "auto":
        return device if spec.train.compile == "on" else None
    return device if _compiles_well(spec) and spec.train.iterations >= COMPILE_FROM_ITERATIONS else None


def _compiles_well(spec: PipelineSpec) -> bool:
    """Whether compilation is known to be repaid. For convolutions on a CPU and a user's own network it can take minutes."""
    network = Learner.for_training(spec).network
    on_cpu = device_named(spec.device).type == "cpu"
    return not _has_loops(spec) and isinstance(network, MLP if on_cpu else MLP | Conv4 | ResNet12)


def _has_loops(spec: PipelineSpec) -> bool:
    network = Learner.for_training(spec).network
    on_cpu = device_named(spec.device).type == "cpu"
    return on_cpu and kernels.usable(torch.empty(0)) and network.looped


def computed_by(spec: PipelineSpec) -> str:
    """What computes the meta-gradient, in words, and why."""
    asked = "as asked" if spec.train.compile != "auto" else None
    if compiles(spec):
        return f"torch.compile ({asked or f'repaid by {spec.train.iterations} iterations'})"
    if _has_loops(spec):
        return "the network's own compiled loops"
    if not _compiles_well(spec):
        return f"PyTorch's operations one by one ({asked or 'torch.compile is not known to repay itself for this network'})"
    return f"PyTorch's operations one by one ({asked or f'too few iterations to repay torch.compile: {spec.train.iterations}'})"


def _unchanged(params: Params) -> Params:
    return params
