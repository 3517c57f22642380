"""A learner: network, loss and inner step size, all that it takes to adapt given meta-parameters to tasks.

Adaptation here is for use, not for training: no graph through the steps is kept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core import safe_adaptation
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.errors import UserError
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import Loss, for_each_task, gradient_step
from metaopt_core.models import Network, Params, build
from metaopt_core.spec.models import OmniglotSpec, PipelineSpec

_GPU_CHUNK = 64  # times as many examples as on a CPU; not measured

INPUT_SHAPES = {"sinusoid": (1,), "omniglot": (1, 28, 28)}


@dataclass(frozen=True)
class Curves:
    """loss and accuracy of each task's query set after each number of steps: [tasks, steps + 1]; no accuracy in regression."""

    loss: Tensor
    accuracy: Tensor | None


@dataclass(frozen=True)
class Learner:
    """Adapts a network's parameters to tasks by gradient descent on their support sets.

    classification: targets are class labels and the loss is the cross-entropy; else the mean squared error.
    loss_scale: factor of the mean loss over a task's examples; the number of ways where the spec says `sum_over_ways`.
    inner_lr: step size α of parameters that bring no learned ones (`step_sizes`).
    adaptation: `plain` gradient descent, or `safe` (`safe_adaptation`).
    """

    network: Network
    classification: bool
    loss_scale: float
    inner_lr: float
    adaptation: Literal["plain", "safe"] = "plain"

    @classmethod
    def from_spec(cls, spec: PipelineSpec) -> "Learner":
        """The learner as `evaluate` and the logged model use it."""
        return replace(cls._with_step_size(spec, spec.evaluate_inner_lr), adaptation=spec.evaluate.adaptation)

    @classmethod
    def for_training(cls, spec: PipelineSpec) -> "Learner":
        """The learner as `train` uses it."""
        return cls._with_step_size(spec, spec.train.inner.lr)

    @classmethod
    def _with_step_size(cls, spec: PipelineSpec, inner_lr: float) -> "Learner":
        ways = spec.train.ways
        return cls(
            network=build(spec.train.model, INPUT_SHAPES[spec.generate.distribution], ways or 1),
            classification=isinstance(spec.generate, OmniglotSpec),
            loss_scale=float(ways) if ways and spec.train.reduction == "sum_over_ways" else 1.0,
            inner_lr=inner_lr,
        )

    def loss(self, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Each task's loss [tasks], the (weighted) mean over its examples times `loss_scale`.

        outputs [tasks, examples, outputs]; targets [tasks, examples, outputs], or [tasks, examples] class labels; weight
        [tasks, examples].
        """
        each = self._of_each_example(outputs, targets)
        mean = each.mean(1) if weight is None else (each * weight).sum(1) / weight.sum(1)
        return mean if self.loss_scale == 1.0 else mean * self.loss_scale

    def _of_each_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.classification:
            return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")
        return (outputs - targets).square().mean(-1)

    def support_loss(self, batch: TaskBatch) -> Loss:
        """The inner loss: the tasks' losses on their support sets, as a function of their parameters."""
        return lambda params: self.loss(self.network(params, batch.support_x), batch.support_y, batch.support_weight)

    def query_loss(self, batch: TaskBatch) -> Loss:
        """The outer loss: the same on the query sets."""
        return lambda params: self.loss(self.network(params, batch.query_x), batch.query_y, batch.query_weight)

    def chunks(self, batch: TaskBatch) -> Iterator[TaskBatch]:
        """The batch in parts whose activations fit into a CPU's caches or a GPU's memory. Results differ by rounding alone."""
        examples = batch.support_x.shape[1] + batch.query_x.shape[1]
        at_once = self.network.examples_at_once * (_GPU_CHUNK if batch.support_x.is_cuda else 1)
        size = max(1, at_once // examples)
        return (batch[start : start + size] for start in range(0, len(batch), size))

    def adapt(self, params: Mapping[str, Tensor], batch: TaskBatch, steps: int) -> Iterator[Params]:
        """The tasks' parameters after 0, 1, …, `steps` steps from shared ones, each name → [tasks, …]."""
        shared, learned = step_sizes.split(params)
        theta, loss = for_each_task(shared, len(batch)), self.support_loss(batch)
        if self.adaptation == "safe":
            sizes = [step_sizes.at(learned, shared, step, self.inner_lr) for step in range(steps)]
            ones = torch.ones(batch.support_x.shape[:2], device=batch.support_x.device)
            labels = batch.support_y if self.classification else ones
            weight = ones if batch.support_weight is None else batch.support_weight

            def losses(params: Mapping[str, Tensor]) -> Tensor:
                return self.loss_scale * self._of_each_example(self.network(params, batch.support_x), batch.support_y)

            yield from safe_adaptation.adapt(losses, weight, labels, theta, sizes)
            return
        yield theta
        for step in range(steps):
            theta = gradient_step(loss, theta, step_sizes.at(learned, shared, step, self.inner_lr))
            yield theta

    def curves(self, params: Mapping[str, Tensor], batch: TaskBatch, steps: int) -> "Curves":
        """What adaptation does to the tasks' query sets: loss and accuracy after 0, 1, …, `steps` steps."""
        losses, accuracies = [], []
        for chunk in self.chunks(batch):
            for theta in self.adapt(params, chunk, steps):
                with torch.no_grad():
                    outputs = self.network(theta, chunk.query_x)
                    losses.append(self.loss(outputs, chunk.query_y, chunk.query_weight))
                    if self.classification:
                        accuracies.append((outputs.argmax(-1) == chunk.query_y).float().mean(1))

        def by_task(values: list[Tensor]) -> Tensor:
            chunks = [torch.stack(values[first : first + steps + 1], 1) for first in range(0, len(values), steps + 1)]
            return torch.cat(chunks).cpu()

        return Curves(by_task(losses), by_task(accuracies) if self.classification else None)

    def predict(self, params: Mapping[str, Tensor], support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int) -> Tensor:
        """The network's outputs [tasks, queries, outputs] for the queries after `steps` steps on the support sets.

        support_x [tasks, support, …]; support_y [tasks, support] labels or [tasks, support, 1]; query_x [tasks, queries, …].
        """
        outputs = []
        for chunk in self.chunks(TaskBatch(support_x, support_y, query_x, query_x)):
            *_, adapted = self.adapt(params, chunk, steps)
            with torch.no_grad():
                outputs.append(self.network(adapted, chunk.query_x))
        return torch.cat(outputs)


def device_named(name: str) -> torch.device:
    """The device that a spec names: `auto` is the GPU where there is one, else the CPU. Raises UserError where it isn't there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: cuda, but PyTorch finds no GPU that it can use here: expected auto or cpu, or a CUDA build of PyTorch"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
