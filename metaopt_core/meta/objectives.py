"""What an outer step descends: a function of parameters and a batch of tasks that gives a gradient and a loss a task."""

import math
import time
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.learner import Learner
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import MetaGradient, by_task, for_each_task, meta_gradient
from metaopt_core.meta.problems import Problem
from metaopt_core.models import Params
from metaopt_core.parallel import THREADS, side_by_side


@dataclass(frozen=True)
class Plan:
    """How a meta-gradient is computed, which changes its speed alone. tasks_at_once: in a chunk; unrolled: see `by_task`."""

    tasks_at_once: int
    unrolled: bool


class Objective(Protocol):
    """A gradient and the tasks' losses."""

    plan: Plan | None

    def __call__(self, params: Params, batch: TaskBatch) -> MetaGradient: ...

    def measure(self, params: Params, batch: TaskBatch) -> None:
        """Choose a plan by short measurements on a batch, where there is a choice."""


_UNROLLED_BYTES = 2**30  # of what unrolled steps may keep
_MEASUREMENTS = 3


class MAML:
    """The query loss after adaptation, by its exact gradient (Finn, Abbeel, Levine 2017, equation 1).

    unrolled: whether every inner step's linearization is kept; none: where it fits into memory and is quicker.
    """

    def __init__(self, learner: Learner, steps: int, unrolled: bool | None = False):
        self._learner, self._steps, self._unrolled = learner, steps, unrolled
        self.plan: Plan | None = None

    def __call__(self, params: Params, batch: TaskBatch) -> MetaGradient:
        return self._run(params, batch, self.plan or Plan(self._learner.tasks_at_once(batch), bool(self._unrolled)))

    def _run(self, params: Params, batch: TaskBatch, plan: Plan) -> MetaGradient:
        learner = self._learner

        def problem(chunk: TaskBatch) -> tuple[Problem, Problem, Params, int, float, int, bool]:
            support, query = learner.support(chunk), learner.query(chunk)
            return support, query, params, len(chunk), learner.inner_lr, self._steps, plan.unrolled

        if learner.compiled == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # what CUDA graphs gave in the step before may be overwritten
        if plan.tasks_at_once >= len(batch):
            return meta_gradient(*problem(batch))
        found = side_by_side(lambda chunk: by_task(*problem(chunk)), batch.split(plan.tasks_at_once), batch.support_x.device)
        # The mean is over all tasks at once, so that it doesn't depend on the chunks.
        gradient = {name: torch.cat([gradients[name] for gradients, _ in found]).mean(0) for name in params}
        return MetaGradient(gradient, torch.cat([losses for _, losses in found]))

    def measure(self, params: Params, batch: TaskBatch) -> None:
        if self._learner.network.small and self._learner.tasks_at_once(batch) == len(batch):
            self.plan = Plan(len(batch), bool(self._unrolled))
            return
        largest = math.ceil(len(batch) / (THREADS if batch.support_x.device.type == "cpu" else 1))
        sizes = sorted({max(1, math.ceil(largest / 2**halvings)) for halvings in range(4)})
        plans = [Plan(size, bool(self._unrolled)) for size in sizes]
        best = min(plans, key=lambda plan: self._seconds(params, batch, plan))
        if self._unrolled is None and self._steps > 1 and self._unrolled_bytes(params, batch, best) <= _UNROLLED_BYTES:
            best = min((best, replace(best, unrolled=True)), key=lambda plan: self._seconds(params, batch, plan))
        self.plan = best

    def _seconds(self, params: Params, batch: TaskBatch, plan: Plan) -> float:
        seconds = []
        for _ in range(_MEASUREMENTS):
            _finish(batch.support_x.device)
            start = time.perf_counter()
            self._run(params, batch, plan)
            _finish(batch.support_x.device)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def _unrolled_bytes(self, params: Params, batch: TaskBatch, plan: Plan) -> int:
        """What all steps of the chunks that are computed side by side would keep."""
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        chunk = batch[: plan.tasks_at_once]
        shared, _ = step_sizes.split(params)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            support = self._learner.support(chunk)
            linearization = support.linearized(for_each_task(support.pack(shared), len(chunk)))
        del linearization
        return sum(kept.values()) * self._steps * THREADS


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Joint:
    """The loss on the examples of all tasks together, without adaptation: what the pre-trained baseline is trained by.

    For classification, the labels are the classes of the whole split, and the learner's network has an output for each.
    """

    plan: Plan | None = None

    def __init__(self, learner: Learner):
        self._learner = learner

    def __call__(self, params: Params, batch: TaskBatch) -> MetaGradient:
        learner = self._learner
        x, y = torch.cat([batch.support_x, batch.query_x], 1), torch.cat([batch.support_y, batch.query_y], 1)
        if batch.classes is not None:
            y = batch.classes.gather(1, y)
        leaves = {name: value.detach() for name, value in params.items()}
        if learner.has_loops_for(x, y):  # no example depends on another's, so tasks may be computed one by one
            problem = learner.query(TaskBatch(x, y, x, y))
            theta = for_each_task(problem.pack(leaves), len(batch))
            losses, found = problem.gradient(theta)
            return MetaGradient(problem.unpack({name: g.mean(0) for name, g in zip(theta, found, strict=True)}), losses)
        leaves = {name: value.requires_grad_() for name, value in leaves.items()}
        one_task = {name: value[None] for name, value in leaves.items()}
        outputs = learner.network(one_task, x.flatten(0, 1)[None])  # [1, tasks · examples, outputs]
        losses = learner.loss(outputs.view(*x.shape[:2], -1), y)
        gradient = torch.autograd.grad(losses.mean(), list(leaves.values()))
        return MetaGradient(dict(zip(params, gradient, strict=True)), losses.detach())

    def measure(self, params: Params, batch: TaskBatch) -> None:
        """There is no choice."""
