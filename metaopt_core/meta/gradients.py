"""The inner loop, and the exact gradient through it.

With inner loss L_S, outer loss L_Q, K steps of size α and the initialization θ of one task (Finn, Abbeel, Levine 2017):

    θ_0 = θ,  θ_{k+1} = θ_k − α ∇L_S(θ_k)                       inner loop
    v_K = ∇L_Q(θ_K),  v_k = v_{k+1} − α ∇²L_S(θ_k) v_{k+1}       the meta-gradient is v_0

The second line is run as it stands, one step's graph at a time and backwards: memory doesn't grow with K.
Everything has a leading task dimension. Tasks are independent: the gradient of the sum of their losses by their own parameters is
each task's gradient, and one product with v serves all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt_core.models import Params

Loss = Callable[[Mapping[str, Tensor]], Tensor]
"""Parameters [tasks, …] → one loss a task [tasks]."""


@dataclass(frozen=True)
class MetaGradient:
    """gradient: by each shared parameter, the mean over tasks; losses: the query losses after adaptation [tasks]."""

    gradient: Params
    losses: Tensor


def for_each_task(params: Mapping[str, Tensor], tasks: int) -> Params:
    """Shared parameters [...] as every task's own [tasks, …], without a copy."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def gradient_step(loss: Loss, params: Params, lr: float) -> Params:
    """One inner step, θ − α ∇L(θ), without a graph."""
    params = _leaves(params)
    gradient = torch.autograd.grad(loss(params).sum(), list(params.values()))
    return _descend(params, gradient, lr)


def meta_gradient(
    support_loss: Loss, query_loss: Loss, params: Mapping[str, Tensor], tasks: int, lr: float, steps: int
) -> MetaGradient:
    """The exact (second-order) gradient of the mean query loss after `steps` (at least 1) inner steps by the shared parameters."""
    if steps < 1:
        raise ValueError(f"{steps} inner steps: expected at least 1")
    theta = for_each_task(params, tasks)
    path = []
    for _ in range(steps - 1):
        path.append(theta)
        theta = gradient_step(support_loss, theta, lr)

    # The last step is the first on the way back, so its graph is kept and not made twice.
    last, gradient = _gradient_with_graph(support_loss, theta)
    adapted = _leaves(_descend(last, gradient, lr))
    losses = query_loss(adapted)
    v = torch.autograd.grad(losses.sum(), list(adapted.values()))
    v = _through_step(last, gradient, v, lr)
    for theta in reversed(path):
        v = _through_step(*_gradient_with_graph(support_loss, theta), v, lr)
    return MetaGradient({name: value.mean(0) for name, value in zip(params, v, strict=True)}, losses.detach())


Gradient = tuple[Tensor, ...]


def _leaves(params: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def _gradient_with_graph(loss: Loss, params: Params) -> tuple[Params, Gradient]:
    params = _leaves(params)
    return params, torch.autograd.grad(loss(params).sum(), list(params.values()), create_graph=True)


def _descend(params: Params, gradient: Gradient, lr: float) -> Params:
    with torch.no_grad():
        return dict(zip(params, torch._foreach_add(list(params.values()), gradient, alpha=-lr), strict=True))


def _through_step(params: Params, gradient: Gradient, v: Gradient, lr: float) -> Gradient:
    """v − α ∇²L v: the gradient of ⟨∇L(θ), v⟩ by θ is the Hessian's product with v."""
    curved = [(g, u) for g, u in zip(gradient, v, strict=True) if g.requires_grad]  # a linear loss has constant gradients
    if not curved:
        return v
    outputs, upper = zip(*curved, strict=True)
    product = torch.autograd.grad(outputs, list(params.values()), grad_outputs=upper, materialize_grads=True)
    return torch._foreach_add(v, product, alpha=-lr)
