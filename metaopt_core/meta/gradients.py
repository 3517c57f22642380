"""The gradient of the outer loss by the initialization: exact through the inner loop, or one of its approximations.

With inner loss L_S, outer loss L_Q, K steps of sizes α_k and the initialization θ of one task (Finn, Abbeel, Levine 2017):

    θ_0 = θ,  θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k)                           inner loop
    v_K = ∇L_Q(θ_K),  v_k = v_{k+1} − ∇²L_S(θ_k) (α_k ∘ v_{k+1})         the meta-gradient is v_0
    ∂L_Q/∂α_k = −v_{k+1} ∘ ∇L_S(θ_k)                                    where step sizes are learned

The second line is run as written, one step's linearization at a time and backwards, so that memory for activations need not grow
with K (`InnerLoop.there_and_back`). First order leaves the Hessian out, v_k = v_{k+1}. Where earlier steps count too, with weights
w_k, v_k gets w_k ∇L_Q(θ_k) added (Antoniou, Edwards, Storkey 2019, equation 3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metaopt_core.meta.inner_loop import InnerLoop, Memory, by_task_dot, by_task_norm
from metaopt_core.meta.losses import Gradient, Queries, SquaredErrorMLP
from metaopt_core.networks.network import Params


@dataclass(frozen=True)
class MetaGradient:
    """gradient: by each meta-parameter, the mean over tasks; losses: the query losses after adaptation [tasks].

    notes: further numbers of each task [tasks], by the name of the curve that shows their mean.
    """

    gradient: Params
    losses: Tensor
    notes: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ByTask:
    """packed: the tasks' gradients by their own initial parameters [tasks, …], or their sum [1, …]; by_step: by the sizes of the
    steps 0, 1, …, in the shapes of the packed parameters (none if that was not asked for); losses and notes as in
    `MetaGradient`."""

    packed: Params
    by_step: Sequence[Params]
    losses: Tensor
    notes: Mapping[str, Tensor] = field(default_factory=dict)


def for_each_task(params: Mapping[str, Tensor], tasks: int) -> Params:
    """Shared parameters [...] as every task's own [tasks, …], without a copy."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def exact(loop: InnerLoop, query: Queries, theta: Params, weights: Sequence[float], sizes_too: bool, unrolled: bool) -> ByTask:
    """The gradient of Σ_k w_k L_Q(θ_k), second derivatives and all.

    weights: w_1, …, w_K. The losses are those after the last step.
    """
    if (whole := _as_one_loop(loop, query, theta, weights, sizes_too)) is not None:
        return whole
    end, back = loop.there_and_back(theta, unrolled)
    losses, v = query(loop.steps).gradient(end.theta)
    v = _scaled(v, weights[-1])
    v_memory: Memory = tuple(torch.zeros_like(m) for m in end.memory)
    del end
    by_step = []
    for step in reversed(range(loop.steps)):
        at = next(back)
        by_gradient, v_memory, direction = loop.pull_back(at, v, v_memory)
        if sizes_too:
            by_step.append({name: d.mul(u).neg_() for name, d, u in zip(theta, direction, v, strict=True)})
        v = tuple(torch._foreach_add(v, at.product(by_gradient)))
        if step and weights[step - 1]:
            v = tuple(torch._foreach_add(v, query(step).gradient(at.place.theta)[1], alpha=weights[step - 1]))
        del at, by_gradient, direction  # frees their memory before the next ones are allocated
    return ByTask(dict(zip(theta, v, strict=True)), by_step[::-1], losses)


def _as_one_loop(loop: InnerLoop, query: Queries, theta: Params, weights: Sequence[float], sizes_too: bool) -> ByTask | None:
    """The same by a loss's own loop over tasks, if it has one and the inner loop is plain gradient descent."""
    inner, judge, size = loop.loss_at(0), query(loop.steps), loop.sizes[0]
    if not (isinstance(inner, SquaredErrorMLP) and isinstance(judge, SquaredErrorMLP) and isinstance(size, float)):
        return None
    if sizes_too or any(weights[:-1]) or len(loop.losses) > 1 or not loop.rule.plain or any(one != size for one in loop.sizes):
        return None
    losses, v = inner.exact(judge, theta, size, loop.steps)
    return ByTask(dict(zip(theta, v, strict=True)), (), losses)


