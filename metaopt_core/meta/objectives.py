"""What an outer step descends: a function of parameters and a batch of tasks that gives a gradient and a loss a task."""

import sys
from collections.abc import Callable

import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.learner import Learner
from metaopt_core.meta.gradients import MetaGradient, meta_gradient
from metaopt_core.models import Params
from metaopt_core.prototypes import scores

Objective = Callable[[Params, TaskBatch], MetaGradient]


def maml(learner: Learner, steps: int, compiled: bool = False) -> Objective:
    """The query loss after adaptation, by its exact gradient (Finn, Abbeel, Levine 2017, equation 1)."""

    def of_chunk(params: Params, chunk: TaskBatch) -> MetaGradient:
        shared = {name: value.detach() for name, value in params.items()}
        return meta_gradient(learner.support_loss(chunk), learner.query_loss(chunk), shared, len(chunk), learner.inner_lr, steps)

    run = _compiled(of_chunk) if compiled else of_chunk

    def objective(params: Params, batch: TaskBatch) -> MetaGradient:
        parts = [(len(chunk) / len(batch), run(params, chunk)) for chunk in learner.chunks(batch)]
        if len(parts) == 1:
            return parts[0][1]
        gradient = {name: torch.stack([share * part.gradient[name] for share, part in parts]).sum(0) for name in params}
        return MetaGradient(gradient, torch.cat([part.losses for _, part in parts]))

    return objective


def protonet(learner: Learner) -> Objective:
    """The loss of telling the queries apart by the nearest class mean in the embedding (Snell et al. 2017, algorithm 1).

    The learner's network is the embedding.
    """

    def objective(params: Params, batch: TaskBatch) -> MetaGradient:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        losses = []
        for chunk in learner.chunks(batch):
            found = scores(learner.network, leaves, chunk.support_x, chunk.support_y, chunk.query_x)
            losses.append(learner.loss(found, chunk.query_y, chunk.query_weight))
            (losses[-1].sum() / len(batch)).backward()
        gradient = {name: value.grad if value.grad is not None else torch.zeros_like(value) for name, value in leaves.items()}
        return MetaGradient(gradient, torch.cat(losses).detach())

    return objective


def _compiled(objective: Objective) -> Objective:
    """The same, compiled at its first call; where that fails, one line says so and it runs as it is."""
    import torch._dynamo  # takes a second, so only where it is needed

    run = torch.compile(objective)
    called = False

    def call(params: Params, batch: TaskBatch) -> MetaGradient:
        nonlocal run, called
        if called:
            return run(params, batch)
        called = True
        try:
            torch._dynamo.config.trace_autograd_ops = True  # follow torch.autograd.grad instead of giving up at it
            return run(params, batch)
        except Exception as error:
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            sys.stderr.write(f"training goes on without compilation, more slowly: {reason[0]}\n")
            run = objective
            return run(params, batch)

    return call


def joint(learner: Learner, compiled: bool = False) -> Objective:
    """The loss on the examples of all tasks together, without adaptation: what the pre-trained baseline is trained by.

    For classification, the labels are the classes of the whole split, and the learner's network has an output for each.
    """

    def objective(params: Params, batch: TaskBatch) -> MetaGradient:
        x, y = torch.cat([batch.support_x, batch.query_x], 1), torch.cat([batch.support_y, batch.query_y], 1)
        if batch.classes is not None:
            y = batch.classes.gather(1, y)
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        one_task = {name: value[None] for name, value in leaves.items()}
        outputs = learner.network(one_task, x.flatten(0, 1)[None])  # [1, tasks · examples, outputs]
        losses = learner.loss(outputs.view(*x.shape[:2], -1), y)
        gradient = torch.autograd.grad(losses.mean(), list(leaves.values()))
        return MetaGradient(dict(zip(params, gradient, strict=True)), losses.detach())

    return _compiled(objective) if compiled else objective
