"""What an outer step minimizes: a function of parameters and a batch of tasks that returns a gradient and each task's loss."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import ByTask, MetaGradient, exact, first_order, for_each_task, implicit, reptile
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.losses import TaskLoss
from metaopt_core.meta.parallel import side_by_side
from metaopt_core.networks.network import Params
from metaopt_core.spec.train import ImplicitSpec, TrainSpec


@dataclass(frozen=True)
class Plan:
    """How a meta-gradient is computed, which changes its speed and its rounding. tasks_at_once: in a chunk; unrolled: as in
    `MetaGradientSettings`."""

    tasks_at_once: int
    unrolled: bool


class Objective(Protocol):
    """A gradient and the tasks' losses: the same bits whatever the clock says and however many cores there are."""

    def __call__(self, params: Params, batch: TaskBatch, iteration: int) -> MetaGradient: ...


PARTS = 4  # of a baseline's meta-batch, side by side: a number of their own, so that no result depends on the number of cores
_CHUNKS = 8  # of a meta-batch, at least: so that eight cores have work
_UNROLLED_BYTES = 2**28  # of what the unrolled steps of a chunk may keep
_SMALLEST_SHARE = 0.03  # of a loss before the last one, times the number of steps, while such losses count at all


@dataclass(frozen=True)
class MetaGradientSettings:
    """How the meta-gradient of an adapted loss is made (`metaopt_core.meta.gradients` has the equations).

    kind: `exact`, `first_order`, `reptile` or `implicit`. unrolled: see `InnerLoop.there_and_back`; none: if it fits into
    memory. multi_step_until: up to this iteration the losses after every step count, with increasing weight on the
    last (Antoniou et al. 2019, section 4). first_order_until: up to this iteration, `exact` leaves second derivatives out
    (ibid.). solver_steps: of conjugate gradients.
    """

    kind: Literal["exact", "first_order", "reptile", "implicit"] = "exact"
    unrolled: bool | None = False
    multi_step_until: int = 0
    first_order_until: int = 0
    solver_steps: int = 5

    def weights(self, steps: int, iteration: int) -> list[float]:
        """w_1, …, w_K of the losses after each step: equal at first, then with increasing weight on the last."""
        if iteration >= self.multi_step_until:
            return [0.0] * (steps - 1) + [1.0]
        others = max((1 - iteration / self.multi_step_until) / steps, _SMALLEST_SHARE / steps)
        return [others] * (steps - 1) + [1 - (steps - 1) * others]


EXACT = MetaGradientSettings()


