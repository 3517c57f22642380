"""The inner loop, and the exact gradient through it.

With inner loss L_S, outer loss L_Q, K steps of sizes α_k and the initialization θ of one task (Finn, Abbeel, Levine 2017):

    θ_0 = θ,  θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k)                           inner loop
    v_K = ∇L_Q(θ_K),  v_k = v_{k+1} − ∇²L_S(θ_k) (α_k ∘ v_{k+1})         the meta-gradient is v_0
    ∂L_Q/∂α_k = −v_{k+1} ∘ ∇L_S(θ_k)                                    where step sizes are learned

The second line is run as it stands, one step's linearization at a time and backwards. Either every step's is kept from the way
there (the unrolled graph), or it is made again on the way back: then memory for activations doesn't grow with K, and parameters
of long ways are kept at every √K-th step alone. Both give the same numbers.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt_core.meta import step_sizes
from metaopt_core.meta.problems import Gradient, HessianProduct, Problem
from metaopt_core.meta.step_sizes import Size
from metaopt_core.models import Params

_KEPT_WHOLE = 8  # steps


@dataclass(frozen=True)
class MetaGradient:
    """gradient: by each meta-parameter, the mean over tasks; losses: the query losses after adaptation [tasks]."""

    gradient: Params
    losses: Tensor


def for_each_task(params: Mapping[str, Tensor], tasks: int) -> Params:
    """Shared parameters [...] as every task's own [tasks, …], without a copy."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def gradient_step(problem: Problem, params: Params, lr: Size) -> Params:
    """One inner step of packed parameters, θ − α ∘ ∇L(θ)."""
    return _descend(params, problem.gradient(params)[1], lr)


def meta_gradient(
    support: Problem, query: Problem, params: Mapping[str, Tensor], tasks: int, lr: float, steps: int, unrolled: bool = False
) -> MetaGradient:
    """The exact (second-order) gradient of the mean query loss after `steps` inner steps, and the tasks' losses [tasks].

    params: shared initial parameters, with step sizes where these are learned (`step_sizes`); else they are `lr`. unrolled: keep
    every step's linearization, instead of making it twice.
    """
    v, by_sizes, losses = _by_task(support, query, params, tasks, lr, steps, unrolled)
    gradient = support.unpack({name: value.mean(0) for name, value in v.items()})
    return MetaGradient(gradient | {name: value.mean(0) for name, value in by_sizes.items()}, losses)


def by_task(
    support: Problem, query: Problem, params: Mapping[str, Tensor], tasks: int, lr: float, steps: int, unrolled: bool = False
) -> tuple[Params, Tensor]:
    """The same for each task: gradients [tasks, …] and losses [tasks]."""
    v, by_sizes, losses = _by_task(support, query, params, tasks, lr, steps, unrolled)
    return support.unpack(v) | by_sizes, losses


def _by_task(
    support: Problem, query: Problem, params: Mapping[str, Tensor], tasks: int, lr: float, steps: int, unrolled: bool
) -> tuple[Params, Params, Tensor]:
    """Each task's gradient by the packed parameters and by the step sizes, and its loss."""
    if steps < 1:
        raise ValueError(f"{steps} inner steps: expected at least 1")
    shared, learned = step_sizes.split(params)
    theta = for_each_task(support.pack(shared), tasks)
    sizes = [packed(support, shared, step_sizes.at(learned, shared, step, lr)) for step in range(steps)]
    last, back = _walk(support, theta, sizes, unrolled)
    losses, v = query.gradient(last)
    by_step = []
    for size in reversed(sizes):
        gradient, product = next(back)
        if learned:
            by_step.append(support.unpack({name: g.mul(u).neg_() for name, g, u in zip(theta, gradient, v, strict=True)}))
        if isinstance(size, float):
            v = tuple(torch._foreach_add(v, product(v), alpha=-size))
        else:
            v = tuple(torch._foreach_sub(v, product(torch._foreach_mul(v, size))))
        del gradient, product  # their memory is free before the next ones' is taken
    return dict(zip(theta, v, strict=True)), step_sizes.gradient(learned, by_step[::-1]), losses


def packed(problem: Problem, params: Mapping[str, Tensor], size: Size) -> Size:
    """Step sizes as they go with packed parameters."""
    if isinstance(size, float):
        return size
    return tuple(problem.pack({name: one.expand_as(params[name]) for name, one in zip(params, size, strict=True)}).values())


Linearization = tuple[Gradient, HessianProduct]


def _walk(support: Problem, theta: Params, sizes: list[Size], unrolled: bool) -> tuple[Params, Iterator[Linearization]]:
    """θ_K, and the linearizations of the inner loss at θ_{K−1}, …, θ_0."""
    if unrolled:
        made = []
        for size in sizes:
            made.append(support.linearized(theta))
            theta = _descend(theta, made[-1][0], size)
        return theta, (made.pop() for _ in sizes)

    *but_last, size = sizes
    every = 1 if len(sizes) <= _KEPT_WHOLE else math.isqrt(len(sizes))
    kept = []
    for step, one in enumerate(but_last):
        if step % every == 0:
            kept.append(theta)
        theta = gradient_step(support, theta, one)
    last = support.linearized(theta)

    def back(last: Linearization) -> Iterator[Linearization]:
        yield last
        del last
        while kept:
            start = every * (len(kept) - 1)
            thetas = [kept.pop()]
            for one in but_last[start : start + every][:-1]:
                thetas.append(gradient_step(support, thetas[-1], one))
            while thetas:
                yield support.linearized(thetas.pop())

    return _descend(theta, last[0], size), back(last)


def _descend(params: Params, gradient: Gradient, lr: Size) -> Params:
    values = list(params.values())
    if isinstance(lr, float):
        return dict(zip(params, torch._foreach_add(values, gradient, alpha=-lr), strict=True))
    return dict(zip(params, torch._foreach_addcmul(values, gradient, lr, value=-1), strict=True))