def first_order(loop: InnerLoop, query: Queries, theta: Params, weights: Sequence[float], sizes_too: bool) -> ByTask:
    """The same with ∇²L_S taken as zero (FOMAML): θ_k is then θ plus a constant, and depends on each α_j only by its own step."""
    place = loop.start(theta)
    directions, upper = [], []
    for step in range(loop.steps):
        gradient = loop.loss_at(step).gradient(place.theta)[1]
        if sizes_too:
            directions.append(gradient if loop.rule.plain else loop.direction(place, gradient)[0])
        place = loop.move(place, gradient)
        if weights[step]:
            losses, v = query(step + 1).gradient(place.theta)
            upper.append((step, _scaled(v, weights[step])))
    total = upper.pop()[1]
    by_step = []
    for step in reversed(range(loop.steps)):
        if upper and upper[-1][0] == step:
            total = tuple(torch._foreach_add(total, upper.pop()[1]))
        if sizes_too:
            by_step.append({name: d.mul(u).neg_() for name, d, u in zip(theta, directions[step], total, strict=True)})
    return ByTask(dict(zip(theta, total, strict=True)), by_step[::-1], losses)


def reptile(loop: InnerLoop, query: Queries, theta: Params) -> ByTask:
    """θ − θ_K instead of a gradient (Nichol, Achiam, Schulman 2018, algorithm 1); the loop's losses are of all examples."""
    *_, end = loop.walk(theta)
    losses, _ = query(loop.steps).gradient(end.theta)
    return ByTask(dict(zip(theta, torch._foreach_sub(list(theta.values()), list(end.theta.values())), strict=True)), (), losses)


def implicit(loop: InnerLoop, query: Queries, theta: Params, solver_steps: int) -> ByTask:
    """The solution x of (I + ∇²L_S(θ_K)/λ) x = ∇L_Q(θ_K) by conjugate gradients (Rajeswaran et al. 2019, equation 6, algorithm 2).

    It is the exact gradient if θ_K minimizes L_S + λ/2 ‖θ_K − θ‖², however it was found; λ is the rule's `proximal`. The note
    `solver_residual` is ‖∇L_Q − (I + ∇²L_S/λ) x‖ / ‖∇L_Q‖.
    """
    *_, end = loop.walk(theta)
    losses, v = query(loop.steps).gradient(end.theta)
    product = loop.loss_at(loop.steps).linearized(end.theta)[1]

    def applied(x: Sequence[Tensor]) -> Gradient:
        return tuple(torch._foreach_add(list(x), product(x), alpha=1 / loop.rule.proximal))

    x, residual = conjugate_gradients(applied, v, solver_steps)
    return ByTask(dict(zip(theta, x, strict=True)), (), losses, {"solver_residual": residual})


def conjugate_gradients(applied: "Applied", b: Gradient, steps: int) -> tuple[Gradient, Tensor]:
    """x with A x ≈ b for a symmetric A of each task (Hestenes, Stiefel 1952), and the relative residual [tasks].

    If A is not positive along a direction, the task's x stays as it is.
    """
    x = tuple(torch.zeros_like(one) for one in b)
    r, p = b, b
    rr = start = by_task_dot(r, r)
    tiny, going = torch.finfo(rr.dtype).tiny, torch.ones_like(rr)
    for _ in range(steps):
        ap = applied(p)
        curvature = by_task_dot(p, ap)
        going = going * (curvature > 0)
        alpha = going * rr / curvature.clamp(min=tiny)
        x = _plus(x, alpha, p)
        r = _plus(r, -alpha, ap)
        before, rr = rr, by_task_dot(r, r)
        p = _plus(r, rr / before.clamp(min=tiny), p)
    wrong = torch._foreach_sub(b, applied(x))
    return x, by_task_norm(wrong) / start.clamp(min=tiny).sqrt()


Applied = Callable[[Sequence[Tensor]], Gradient]


def _plus(a: Gradient, factor: Tensor, b: Gradient) -> Gradient:
    """a + factor [tasks] · b"""
    return tuple(torch.addcmul(x, factor.view(-1, *(1 for _ in y.shape[1:])), y) for x, y in zip(a, b, strict=True))


def _scaled(v: Gradient, weight: float) -> Gradient:
    return v if weight == 1 else tuple(torch._foreach_mul(v, weight))
