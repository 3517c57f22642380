"""Meta-training as a spec asks for it: MAML, and the baseline that is pre-trained on all tasks together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from metaopt_core.distributions.batch import Episode, TaskDistribution
from metaopt_core.learner import INPUT_SHAPES, Learner, device_named
from metaopt_core.meta import step_sizes
from metaopt_core.meta.objectives import joint, maml
from metaopt_core.meta.outer_loop import Record, Trained, Training, fit
from metaopt_core.models import Params, build, threads_for
from metaopt_core.spec.models import PipelineSpec

COMPILE_FROM_ITERATIONS = 20_000
"""Compiling takes about as long as it saves in 10,000 iterations; both grow with the inner steps."""

PHASES = ("maml", "pretrained")


@dataclass(frozen=True)
class Phase:
    """One of the two trainings, its initial parameters, and how its parameters become the ones that are adapted."""

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
    for name in PHASES:
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
    validation = distribution.held_out("validation", Episode(spec.train.ways, spec.validation_shots, spec.validation_queries)).to(
        device
    )

    def validate(params: Params) -> dict[str, float]:
        shared = to_adapt({key: value.detach() for key, value in params.items()})
        tasks, steps = validation, spec.train.validation.steps
        with threads_for(learner.network, learner.network.examples_at_once):
            outputs = learner.predict(shared, tasks.support_x, tasks.support_y, tasks.query_x, steps)
        found = {"validation_loss": learner.loss(outputs, tasks.query_y).mean().item()}
        if learner.classification:
            found["validation_accuracy"] = (outputs.argmax(-1) == tasks.query_y).float().mean().item()
        return found

    training = Training(
        name={"maml": "MAML", "pretrained": "pre-training (baseline)"}[name],
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
    )
    return Phase(training, initial, to_adapt)


def compiles(spec: PipelineSpec) -> bool:
    """Whether the meta-gradient is compiled: where asked, else where what it saves is worth more than what it takes."""
    if spec.train.compile != "auto":
        return spec.train.compile == "on"
    return Learner.for_training(spec).network.small and spec.train.iterations >= COMPILE_FROM_ITERATIONS


def _unchanged(params: Params) -> Params:
    return params
