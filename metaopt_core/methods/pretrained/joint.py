"""The objective of joint pre-training: the loss on the examples of all tasks together."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.gradients import MetaGradient, for_each_task
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.objectives import PARTS
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.networks.network import Params


class Joint:
    """The loss on the examples of all tasks together, without adaptation.

    For classification, the labels are the classes of the whole split, and the learner's network has an output for each. A network
    that normalizes by its batch does so by a quarter of the examples at a time, as batch norm does where a batch is spread over
    devices.
    """

    def __init__(self, learner: Learner):
        self._learner = learner

    def __call__(self, params: Params, batch: TaskBatch, iteration: int = 0) -> MetaGradient:  # noqa: ARG002
        learner, tasks = self._learner, len(batch)
        if batch.classes is not None:
            labels = (batch.classes.gather(1, y) for y in (batch.support_y, batch.query_y))
            batch = replace(batch, **dict(zip(("support_y", "query_y"), labels, strict=True)))
        everything = learner.everything(batch)
        x, y, weight = everything.support_x, everything.support_y, everything.support_weight

        def of_part(part: TaskBatch) -> tuple[Params, Tensor]:
            x, y, weight, size = part.query_x, part.query_y, part.query_weight, len(part)
            if learner.network.transductive:
                x, y = x.flatten(0, 1)[None], y.flatten(0, 1)[None]
                weight = None if weight is None else weight.flatten()[None]
            loss = learner.query(TaskBatch(x, y, x, y, weight, weight))(0)
            theta = for_each_task(loss.pack(params), len(x))
            losses, found = loss.gradient(theta)
            share = size / tasks / len(x)
            gradient = {name: g.sum(0) * share for name, g in zip(theta, found, strict=True)}
            return loss.unpack(gradient), losses.repeat_interleave(size // len(x))

        size = tasks if learner.network.small else math.ceil(tasks / PARTS)
        parts = side_by_side(of_part, TaskBatch(x, y, x, y, weight, weight).split(size), x.device)
        gradient = {name: torch.stack([gradients[name] for gradients, _ in parts]).sum(0) for name in params}
        return MetaGradient(gradient, torch.cat([losses for _, losses in parts]))
