"""The objective of heads in closed form: a loss of queries, or of all rows, differentiated through the solution."""

import math

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.gradients import MetaGradient
from metaopt_core.meta.heads.head import Rows
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.objectives import PARTS, Plan
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.networks.network import Params

_FEWEST_ROWS = 500  # of a chunk: with fewer, a small network takes less time than what is around its operations


class AfterSolving:
    """What a learner's head makes of a batch of tasks. Features of support and query rows of all tasks of a chunk are computed
    together, once, by shared parameters; only the head is of each task."""

    plan: Plan | None = None

    def __init__(self, learner: Learner):
        assert learner.head is not None, "there is no head to solve for"
        self._learner, self._head = learner, learner.head

    def __call__(self, params: Params, batch: TaskBatch, iteration: int = 0) -> MetaGradient:  # noqa: ARG002
        def of_chunk(chunk: TaskBatch) -> tuple[tuple[Tensor, ...], Tensor, dict[str, Tensor]]:
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            support, query = self._rows(leaves, chunk)
            losses, notes = self._head.losses(leaves, support, query, self._learner.loss)
            gradient = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
            return gradient, losses.detach(), dict(notes)

        rows = batch.support_x.shape[1] + batch.query_x.shape[1]
        size = min(self._learner.tasks_at_once(batch), max(math.ceil(len(batch) / PARTS), math.ceil(_FEWEST_ROWS / rows)))
        found = side_by_side(of_chunk, batch.split(size), batch.support_x.device)
        gradients, losses, notes = zip(*found, strict=True)
        mean = (torch.stack(parts).sum(0) / len(batch) for parts in zip(*gradients, strict=True))
        joined = {name: torch.cat([of_chunk[name] for of_chunk in notes]) for name in notes[0]}
        return MetaGradient(dict(zip(params, mean, strict=True)), torch.cat(losses), joined)

    def _rows(self, params: Params, tasks: TaskBatch) -> tuple[Rows, Rows]:
        """Of the support sets and of the queries. A network that normalizes by its batch meets them one after the other, as it does
        in use."""
        learner, x, weight = self._learner, (tasks.support_x, tasks.query_x), (tasks.support_weight, tasks.query_weight)
        if learner.network.transductive:
            features = [learner.features(params, *part) for part in zip(x, weight, strict=True)]
        else:
            both = learner.features(params, torch.cat(x, 1))
            features = list(both.split([part.shape[1] for part in x], 1))
        return Rows(features[0], tasks.support_y, weight[0]), Rows(features[1], tasks.query_y, weight[1])

    def measure(self, params: Params, batch: TaskBatch) -> None:
        """There is no choice."""
