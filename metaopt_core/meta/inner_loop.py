"""The inner loop: how a task's parameters move, step by step, and the pass back through these steps.

A step moves packed parameters θ (`TaskLoss.pack`) against a direction d, which a rule computes from the gradient and its memory:

    g = ∇L(θ),  (d, m') = rule(g, m),  θ' = θ − α ∘ d

Gradient descent is d = g. Everything here is a function without side effects, so that any rule can be differentiated.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from metaopt_core.meta.losses import Gradient, HessianProduct, TaskLoss
from metaopt_core.meta.step_sizes import Size
from metaopt_core.networks.network import Params

Memory = tuple[Tensor, ...]
"""What a rule remembers from one step to the next, tensors like the parameters."""

_KEPT_WHOLE = 8  # steps
_ADAM_BETAS = 0.9, 0.999
_ADAM_EPSILON = 1e-8


class Place(NamedTuple):
    """A task's parameters after some steps, and the memory of the rule there."""

    step: int
    theta: Params
    memory: Memory


class Linearization(NamedTuple):
    """The inner loss's gradient at a place, and the product with its Hessian there."""

    place: Place
    gradient: Gradient
    product: HessianProduct


@dataclass(frozen=True)
class Rule:
    """How the inner loop uses a gradient, and which parameters it moves.

    name: `gradient_descent`, `momentum` (d = m' = μ m + g) or `adam` (Kingma, Ba 2015, algorithm 1, with ε under the square root,
    where it has a derivative). clip_norm: the largest norm of a task's gradient by what moves.
    proximal: λ of a term λ/2 ‖θ − θ_0‖² of the inner
    loss (Rajeswaran et al. 2019, equation 3). adapts: names of the parameters that move; none means all. minibatch: examples of a
    support minibatch; none means the whole set in every step.
    """

    name: Literal["gradient_descent", "momentum", "adam"] = "gradient_descent"
    momentum: float = 0.9
    clip_norm: float | None = None
    proximal: float = 0.0
    adapts: frozenset[str] | None = None
    minibatch: int | None = None

    @property
    def plain(self) -> bool:
        """Whether a direction is the gradient itself."""
        return self.name == "gradient_descent" and self.clip_norm is None


GRADIENT_DESCENT = Rule()


