"""Class means in a learned embedding: the objective that learns it, and the predictions by it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.gradients import MetaGradient, for_each_task
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.objectives import PARTS
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.methods.by_gradient import joined_weights, one_by_one
from metaopt_core.methods.contract import INDUCTIVE, TOGETHER, Predict, Setting
from metaopt_core.networks.build import build
from metaopt_core.networks.network import Params
from metaopt_core.spec.distribution import TaskShape

if TYPE_CHECKING:
    from metaopt_core.spec.pipeline import PipelineSpec  # all components; what a logged model takes along needs none
    from metaopt_core.spec.train import TrainSpec

WIDTH = 64


def embedding_learner(spec: "PipelineSpec", shape: TaskShape) -> Learner:
    """ProtoNet's learner: its network is the embedding, its loss the plain mean."""
    network = build(spec.train.model, shape.input_shape, WIDTH)
    return replace(Learner.for_training(spec, shape), network=network, head=None, loss_scale=1.0)


def served(train: "TrainSpec", shape: TaskShape, params: Params) -> "ByPrototypes":
    """ProtoNet as a logged model has it."""
    learner = Learner.of(train, shape, train.inner.lr)
    return ByPrototypes(replace(learner, network=build(train.model, shape.input_shape, WIDTH), loss_scale=1.0), params)


class NearestMean:
    """The loss of telling the queries apart by the nearest class mean in the embedding (Snell et al. 2017, algorithm 1).

    The learner's network is the embedding.
    """

    def __init__(self, learner: Learner):
        self._learner = learner

    def __call__(self, params: Params, batch: TaskBatch, iteration: int = 0) -> MetaGradient:  # noqa: ARG002
        learner = self._learner

        def of_chunk(chunk: TaskBatch) -> tuple[tuple[Tensor, ...], Tensor]:
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            found = scores(learner, leaves, chunk, chunk.query_x, chunk.query_weight)
            losses = learner.loss(found, chunk.query_y, chunk.query_weight)
            return torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True), losses.detach()

        size = min(learner.tasks_at_once(batch), math.ceil(len(batch) / PARTS))
        gradients, losses = zip(*side_by_side(of_chunk, batch.split(size), batch.support_x.device), strict=True)
        mean = (torch.stack(parts).sum(0) / len(batch) for parts in zip(*gradients, strict=True))
        return MetaGradient(dict(zip(params, mean, strict=True)), torch.cat(losses))


def scores(
    learner: Learner, params: Mapping[str, Tensor], tasks: TaskBatch, query_x: Tensor, query_weight: Tensor | None = None
) -> Tensor:
    """Minus the squared distance of each query to each class's mean (section 2.2): the logits [tasks, queries, ways].

    params: shared ones, of the embedding. tasks: the support sets. query_x [tasks, queries, …]; query_weight [tasks, queries].
    Support and query examples are one batch to a network that normalizes by its batch. A class's mean is by the examples' weights.
    No query belongs to a class without support examples, unless none has any: then all are alike.
    """
    support_x, support_y, support_weight = tasks.support_x, tasks.support_y, tasks.support_weight
    weight = joined_weights(support_x, support_weight, query_x, query_weight)
    embedded = learner.outputs(for_each_task(params, len(support_x)), 0, torch.cat([support_x, query_x], 1), weight)
    support, query = embedded.split([support_x.shape[1], query_x.shape[1]], 1)
    labels = torch.arange(tasks.ways, device=support_y.device)[:, None]  # F.one_hot would wait for the device
    members = (support_y[:, None] == labels).to(support.dtype)  # [tasks, ways, support]
    if support_weight is not None:
        members = members * support_weight[:, None]
    total = members.sum(2)
    means = members @ support / total.clamp(min=torch.finfo(total.dtype).tiny)[..., None]
    distance: Tensor = (query[:, :, None] - means[:, None]).square().sum(-1)
    unknown = (total == 0) & (total > 0).any(1, keepdim=True)
    return distance.neg().masked_fill(unknown[:, None], -torch.inf)


def predictions(embedding: Learner, params: Params, tasks: TaskBatch) -> Tensor:
    """The scores of all queries [tasks, queries, ways], chunk by chunk."""

    def of_chunk(chunk: TaskBatch) -> Tensor:
        with torch.no_grad():
            return scores(embedding, params, chunk, chunk.query_x, chunk.query_weight)

    return torch.cat(side_by_side(of_chunk, tasks.split(embedding.tasks_at_once(tasks)), tasks.support_x.device))


@dataclass(frozen=True)
class ByPrototypes:
    """ProtoNet ready for tasks (`metaopt_core.methods.contract.Adapter`)."""

    learner: Learner
    params: Params

    steps = 0
    inner_lr = math.nan

    def tasks_at_once(self, tasks: TaskBatch) -> int:
        return self.learner.tasks_at_once(tasks)

    def to(self, device: torch.device) -> "ByPrototypes":
        return replace(self, params={name: value.to(device) for name, value in self.params.items()})

    def on(self, setting: Setting) -> "ByPrototypes":  # noqa: ARG002 - the embedding is the same whatever the ways
        return self

    def adapted(self, tasks: TaskBatch) -> Iterator[Mapping[str, Predict]]:
        # puts the support set beside the queries by itself
        together = partial(scores, self.learner, self.params, tasks)
        yield {TOGETHER: together, INDUCTIVE: partial(one_by_one, together)}
