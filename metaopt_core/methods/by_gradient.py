"""Methods that adapt parameters: the pipeline's own, by gradient steps or a solution, and baselines that are fine-tuned.

A baseline takes plain gradient steps on all parameters, whatever the spec's own inner loop does, with the step size that does
best on the meta-validation tasks, so that none is weaker than it has to be.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from metaopt_core.distributions.batch import Episode, TaskBatch, Tasks
from metaopt_core.meta import step_sizes
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.methods.contract import COLLECTED, DEVIATION, INDUCTIVE, TOGETHER, Predict, Setting
from metaopt_core.networks.build import without_steps
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.network import Params
from metaopt_core.networks.normalization import Given, Noted, Statistics
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.progress import bar

STATISTICS_TASKS = 256
"""The number of meta-train tasks whose queries' statistics are collected for a step."""


@dataclass(frozen=True)
class ByGradient:
    """Parameters ready for tasks (`metaopt_core.methods.contract.Adapter`).

    learner: how they are adapted. baseline: whether by what every step has in common. statistics: of the queries of meta-train
    tasks at the horizon, if every step has its own normalization.
    """

    learner: Learner
    params: Params
    steps: int
    baseline: bool = False
    statistics: Statistics | None = None

    @property
    def inner_lr(self) -> float:
        learned = any(name.startswith(step_sizes.PREFIX) for name in self.params)
        return math.nan if learned or not self.steps or self.learner.head else self.learner.inner_lr

    def tasks_at_once(self, tasks: TaskBatch) -> int:
        return self.learner.tasks_at_once(tasks)

    def to(self, device: torch.device) -> "ByGradient":
        params = {name: value.to(device) for name, value in self.params.items()}
        statistics = self.statistics and {name: (m.to(device), v.to(device)) for name, (m, v) in self.statistics.items()}
        return replace(self, params=params, statistics=statistics)

    def on(self, setting: Setting) -> "ByGradient":
        other = Learner.from_spec(setting.spec, setting.shape)
        network = without_steps(other.network) if self.baseline else other.network
        head = None if self.baseline else other.head
        learner = replace(self.learner, network=network, head=head, loss_scale=other.loss_scale)
        return replace(self, learner=learner, params=with_outputs_of(learner, self.params))

    def adapted(self, tasks: TaskBatch) -> Iterator[Mapping[str, Predict]]:
        network, fixed = self.learner.network, None
        if self.statistics and isinstance(network, Conv4 | ResNet12):
            fixed = replace(self.learner, network=replace(network, normalization=Given("per_step", statistics=self.statistics)))
        for step, theta in enumerate(self.learner.adapt(self.params, tasks, self.steps)):
            together = partial(self.learner.outputs, theta, step)
            found: dict[str, Predict] = {TOGETHER: together, INDUCTIVE: partial(one_by_one, together, support=tasks)}
            if self.learner.head is not None and self.learner.head.predicts_distributions:
                found[DEVIATION] = partial(self.learner.deviation, theta)
            yield found | ({COLLECTED: partial(fixed.outputs, theta, step)} if fixed else {})


def learned(setting: Setting, params: Params, steps: int) -> ByGradient:
    """The pipeline's own parameters, adapted by up to `steps` steps."""
    spec = setting.spec
    found = ByGradient(replace(Learner.from_spec(spec, setting.shape), adaptation="plain"), params, steps)
    if not found.learner.network.per_step:
        return found
    device = device_named(spec.device)
    trained_on = Episode(spec.train.ways, spec.train.most_shots, spec.train.queries, spec.train.fewest_shots)
    episode = Episode(spec.train.ways, spec.evaluate_shots, spec.evaluate_queries)
    tasks = Tasks.trained_on(setting.distribution, trained_on, episode, STATISTICS_TASKS)
    statistics = query_statistics(found.learner, found.to(device).params, tasks, min(steps, spec.horizon), device)
    return replace(found, statistics=statistics)


