"""The inner loop, and the exact gradient through it.

With inner loss L_S, outer loss L_Q, K steps of sizes α_k and the initialization θ of one task (Finn, Abbeel, Levine 2017):

    θ_0 = θ,  θ_{k+1} = θ_k − α_k ∘ ∇L_S(θ_k)                           inner loop
    v_K = ∇L_Q(θ_K),  v_k = v_{k+1} − ∇²L_S(θ_k) (α_k ∘ v_{k+1})         the meta-gradient is v_0
    ∂L_Q/∂α_k = −v_{k+1} ∘ ∇L_S(θ_k)                                    where step sizes are learned

The second line is run as it stands, one step's graph at a time and backwards: memory doesn't grow with K.
Everything has a leading task dimension. Tasks are independent: the gradient of the sum of their losses by their own parameters is
each task's gradient, and one product with v serves all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt_core.meta import step_sizes
from metaopt_core.meta.step_sizes import Size
from metaopt_core.models import Params

Loss = Callable[[Mapping[str, Tensor]], Tensor]
"""Parameters [tasks, …] → one loss a task [tasks]."""


@dataclass(frozen=True)
class MetaGradient:
    """gradient: by each meta-parameter, the mean over tasks; losses: the query losses after adaptation [tasks]."""

    gradient: Params
    losses: Tensor


def for_each_task(params: Mapping[str, Tensor], tasks: int) -> Params:
    """Shared parameters [...] as every task's own [tasks, …], without a copy."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def gradient_step(loss: Loss, params: Params, lr: Size) -> Params:
    """One inner step, θ − α ∘ ∇L(θ), without a graph."""
    params = _leaves(params)
    gradient = torch.autograd.grad(loss(params).sum(), list(params.values()))
    return _descend(params, gradient, lr)


def meta_gradient(
    support_loss: Loss, query_loss: Loss, params: Mapping[str, Tensor], tasks: int, lr: float, steps: int
) -> MetaGradient:
    """The exact (second-order) gradient of the mean query loss after `steps` (at least 1) inner steps by the meta-parameters.

    params: shared initial parameters, with step sizes where these are learned (`step_sizes`); else they are `lr`.
    """
    if steps < 1:
        raise ValueError(f"{steps} inner steps: expected at least 1")
    shared, learned = step_sizes.split(params)
    sizes = [step_sizes.at(learned, shared, step, lr) for step in range(steps)]
    theta = for_each_task(shared, tasks)
    path = []
    for size in sizes[:-1]:
        path.append(theta)
        theta = gradient_step(support_loss, theta, size)

    # The last step is the first on the way back, so its graph is kept and not made twice.
    last, gradient = _gradient_with_graph(support_loss, theta)
    adapted = _leaves(_descend(last, gradient, sizes[-1]))
    losses = query_loss(adapted)
    v: Gradient = torch.autograd.grad(losses.sum(), list(adapted.values()))
    by_size = []
    for size in reversed(sizes):
        if learned:
            by_size.append({name: -(g.detach() * u).mean(0) for name, g, u in zip(shared, gradient, v, strict=True)})
        v = _through_step(last, gradient, v, size)
        if path:
            last, gradient = _gradient_with_graph(support_loss, path.pop())
    by_params = {name: value.mean(0) for name, value in zip(shared, v, strict=True)}
    return MetaGradient(by_params | step_sizes.gradient(learned, by_size[::-1]), losses.detach())


Gradient = tuple[Tensor, ...]


def _leaves(params: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def _gradient_with_graph(loss: Loss, params: Params) -> tuple[Params, Gradient]:
    params = _leaves(params)
    return params, torch.autograd.grad(loss(params).sum(), list(params.values()), create_graph=True)


def _descend(params: Params, gradient: Gradient, lr: Size) -> Params:
    values = list(params.values())
    with torch.no_grad():
        if isinstance(lr, float):
            return dict(zip(params, torch._foreach_add(values, gradient, alpha=-lr), strict=True))
        return dict(zip(params, torch._foreach_addcmul(values, gradient, lr, value=-1), strict=True))


def _through_step(params: Params, gradient: Gradient, v: Gradient, lr: Size) -> Gradient:
    """v − ∇²L (α ∘ v): the gradient of ⟨∇L(θ), u⟩ by θ is the Hessian's product with u."""
    scaled = v if isinstance(lr, float) else torch._foreach_mul(v, lr)
    curved = [(g, u) for g, u in zip(gradient, scaled, strict=True) if g.requires_grad]  # a linear loss has constant gradients
    if not curved:
        return v
    outputs, upper = zip(*curved, strict=True)
    product = torch.autograd.grad(outputs, list(params.values()), grad_outputs=upper, materialize_grads=True)
    return torch._foreach_add(v, product, alpha=-lr if isinstance(lr, float) else -1)
