"""Meta-training as a spec asks for it: MAML, and the baselines that are trained: on all tasks together, and as a ProtoNet."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from metaopt_core.distributions.batch import Episode, TaskBatch, TaskDistribution
from metaopt_core.learner import INPUT_SHAPES, Learner, device_named
from metaopt_core.meta import step_sizes
from metaopt_core.meta.objectives import joint, maml, protonet
from metaopt_core.meta.outer_loop import Record, Trained, Training, fit
from metaopt_core.models import Params, build, threads_for
from metaopt_core.prototypes import embedding_learner, scores
from metaopt_core.spec.models import PipelineSpec

COMPILE_FROM_ITERATIONS = 20_000
"""Compiling takes about as long as it saves in 10,000 iterations; both grow with the inner steps."""

_TITLES = {"maml": "MAML", "pretrained": "pre-training (baseline)", "protonet": "ProtoNet (baseline)"}


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
) -> dict[str, Trained]:
    """Train, or go on with, every phase; phase → parameters to adapt on the CPU, history and seconds.

    checkpoints: a folder of this training's own. on_record gets (phase, point) of every curve, as it happens.
    """
    results = {}
    for name in ("maml", *spec.baselines):
        phase = _phase(name, spec, distribution)
        examples = spec.train.meta_batch_size * (spec.train.shots + spec.train.queries)
        with threads_for(Learner.for_training(spec).network, examples):
            trained = fit(phase.training, phase.initial, checkpoints / f"{name}.safetensors", partial(on_record, name))
        params = {key: value.detach().cpu() for key, value in phase.to_adapt(trained.params).items()}
        results[name] = replace(trained, params=params)
    return results


def _phase(name: str, spec: PipelineSpec, distribution: TaskDistribution) -> Phase:
    learner = Learner.for_training(spec)
    initial = learner.network.init(spec.seed)
    if name == "maml":
        objective, iterations, to_adapt = maml(learner, spec.train.inner.steps, compiles(spec)), spec.train.iterations, _unchanged
        initial |= step_sizes.initial(spec.train.inner, initial)
    elif name == "protonet":
        embedding = embedding_learner(spec)
        objective, iterations, to_adapt = protonet(embedding), spec.pretrain_iterations, _unchanged
        initial = embedding.network.init(spec.seed)
    else:
        objective, iterations, to_adapt = joint(learner, compiles(spec)), spec.pretrain_iterations, _unchanged
        if distribution.train_classes is not None:
            # Trained to tell all classes apart; a new task then starts from its body and a last layer of zeros, since the labels of
            # a task mean nothing outside of it.
            network = build(spec.train.model, INPUT_SHAPES[spec.generate.distribution], distribution.train_classes)
            head = {key: torch.zeros_like(initial[key]) for key in learner.network.head}
            objective = joint(replace(learner, network=network, loss_scale=1.0))
            initial = network.init(spec.seed)

            def to_adapt(params: Params) -> Params:
                return params | {key: value.to(params[key].device) for key, value in head.items()}

    device = device_named(spec.device)
    episode = Episode(spec.train.ways, spec.validation_shots, spec.validation_queries)
    validation = distribution.held_out("validation", episode).to(device)
    trained_on = distribution.train(episode, 0, len(validation)).to(device)  # a fixed sample, for the gap between the two

    def predict(params: Params, tasks: TaskBatch) -> Tensor:
        if name == "protonet":
            chunks = embedding.chunks(tasks)
            return torch.cat([scores(embedding.network, params, c.support_x, c.support_y, c.query_x) for c in chunks])
        return learner.predict(params, tasks.support_x, tasks.support_y, tasks.query_x, spec.train.validation.steps)

    def validate(params: Params) -> dict[str, float]:
        shared = to_adapt({key: value.detach() for key, value in params.items()})
        found = {}
        with threads_for(learner.network, learner.network.examples_at_once):
            for split, tasks in (("validation", validation), ("meta_train", trained_on)):
                outputs = predict(shared, tasks)
                found[f"{split}_loss"] = learner.loss(outputs, tasks.query_y).mean().item()
                if learner.classification:
                    found[f"{split}_accuracy"] = (outputs.argmax(-1) == tasks.query_y).float().mean().item()
        return found

    training = Training(
        name=_TITLES[name],
        objective=objective,
        distribution=distribution,
        episode=Episode(spec.train.ways, spec.train.shots, spec.train.queries),
        meta_batch_size=spec.train.meta_batch_size,
        iterations=iterations,
        outer=spec.train.outer,
        validate=validate,
        validate_every=spec.train.validation.every,
        checkpoint_every=spec.train.checkpoint_every,
        device=device,
        patience=spec.train.validation.patience,
    )
    return Phase(training, initial, to_adapt)


def compiles(spec: PipelineSpec) -> bool:
    """Whether the meta-gradient is compiled: where asked, else where what it saves is worth more than what it takes."""
    if spec.train.compile != "auto":
        return spec.train.compile == "on"
    return Learner.for_training(spec).network.small and spec.train.iterations >= COMPILE_FROM_ITERATIONS


def _unchanged(params: Params) -> Params:
    return params
