"""A learner: network, loss and inner step size, which is all that is needed to adapt given meta-parameters to tasks.

Adaptation here is for use, not for training: no graph through the steps is kept.
"""

import fnmatch
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch, Tasks
from metaopt_core.errors import UserError
from metaopt_core.meta import checks, safe_adaptation, step_sizes
from metaopt_core.meta.convolutional import CrossEntropyConv4
from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.heads.build import head_of
from metaopt_core.meta.heads.head import Head, Rows
from metaopt_core.meta.inner_loop import GRADIENT_DESCENT, InnerLoop, Rule
from metaopt_core.meta.losses import Compiled, CompiledFunctions, Differentiated, Queries, SquaredErrorMLP, TaskLoss
from metaopt_core.meta.parallel import one_thread, side_by_side
from metaopt_core.meta.per_step import AtStep, at_step
from metaopt_core.meta.step_sizes import Size, Sizes
from metaopt_core.networks.build import build, without_steps
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Network, Params
from metaopt_core.spec.distribution import TaskShape
from metaopt_core.spec.networks import unknown_parameter
from metaopt_core.spec.train import TrainSpec

if TYPE_CHECKING:
    from metaopt_core.spec.pipeline import PipelineSpec  # it imports all components, which the logged model doesn't need

_GPU_CHUNK = 64  # times as many examples as on a CPU; not measured


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
    compiled: whether, and for which device, torch.compile makes the functions that gradients are computed by.
    rule: what the inner loop makes of a gradient, and which parameters it moves.
    bfloat16: whether a GPU computes the network in it; parameters and their updates are float32.
    head: what is solved for instead of gradient steps; none: there are steps. See `_solve`.
    """

    network: Network
    classification: bool
    loss_scale: float
    inner_lr: float
    adaptation: Literal["plain", "safe"] = "plain"
    compiled: Literal["cpu", "cuda"] | None = None
    rule: Rule = GRADIENT_DESCENT
    bfloat16: bool = False
    head: Head | None = None

    @classmethod
    def from_spec(cls, spec: "PipelineSpec", shape: TaskShape) -> "Learner":
        """The learner as `evaluate` and the logged model use it, for tasks of a shape."""
        return replace(cls.of(spec.train, shape, spec.evaluate_inner_lr), adaptation=spec.evaluate.adaptation)

    @classmethod
    def for_training(cls, spec: "PipelineSpec", shape: TaskShape) -> "Learner":
        """The learner as `train` uses it, for tasks of a shape."""
        learner = cls.of(spec.train, shape, spec.train.inner.lr)
        return replace(learner, bfloat16=spec.train.precision == "bfloat16")

    @classmethod
    def of(cls, train: TrainSpec, shape: TaskShape, inner_lr: float) -> "Learner":
        """The learner for parameters that were trained this way, for tasks of a shape; inner_lr: if step sizes aren't learned."""
        ways = train.ways
        network = build(train.model, shape.input_shape, shape.outputs_for(ways), train.inner.steps)
        return cls(
            network=network,
            classification=shape.targets == "classes",
            loss_scale=float(ways) if ways and train.reduction == "sum_over_ways" else 1.0,
            inner_lr=inner_lr,
            rule=_rule(train, network),
            head=head_of(train.inner, network, shape.targets == "classes"),
        )

    def as_baseline(self) -> "Learner":
        """The learner that fine-tunes a baseline: plain gradient descent on all parameters, which are shared by all steps."""
        return replace(self, network=without_steps(self.network), rule=GRADIENT_DESCENT, adaptation="plain", head=None)

    def initial(self, seed: int) -> Params:
        """Initial meta-parameters, apart from learned step sizes, as a function of the seed."""
        params = self.network.init(seed)
        return params if self.head is None else self.head.initial(params)

    def outputs(self, theta: Mapping[str, Tensor], steps: int, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """The network's outputs for x [tasks, examples, …], with parameters after `steps` inner steps.

        weight [tasks, examples]: of the examples, for a network that normalizes by its batch.
        """
        if self.head is not None:
            return self.head.outputs(theta, self.features(theta, x, weight))
        rows = self.network.per_step
        return self.network(at_step(theta, rows, steps - 1) if rows else theta, x, _unless_alike(weight))

    def deviation(self, theta: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        """The standard deviations of the targets that `outputs` predicts, of a head that knows them."""
        assert self.head is not None, "gradient steps predict no deviations"
        return self.head.deviation(theta, self.features(theta, x, weight))

    def features(self, params: Mapping[str, Tensor], x: Tensor, weight: Tensor | None = None) -> Tensor:
        """What the network's last layer takes [tasks, examples, width], by shared parameters."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bfloat16 and x.is_cuda):
            return self.network.features(params, x, _unless_alike(weight)).to(x.dtype)

    def loss(self, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Each task's loss [tasks], the (weighted) mean over its examples times `loss_scale`.

        outputs [tasks, examples, outputs]; targets [tasks, examples, outputs], or [tasks, examples] class labels; weight
        [tasks, examples].
        """
        return self._mean_loss(outputs, targets, None if weight is None else weight / weight.sum(1, keepdim=True))

    def _mean_loss(self, outputs: Tensor, targets: Tensor, share: Tensor | None) -> Tensor:
        """share [tasks, examples]: of each example in its task's mean; none if all are alike."""
        each = self._of_each_example(outputs, targets)
        mean = each.mean(1) if share is None else (each.masked_fill(share == 0, 0) * share).sum(1)
        return mean if self.loss_scale == 1.0 else mean * self.loss_scale

    def accuracy(self, outputs: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """Each task's (weighted) share of right answers [tasks]; shapes as in `loss`."""
        right = (outputs.argmax(-1) == labels).float()
        return right.mean(1) if weight is None else (right * weight).sum(1) / weight.sum(1)

    def _of_each_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        checks.targets(targets, outputs.shape, self.classification)
        if self.classification:
            return F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")
        return (outputs - targets).square().mean(-1)

    def support(self, batch: TaskBatch, steps: int = 1) -> Sequence[TaskLoss]:
        """The inner losses of each step, over and over: the tasks' losses on their support sets (or on minibatches of them), as a
        function of their parameters."""
        parts = [
            self._task_loss(one.support_x, one.support_y, one.support_weight, self.rule.adapts)
            for one in self._minibatches(batch, steps)
        ]
        if not self.network.per_step:
            return parts
        return [AtStep(parts[step % len(parts)], self.network.per_step, step) for step in range(max(1, steps))]

    def query(self, batch: TaskBatch) -> Queries:
        """The outer losses: the same on the query sets."""
        loss = self._task_loss(batch.query_x, batch.query_y, batch.query_weight)
        return lambda steps: AtStep(loss, self.network.per_step, steps - 1) if self.network.per_step else loss

    def _task_loss(self, x: Tensor, y: Tensor, weight: Tensor | None, moving: frozenset[str] | None = None) -> TaskLoss:
        """moving: the parameters that a gradient is asked for; none means all, and more than asked may be given. A task whose
        weights are all 0 has loss 0."""
        checks.examples(self.network, x, y, weight, self.classification)
        weight = _unless_alike(weight)
        share = None if weight is None else _shares(weight.to(x.dtype))
        if self.compiled:
            return Compiled(self._functions, (x, y, share))
        if self.has_loops_for(x, y):
            assert isinstance(self.network, MLP)
            return SquaredErrorMLP(self.network, x, y, share, self.loss_scale)
        if self.classification and share is None and CrossEntropyConv4.fits(self.network, x):
            return CrossEntropyConv4(self.network, x, y, self.loss_scale, moving == frozenset(self.network.head))
        return Differentiated(lambda params: self._loss_of(params, x, y, share), moving)

    def has_loops_for(self, x: Tensor, y: Tensor) -> bool:
        """Whether gradients are computed by a compiled loop over tasks."""
        return not self.classification and SquaredErrorMLP.fits(self.network, x, y)

    def _loss_of(self, params: Mapping[str, Tensor], x: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bfloat16 and x.is_cuda):
            outputs = self.network(params, x, share)
        return self._mean_loss(outputs.to(x.dtype), y, share)

    @cached_property
    def _functions(self) -> CompiledFunctions:
        return CompiledFunctions(self._loss_of, graphs=self.compiled == "cuda")

    def tasks_at_once(self, batch: TaskBatch) -> int:
        """How many tasks' activations fit into a CPU's caches or a GPU's memory, by experience. Results don't depend on it."""
        examples = batch.support_x.shape[1] + batch.query_x.shape[1]
        at_once = self.network.examples_at_once * (_GPU_CHUNK if batch.support_x.is_cuda else 1)
        return min(len(batch), max(1, at_once // max(1, examples)))

    def _chunks(self, batch: TaskBatch) -> list[TaskBatch]:
        return batch.split(self.tasks_at_once(batch))

    def inner_loop(self, batch: TaskBatch, params: Mapping[str, Tensor], steps: int) -> InnerLoop:
        """The inner loop on the tasks' support sets, with the step sizes among the parameters, or `inner_lr`.

        Raises ValueError if parameters are not the network's, if they and examples are of different types or on different devices,
        or if there is no example.
        """
        shared, learned = self._split(params, batch)
        losses, adapts = self.support(batch, steps), self.rule.adapts
        sizes = self._sizes(shared, learned, steps).each(lambda size: _packed(losses[0], shared, size))
        if adapts is None or self.rule.clip_norm is None:
            return InnerLoop(losses, sizes, self.rule)
        moving = tuple(value.new_full((), float(name in adapts)) for name, value in shared.items())
        return InnerLoop(losses, sizes, self.rule, _packed_each(losses[0], shared, moving))

    def _sizes(self, shared: Params, learned: Params, steps: int) -> Sizes:
        """The size of each step; zero for parameters that don't move."""
        adapts, found = self.rule.adapts, step_sizes.sizes(learned, shared, steps, self.inner_lr)
        if adapts is None:
            return found

        def of_moving(size: Size) -> Size:
            each = tuple(value.new_tensor(size) for value in shared.values()) if isinstance(size, float) else size
            return tuple(one if name in adapts else torch.zeros_like(one) for name, one in zip(shared, each, strict=True))

        return found.each(of_moving)

    def _minibatches(self, batch: TaskBatch, steps: int) -> list[TaskBatch]:
        """Parts of the support sets, one after the other for the steps, over and over; every n-th example, so that each has all
        classes as far as that goes. A task of fewer examples has fewer parts."""
        (examples, size), weight = (batch.support_x.shape[1], self.rule.minibatch), _unless_alike(batch.support_weight)
        if size is None or examples <= size:
            return [batch]
        if weight is None:
            count = math.ceil(examples / size)
            return [_with_support(batch, slice(None), slice(first, None, count)) for first in range(count)]
        counts = weight > 0
        parts, place = ((counts.sum(1, keepdim=True) + size - 1) // size).clamp(min=1), counts.cumsum(1) - 1
        tasks, found = torch.arange(len(batch), device=weight.device)[:, None], []
        for step in range(steps + 1):  # the last is where the inner loop has ended
            mine = counts & (place % parts == step % parts)
            where = mine.logical_not().sort(dim=1, stable=True).indices[:, : int(mine.sum(1).max())]
            found.append(_with_support(batch, tasks, where, weight * mine))
        return found

    def everything(self, batch: TaskBatch) -> TaskBatch:
        """The batch with all of a task's examples as its support set."""
        both = [(batch.support_x, batch.query_x), (batch.support_y, batch.query_y)]
        x, y = (torch.cat(pair, 1) for pair in both)
        if batch.support_weight is None and batch.query_weight is None:
            return replace(batch, support_x=x, support_y=y)
        weights = [
            torch.ones(targets.shape[:2], device=targets.device) if weight is None else weight
            for targets, weight in ((batch.support_y, batch.support_weight), (batch.query_y, batch.query_weight))
        ]
        return replace(batch, support_x=x, support_y=y, support_weight=torch.cat(weights, 1))

    def adapt(self, params: Mapping[str, Tensor], batch: TaskBatch, steps: int) -> Iterator[Params]:
        """The tasks' parameters after 0, 1, …, `steps` steps from shared ones, each name → [tasks, …]. A head that is solved for
        leaves the shared ones as they are, and adds what it found for each task.

        Raises ValueError if there is nothing to adapt to, or gradients can't be computed.
        """
        if self.head is not None:
            yield from self._solve(self.head, params, batch, steps)
            return
        if steps == 0:
            yield for_each_task(self._split(params, batch)[0], len(batch))
            return
        if torch.is_inference_mode_enabled():
            raise ValueError(f"{steps} steps of adaptation take gradients, which inference mode forbids: expected torch.no_grad()")
        if self.adaptation == "safe":
            yield from self._adapt_safely(params, batch, steps)
            return
        loop = self.inner_loop(batch, params, steps)
        loss = loop.loss_at(0)
        for place in loop.walk(for_each_task(loss.pack(step_sizes.split(params)[0]), len(batch))):
            yield loss.unpack(place.theta)

    def _solve(self, head: Head, params: Mapping[str, Tensor], batch: TaskBatch, steps: int) -> Iterator[Params]:
        """Shared parameters, which predict by the prior, then the same with each task's solution. Later steps change nothing."""
        x, y, weight = batch.support_x, batch.support_y, batch.support_weight
        checks.parameters(params, x, batch.query_x)
        checks.examples(self.network, x, y, weight, self.classification)
        yield dict(params)
        if steps:
            with torch.no_grad():
                found = dict(params) | head.solve(params, Rows(self.features(params, x, weight), y, weight))
            yield from itertools.repeat(found, steps)

    def _adapt_safely(self, params: Mapping[str, Tensor], batch: TaskBatch, steps: int) -> Iterator[Params]:
        assert self.can_be_safe, (
            "adaptation: safe, but not of gradient descent on the whole support set, or by parameters of single steps"
        )
        shared, learned = self._split(params, batch)
        x, y, weight = batch.support_x, batch.support_y, _unless_alike(batch.support_weight)
        checks.examples(self.network, x, y, weight, self.classification)
        ones = torch.ones(x.shape[:2], device=x.device)

        def losses(theta: Mapping[str, Tensor]) -> Tensor:
            return self.loss_scale * self._of_each_example(self.network(theta, x, weight), y)

        theta, sizes = for_each_task(shared, len(batch)), self._sizes(shared, learned, steps)
        weights, labels = ones if weight is None else weight.to(x.dtype), y if self.classification else ones
        yield from safe_adaptation.adapt(losses, weights, labels, theta, sizes, self.rule)

    def adapted(self, params: Mapping[str, Tensor], batch: TaskBatch, steps: int) -> Params:
        """The tasks' parameters after `steps` steps; those of earlier steps are not kept."""
        for theta in self.adapt(params, batch, steps):
            last = theta
        return last

    def _split(self, params: Mapping[str, Tensor], batch: TaskBatch) -> tuple[Params, Params]:
        """The network's parameters and the learned step sizes, after checking them."""
        checks.parameters(params, batch.support_x, batch.query_x)
        shared, learned = step_sizes.split(params)
        checks.shapes(shared, self._shapes)
        return shared, learned

    @cached_property
    def _shapes(self) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in self.network.init(0).items()}

    @property
    def can_be_safe(self) -> bool:
        """Whether safe adaptation is made for the rule, gradient descent on the whole support set, and for the network."""
        rule = self.rule
        of_steps = self.head is None and not self.network.per_step
        return of_steps and rule.name == "gradient_descent" and not rule.proximal and rule.minibatch is None

    def curves(self, params: Mapping[str, Tensor], batch: TaskBatch, steps: int) -> "Curves":
        """What adaptation does to the tasks' query sets: loss and accuracy after 0, 1, …, `steps` steps."""

        def of_chunk(chunk: TaskBatch) -> tuple[Tensor, Tensor | None]:
            losses, accuracies = [], []
            for step, theta in enumerate(self.adapt(params, chunk, steps)):
                with torch.no_grad():
                    outputs = self.outputs(theta, step, chunk.query_x, chunk.query_weight)
                    losses.append(self.loss(outputs, chunk.query_y, chunk.query_weight))
                    if self.classification:
                        accuracies.append(self.accuracy(outputs, chunk.query_y, chunk.query_weight))
            return torch.stack(losses, 1), torch.stack(accuracies, 1) if accuracies else None

        losses, accuracies = zip(*side_by_side(of_chunk, self._chunks(batch), batch.support_x.device), strict=True)
        return Curves(torch.cat(losses).cpu(), torch.cat(accuracies).cpu() if self.classification else None)

    def means(
        self, predict: Callable[[TaskBatch], Tensor], tasks: Tasks, device: torch.device, prefix: str = ""
    ) -> dict[str, float]:
        """The means over tasks of the loss and, in classification, the accuracy of predictions, by name behind a prefix.

        predict: tasks → outputs [tasks, queries, outputs].
        """
        each: dict[str, list[Tensor]] = {}
        for part in tasks.parts(device):
            outputs = predict(part)
            each.setdefault("loss", []).append(self.loss(outputs, part.query_y, part.query_weight))
            if self.classification:
                each.setdefault("accuracy", []).append(self.accuracy(outputs, part.query_y, part.query_weight))
        with one_thread():  # several threads would sum in another order
            return {f"{prefix}{name}": torch.cat(values).mean().item() for name, values in each.items()}

    def predict_queries(self, params: Mapping[str, Tensor], tasks: TaskBatch, steps: int) -> Tensor:
        """The network's outputs [tasks, queries, outputs] for the queries of a batch after `steps` steps on its support sets."""

        def of_chunk(chunk: TaskBatch) -> Tensor:
            adapted = self.adapted(params, chunk, steps)
            with torch.no_grad():
                return self.outputs(adapted, steps, chunk.query_x, chunk.query_weight)

        return torch.cat(side_by_side(of_chunk, self._chunks(tasks), tasks.support_x.device))

    def predict(self, params: Mapping[str, Tensor], support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int) -> Tensor:
        """The network's outputs [tasks, queries, outputs] for the queries after `steps` steps on the support sets.

        support_x [tasks, support, …]; support_y [tasks, support] labels or [tasks, support, 1]; query_x [tasks, queries, …].
        """
        return self.predict_queries(params, TaskBatch(support_x, support_y, query_x, query_x), steps)


def _unless_alike(weight: Tensor | None) -> Tensor | None:
    """Weights of examples, or none if each is 1: the same to the bit, and faster without weights."""
    return None if weight is None or bool((weight == 1).all()) else weight


def _shares(weight: Tensor) -> Tensor:
    """Weights [tasks, examples] that sum to one, or to zero in a task without examples that count."""
    return weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)


def _with_support(batch: TaskBatch, tasks: slice | Tensor, examples: slice | Tensor, weight: Tensor | None = None) -> TaskBatch:
    """The batch with some of its support examples, by their places."""
    x, y = batch.support_x[tasks, examples], batch.support_y[tasks, examples]
    return replace(batch, support_x=x, support_y=y, support_weight=None if weight is None else weight[tasks, examples])


def _packed(loss: TaskLoss, shared: Params, size: Size) -> Size:
    """A step's size in the form of packed parameters."""
    return size if isinstance(size, float) else _packed_each(loss, shared, size)


def _packed_each(loss: TaskLoss, shared: Params, each: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A tensor for each parameter, which broadcasts to it, in the form of packed parameters."""
    whole = {name: one.expand_as(value) for (name, value), one in zip(shared.items(), each, strict=True)}
    return tuple(loss.pack(whole).values())


def _rule(train: TrainSpec, network: Network) -> Rule:
    inner = train.inner
    return Rule(
        name=inner.rule,
        momentum=inner.momentum,
        clip_norm=inner.clip_norm,
        proximal=train.proximal if train.meta_gradient == "implicit" else 0.0,
        adapts=None if inner.adapts == "all" and not network.per_step else adapting(network, inner.adapts),
        minibatch=inner.minibatch,
    )


def adapting(network: Network, wanted: str | tuple[str, ...]) -> frozenset[str]:
    """The names of the parameters that `train.inner.adapts` selects. Raises UserError if a name matches none.

    Never those with rows for every step.
    """
    names = [name for name in network.init(0) if name not in network.per_step]
    if wanted == "all":
        return frozenset(names)
    if wanted == "head":
        return frozenset(network.head)
    if wanted == "body":
        return frozenset(names) - frozenset(network.head)
    if wrong := unknown_parameter(wanted, names):
        raise UserError(f"train.inner.adapts: {wrong}")
    return frozenset(name for pattern in wanted for name in fnmatch.filter(names, pattern))


def device_named(name: str) -> torch.device:
    """The device that a spec names: `auto` is the GPU if there is one, else the CPU. Raises UserError if it doesn't exist."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: cuda, but PyTorch finds no GPU that it can use here: expected auto or cpu, or a CUDA build of PyTorch"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