class AfterAdaptation:
    """The query loss after the inner loop (Finn, Abbeel, Levine 2017, equation 1, and its successors)."""

    def __init__(self, learner: Learner, steps: int, settings: MetaGradientSettings = EXACT):
        if steps < 1:
            raise ValueError(f"{steps} inner steps: expected at least 1")
        self._learner, self._steps, self._settings = learner, steps, settings
        self._plans: dict[tuple[torch.Size, torch.Size], Plan] = {}

    @classmethod
    def from_spec(cls, learner: Learner, train: TrainSpec) -> "AfterAdaptation":
        """The objective of a spec."""
        settings = MetaGradientSettings(
            kind=train.meta_gradient,
            unrolled={"auto": None, "unrolled": True, "recursion": False}[train.backward],
            multi_step_until=round(train.multi_step_share * train.iterations) if train.outer_loss == "multi_step" else 0,
            first_order_until=round(train.first_order_share * train.iterations),
            solver_steps=(train.implicit or ImplicitSpec()).solver_steps,
        )
        return cls(learner, train.inner.steps, settings)

    def __call__(self, params: Params, batch: TaskBatch, iteration: int) -> MetaGradient:
        shapes = batch.support_x.shape, batch.query_x.shape
        if shapes not in self._plans:
            self._plans[shapes] = self.plan(params, batch)
        return self.by_plan(params, batch, self._plans[shapes], iteration)

    def by_plan(self, params: Params, batch: TaskBatch, plan: Plan, iteration: int) -> MetaGradient:
        if self._learner.compiled == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # results of CUDA graphs from the previous step may be overwritten
        if plan.tasks_at_once >= len(batch):
            found, loss = self._of_chunk(params, batch, plan, iteration)
            gradient = loss.unpack({name: _mean(value, len(batch)) for name, value in found.packed.items()})
            sizes = {name: _mean(value, len(batch)) for name, value in self._by_sizes(params, found, loss).items()}
            return MetaGradient(gradient | sizes, found.losses, found.notes)

        def of_chunk(chunk: TaskBatch) -> tuple[Params, ByTask]:
            found, loss = self._of_chunk(params, chunk, plan, iteration)
            return loss.unpack(found.packed) | self._by_sizes(params, found, loss), found

        parts = side_by_side(of_chunk, batch.split(plan.tasks_at_once), batch.support_x.device)
        # The mean is over all tasks at once, so that chunks add no rounding of their own.
        gradient = {name: _mean(torch.cat([gradients[name] for gradients, _ in parts]), len(batch)) for name in params}
        notes = {name: torch.cat([found.notes[name] for _, found in parts]) for name in parts[0][1].notes}
        return MetaGradient(gradient, torch.cat([found.losses for _, found in parts]), notes)

    def _of_chunk(self, params: Params, chunk: TaskBatch, plan: Plan, iteration: int) -> tuple[ByTask, TaskLoss]:
        learner, settings = self._learner, self._settings
        shared, learned = step_sizes.split(params)
        loop = learner.inner_loop(learner.everything(chunk) if settings.kind == "reptile" else chunk, params, self._steps)
        query, loss = learner.query(chunk), loop.loss_at(0)
        theta = for_each_task(loss.pack(shared), len(chunk))
        weights, sizes_too = settings.weights(self._steps, iteration), bool(learned)
        match settings.kind:
            case "reptile":
                found = reptile(loop, query, theta)
            case "implicit":
                found = implicit(loop, query, theta, settings.solver_steps)
            case "exact" if iteration >= settings.first_order_until:
                found = exact(loop, query, theta, weights, sizes_too, plan.unrolled)
            case _:
                found = first_order(loop, query, theta, weights, sizes_too)
        return found, loss

    def _by_sizes(self, params: Params, found: ByTask, loss: TaskLoss) -> Params:
        learned, adapts = step_sizes.split(params)[1], self._learner.rule.adapts
        by_step = [loss.unpack(one) for one in found.by_step]
        if adapts is not None:  # the step size of parameters that don't move is zero, whatever was learned
            by_step = [{name: value for name, value in one.items() if name in adapts} for one in by_step]
        return step_sizes.gradient(learned, by_step, len(found.losses))

    def plan(self, params: Params, batch: TaskBatch) -> Plan:
        """How the meta-gradient of such a batch is computed: a function only of its shape.

        Matrix products of another number of tasks round differently, and so may a gradient that is made again. If the plan were
        what is quickest just now, one seed would have several results.
        """
        learner, unrolled = self._learner, self._settings.unrolled
        if learner.network.small:  # quick however it is done, and sums over tasks are made in chunks
            return Plan(learner.tasks_at_once(batch), bool(unrolled))
        chunks = _CHUNKS if batch.support_x.device.type == "cpu" else 1
        size = min(learner.tasks_at_once(batch), math.ceil(len(batch) / chunks))
        if unrolled is None:
            several = self._settings.kind == "exact" and self._steps > 1
            unrolled = several and self._unrolled_bytes(params, batch[:size]) <= _UNROLLED_BYTES
        return Plan(size, unrolled)

    def _unrolled_bytes(self, params: Params, chunk: TaskBatch) -> int:
        """What all steps of a chunk would keep, however many of its examples count."""
        shared, _ = step_sizes.split(params)
        support = self._learner.support(replace(chunk, support_weight=None))[0]
        return support.bytes_kept(for_each_task(support.pack(shared), len(chunk))) * self._steps


def _mean(gradients: Tensor, tasks: int) -> Tensor:
    """The mean over tasks of gradients [tasks, …], or of their sums over some of the tasks."""
    return (gradients[0] if len(gradients) == 1 else gradients.sum(0)) / tasks