def fine_tuned(setting: Setting, label: str, params: Params) -> ByGradient:
    """A baseline with the best of the spec's step sizes: by the share of wrong answers, in classification, and then by the loss."""
    spec, device = setting.spec, device_named(setting.spec.device)
    plain = replace(Learner.from_spec(spec, setting.shape), adaptation="plain").as_baseline()
    episode = Episode(spec.train.ways, spec.evaluate_shots, spec.evaluate_queries)
    validation = Tasks.held_out(setting.distribution, "validation", episode).kept()
    losses: dict[float, tuple[float, float]] = {}
    with bar(len(spec.baseline_lrs), f"choosing the step size of {label}") as progress:
        for lr in spec.baseline_lrs:
            tried = ByGradient(replace(plain, inner_lr=lr), params, spec.horizon, baseline=True).to(device)
            losses[lr] = _score(tried, validation, device)
            progress.update(len(losses))
    best = min(losses, key=lambda lr: losses[lr])
    return ByGradient(replace(plain, inner_lr=best), params, spec.evaluate.steps, baseline=True)


def _score(adapter: ByGradient, tasks: Tasks, device: torch.device) -> tuple[float, float]:
    """A score to minimize."""
    learner = adapter.learner
    means = learner.means(lambda part: learner.predict_queries(adapter.params, part, adapter.steps), tasks, device)
    wrong = round(1 - means.get("accuracy", 1.0), 6)  # so that a tie is a tie in any order of summation
    return wrong, means["loss"] if np.isfinite(means["loss"]) else np.inf


def one_by_one(predict: Predict, query_x: Tensor, query_weight: Tensor | None = None, support: TaskBatch | None = None) -> Tensor:
    """The outputs for queries that don't share a batch; each is batched with the support set, if there is one.

    query_weight [tasks, queries] is no weight between queries, of which there is one at a time: what it pads gets some output.
    """
    del query_weight
    if support is None:
        return torch.cat([predict(query, None)[:, -1:] for query in query_x.split(1, 1)], 1)
    x, weight = support.support_x, support.support_weight
    parts = [(torch.cat([x, query], 1), joined_weights(x, weight, query, None)) for query in query_x.split(1, 1)]
    return torch.cat([predict(*part)[:, -1:] for part in parts], 1)


def joined_weights(first_x: Tensor, first: Tensor | None, second_x: Tensor, second: Tensor | None) -> Tensor | None:
    """The weights [tasks, …] of examples that are concatenated; none if neither has any."""
    if first is None and second is None:
        return None
    parts = ((first_x, first), (second_x, second))
    return torch.cat([x.new_ones(x.shape[:2]) if weight is None else weight for x, weight in parts], 1)


def query_statistics(learner: Learner, params: Params, tasks: Tasks, steps: int, device: torch.device) -> Statistics:
    """The mean over tasks of the statistics of queries after `steps` steps, in a network with a normalization for every step.

    The mean over batches is what running statistics approach (Ioffe, Szegedy 2015, section 3.1; in MAML++ they are collected for
    each step).
    """
    network = learner.network
    assert isinstance(network, Conv4 | ResNet12)

    def of_chunk(chunk: TaskBatch) -> dict[str, tuple[Tensor, Tensor]]:
        theta = learner.adapted(params, chunk, steps)
        noted = Noted("per_step")
        with torch.no_grad():
            replace(learner, network=replace(network, normalization=noted)).outputs(theta, steps, chunk.query_x, chunk.query_weight)
        return noted.noted

    chunks = [
        found for part in tasks.parts(device) for found in side_by_side(of_chunk, part.split(learner.tasks_at_once(part)), device)
    ]
    layers = {name: zip(*(chunk[name] for chunk in chunks), strict=True) for name in chunks[0]}
    return {
        name: (torch.cat(means).mean(0).cpu(), torch.cat(variances).mean(0).cpu()) for name, (means, variances) in layers.items()
    }


def with_outputs_of(learner: Learner, params: Params) -> Params:
    """Parameters for a learner with another number of ways: output j starts as the learned output j modulo their number.

    The order of a task's labels has no meaning, so what was learned for one output suits any other, including learned step sizes.
    Outputs that start equal are separated by their labels from the first step on. On Omniglot, from 5 to 20 ways in 3 steps, that
    is worth 6.1 ± 1.7 points of accuracy over starting from the mean of the learned outputs (or from zeros, which is the same).
    """
    wanted = {name: value.shape for name, value in learner.initial(0).items()}

    def resized(name: str, value: Tensor) -> Tensor:
        shape = wanted[name.removeprefix(step_sizes.PREFIX)] if name != step_sizes.EVERY else value.shape
        for axis, size in enumerate(reversed(shape), 1):
            if value.shape[-axis] not in (1, size):
                value = value.index_select(-axis, torch.arange(size, device=value.device) % value.shape[-axis])
        return value

    return {name: resized(name, value) for name, value in params.items()}
