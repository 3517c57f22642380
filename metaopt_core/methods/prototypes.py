"""Prototypical networks (Snell, Swersky, Zemel 2017): a query belongs to the class whose mean is nearest in a learned embedding.

Nothing is adapted: a task's support set only places the class means. The embedding is the network of the spec with `WIDTH` outputs
in place of a task's classes.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.learner import INPUT_SHAPES, Learner
from metaopt_core.networks.build import build
from metaopt_core.networks.network import Network
from metaopt_core.spec.models import PipelineSpec

WIDTH = 64


def embedding_learner(spec: PipelineSpec) -> Learner:
    """ProtoNet's learner: its network is the embedding, its loss the plain mean."""
    network = build(spec.train.model, INPUT_SHAPES[spec.generate.distribution], WIDTH)
    return replace(Learner.for_training(spec), network=network, loss_scale=1.0)


def scores(
    network: Network, params: Mapping[str, Tensor], ways: int, support_x: Tensor, support_y: Tensor, query_x: Tensor
) -> Tensor:
    """Minus the squared distance of each query to each class's mean (section 2.2): the logits [tasks, queries, ways].

    params: shared ones, of the embedding. support_x [tasks, support, …]; support_y [tasks, support], labels; query_x [tasks,
    queries, …]. Support and query examples are one batch to a network that normalizes by its batch.
    """
    embedded = network(for_each_task(params, len(support_x)), torch.cat([support_x, query_x], 1))
    support, query = embedded.split([support_x.shape[1], query_x.shape[1]], 1)
    labels = torch.arange(ways, device=support_y.device)[:, None]  # F.one_hot would wait for the device
    members = (support_y[:, None] == labels).to(support.dtype)  # [tasks, ways, support]
    means = members @ support / members.sum(2, keepdim=True)
    distance: Tensor = (query[:, :, None] - means[:, None]).square().sum(-1)
    return distance.neg()