@dataclass(frozen=True)
class InnerLoop:
    """sizes: the step size of each step. losses: the inner loss of each step, over and over. moving: 1 where a parameter moves, 0
    where it doesn't, in tensors that broadcast to the parameters; none if all do, or if the rule ignores it."""

    losses: Sequence[TaskLoss]
    sizes: Sequence[Size]
    rule: Rule = GRADIENT_DESCENT
    moving: tuple[Tensor, ...] | None = None

    @property
    def steps(self) -> int:
        return len(self.sizes)

    def loss_at(self, step: int) -> TaskLoss:
        return self.losses[step % len(self.losses)]

    def start(self, theta: Params) -> Place:
        values = list(theta.values()) * {"gradient_descent": 0, "momentum": 1, "adam": 2}[self.rule.name]
        return Place(0, theta, tuple(torch.zeros_like(value) for value in values))

    def walk(self, theta: Params) -> Iterator[Place]:
        """The places after 0, 1, … steps."""
        place = self.start(theta)
        yield place
        for _ in range(self.steps):
            place = self.step(place, theta)
            yield place

    def step(self, place: Place, initial: Params | None = None) -> Place:
        """One step. initial: θ_0, which the proximal term needs."""
        return self.move(place, self.loss_at(place.step).gradient(place.theta)[1], initial)

    def linearized(self, place: Place) -> Linearization:
        return Linearization(place, *self.loss_at(place.step).linearized(place.theta))

    def move(self, place: Place, gradient: Gradient, initial: Params | None = None) -> Place:
        """The step from a place with a known gradient."""
        values = list(place.theta.values())
        if self.rule.proximal and initial is not None:
            away = torch._foreach_sub(values, list(initial.values()))
            gradient = tuple(torch._foreach_add(gradient, away, alpha=self.rule.proximal))
        direction, memory = (gradient, ()) if self.rule.plain else self.direction(place, gradient)
        size = self.sizes[place.step]
        if isinstance(size, float):
            moved = torch._foreach_add(values, direction, alpha=-size)
        else:
            moved = torch._foreach_addcmul(values, direction, size, value=-1)
        return Place(place.step + 1, dict(zip(place.theta, moved, strict=True)), memory)

    def direction(self, place: Place, gradient: Gradient) -> tuple[Gradient, Memory]:
        """The rule: d and m' as differentiable functions of g and m."""
        if self.rule.clip_norm is not None:
            if self.moving is not None:
                gradient = tuple(g * one for g, one in zip(gradient, self.moving, strict=True))
            square = by_task_dot(gradient, gradient)
            norm = square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()  # the root of zero has no derivative
            factor = (self.rule.clip_norm / norm).clamp(max=1)
            gradient = tuple(g * factor.view(-1, *(1 for _ in g.shape[1:])) for g in gradient)
        if self.rule.name == "gradient_descent":
            return gradient, ()
        if self.rule.name == "momentum":
            memory = tuple(self.rule.momentum * m + g for m, g in zip(place.memory, gradient, strict=True))
            return memory, memory
        (beta1, beta2), count, taken = _ADAM_BETAS, len(gradient), place.step + 1
        means = tuple(beta1 * m + (1 - beta1) * g for m, g in zip(place.memory[:count], gradient, strict=True))
        squares = tuple(beta2 * s + (1 - beta2) * g * g for s, g in zip(place.memory[count:], gradient, strict=True))
        corrected = ((m / (1 - beta1**taken), s / (1 - beta2**taken)) for m, s in zip(means, squares, strict=True))
        direction = tuple(m / (s + _ADAM_EPSILON**2).sqrt() for m, s in corrected)
        return direction, (*means, *squares)

    def there_and_back(self, theta: Params, unrolled: bool) -> tuple[Place, Iterator[Linearization]]:
        """θ_K, and the linearizations at θ_{K−1}, …, θ_0: kept (`unrolled`), or made again on the way back.

        If made again and there are many steps, places are kept only at every √K-th step.
        """
        place = self.start(theta)
        if unrolled:
            made = []
            for _ in range(self.steps):
                made.append(self.linearized(place))
                place = self.move(place, made[-1].gradient)
            return place, (made.pop() for _ in range(self.steps))

        every = 1 if self.steps <= _KEPT_WHOLE else math.isqrt(self.steps)
        kept = []
        for step in range(self.steps - 1):
            if step % every == 0:
                kept.append(place)
            place = self.step(place)
        last = self.linearized(place)  # the last step is the first of the backward pass, so it is not computed twice

        def back(last: Linearization) -> Iterator[Linearization]:
            yield last
            until = last.place.step
            del last
            while kept:
                segment = [kept.pop()]
                while segment[-1].step + 1 < until:
                    segment.append(self.step(segment[-1]))
                until = segment[0].step
                while segment:
                    yield self.linearized(segment.pop())

        return self.move(place, last.gradient), back(last)

    def pull_back(self, at: Linearization, v: Gradient, v_memory: Memory) -> tuple[Gradient, Memory, Gradient]:
        """From the derivatives v and v_memory by what a step led to: those by the gradient that it saw (plainly −α ∘ v) and by what
        the rule remembered before; and the direction that it took."""
        size = self.sizes[at.place.step]
        scaled = tuple(torch._foreach_mul(v, -size) if isinstance(size, float) else torch._foreach_neg(torch._foreach_mul(v, size)))
        if self.rule.plain:
            return scaled, (), at.gradient
        with torch.enable_grad():
            gradient = tuple(g.detach().requires_grad_() for g in at.gradient)
            memory = tuple(m.detach().requires_grad_() for m in at.place.memory)
            direction, remembered = self.direction(at.place._replace(memory=memory), gradient)
            outputs, upper = [*direction, *remembered], [*scaled, *v_memory]
            pulled = torch.autograd.grad(outputs, [*gradient, *memory], upper, materialize_grads=True)
        return pulled[: len(gradient)], pulled[len(gradient) :], tuple(d.detach() for d in direction)


def by_task_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm [tasks] of all tensors [tasks, …] of a task together."""
    return by_task_dot(tensors, tensors).sqrt()


def by_task_dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The scalar product [tasks] of all tensors [tasks, …] of a task together."""
    return torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(a, b, strict=True)]).sum(0)
