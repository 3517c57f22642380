"""The meta-gradient by a plain loop: one task after the other, by PyTorch's ordinary functions and an unrolled inner loop."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import MetaGradient
from metaopt_core.meta.inner_loop import Rule
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.losses import Gradient, TaskLoss
from metaopt_core.meta.objectives import EXACT, AfterAdaptation, MetaGradientSettings
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Params
from metaopt_core.networks.normalization import Normalization
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.networks.user_module import UserModule

TASKS = 3
STEPS = [1, 2, 3, 4, 5]
PLAIN_LOOP_TOLERANCE = 1e-9  # relative, in float64: the same sums in another order
NORM = 1e-3  # smaller than any inner gradient's here
DIFFERENCE_TOLERANCE = 1e-5  # relative, in float64: what a central difference of width 1e-5 leaves


def mlp_problem() -> tuple[Learner, Params, TaskBatch]:
    learner = Learner(MLP((1, 8, 8, 1)), classification=False, loss_scale=1.0, inner_lr=0.05)
    random = torch.Generator().manual_seed(1)
    x, y, qx, qy = (torch.randn(TASKS, n, 1, generator=random, dtype=torch.float64) for n in (5, 5, 7, 7))
    return learner, doubled(learner.network.init(0)), TaskBatch(x, y, qx, qy)


def conv_problem() -> tuple[Learner, Params, TaskBatch]:
    learner = Learner(Conv4(1, 4, 3), classification=True, loss_scale=3.0, inner_lr=0.1)
    random = torch.Generator().manual_seed(6)  # central differences meet no kink of a ReLU
    x, qx = (torch.rand(TASKS, n, 1, 28, 28, generator=random, dtype=torch.float64) for n in (3, 6))
    y = torch.arange(3).expand(TASKS, 3)
    return learner, doubled(learner.network.init(0)), TaskBatch(x, y, qx, torch.cat([y, y], 1))


def doubled(params: Params) -> Params:
    return {name: value.double() for name, value in params.items()}


PROBLEMS = {"mlp": mlp_problem, "conv4": conv_problem}


def plain_network(learner: Learner, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """One task's outputs, by PyTorch's ordinary functions."""
    network = learner.network
    if isinstance(network, MLP):
        for layer in range(3):
            x = x @ params[f"layer{layer}.weight"] + params[f"layer{layer}.bias"]
            x = x.relu() if layer < 2 else x
        return x
    if isinstance(network, UserModule):
        return functional_call(network._module, dict(params), (x,))  # type: ignore[no-any-return]
    if isinstance(network, ResNet12):
        return plain_resnet(network, params, x)
    assert isinstance(network, Conv4)
    for block in range(4):
        x = plain_convolution(params[f"conv{block}.weight"], x, 1 if network.pooling else 2)
        x = plain_norm(network.normalization, params, f"norm{block}", x).relu()
        x = F.max_pool2d(x, 2) if network.pooling else x
    features = x.permute(0, 2, 3, 1).flatten(1) if network.pooling else x.mean((2, 3))
    return features @ params["linear.weight"] + params["linear.bias"]


def plain_convolution(weight: Tensor, x: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, weight.permute(3, 2, 0, 1), stride=stride, padding=1)


def plain_norm(normalization: Normalization, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    shift = params[f"{name}.shift"]
    if normalization.kind == "none":
        return x + shift[:, None, None]
    scale = params[f"{name}.scale"]
    if normalization.kind in {"transductive", "per_step"}:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]
    return F.group_norm(x, normalization.groups if normalization.kind == "group" else 1, scale, shift)


def plain_resnet(network: ResNet12, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    for block in range(len(network.widths)):
        short = torch.einsum("ncij,ck->nkij", x, params[f"block{block}.shortcut.weight"])
        short = plain_norm(network.normalization, params, f"block{block}.norm_shortcut", short)
        for layer in range(3):
            x = plain_convolution(params[f"block{block}.conv{layer}.weight"], x, 1)
            x = plain_norm(network.normalization, params, f"block{block}.norm{layer}", x)
            x = torch.where(x > 0, x, 0.1 * x) if layer < 2 else x
        x = x + short
        x = F.max_pool2d(torch.where(x > 0, x, 0.1 * x), 2)
    return x.mean((2, 3)) @ params["linear.weight"] + params["linear.bias"]


def plain_loss(learner: Learner, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    outputs = plain_network(learner, params, x)
    return F.cross_entropy(outputs, y) * learner.loss_scale if learner.classification else F.mse_loss(outputs, y)


def plain_direction(rule: Rule, memory: list[Tensor], gradient: list[Tensor], step: int, moving: list[bool]) -> list[Tensor]:
    """What PyTorch's optimizers would step along, told of what moves alone; `memory` is changed as theirs is."""
    if rule.clip_norm is not None:
        norm = torch.cat([g.flatten() for g, moves in zip(gradient, moving, strict=True) if moves]).norm()
        gradient = [g * rule.clip_norm / norm for g in gradient] if norm > rule.clip_norm else gradient
    if rule.name == "gradient_descent":
        return gradient
    count = len(gradient)
    if rule.name == "momentum":
        memory[:] = [rule.momentum * m + g for m, g in zip(memory or [torch.zeros(())] * count, gradient, strict=True)]
        return list(memory)
    before = memory or [torch.zeros(())] * (2 * count)
    means = [0.9 * m + 0.1 * g for m, g in zip(before[:count], gradient, strict=True)]
    squares = [0.999 * s + 0.001 * g**2 for s, g in zip(before[count:], gradient, strict=True)]
    memory[:] = means + squares
    corrected = ((m / (1 - 0.9 ** (step + 1)), s / (1 - 0.999 ** (step + 1))) for m, s in zip(means, squares, strict=True))
    return [m / (s + 1e-16).sqrt() for m, s in corrected]


def plain_loop(
    learner: Learner,
    params: Params,
    batch: TaskBatch,
    steps: int,
    first_order: bool = False,
    weights: list[float] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """The mean query loss and its gradient, one task after the other, through the unrolled inner loop."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    initial = {name: value for name, value in leaves.items() if not name.startswith(step_sizes.PREFIX)}
    rule, weights = learner.rule, weights or [0.0] * (steps - 1) + [1.0]

    def size(name: str, step: int) -> Tensor | float:
        if rule.adapts is not None and name not in rule.adapts:
            return 0.0
        rows = leaves.get(f"{step_sizes.PREFIX}{name}", leaves.get(step_sizes.EVERY))
        return learner.inner_lr if rows is None else rows[min(step, len(rows) - 1)]

    def in_step(theta: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        rows = learner.network.per_step
        return {name: value[min(step, len(value) - 1)] if name in rows else value for name, value in theta.items()}

    losses, weighted = [], []
    for task in range(len(batch)):
        theta: Mapping[str, Tensor] = initial
        memory: list[Tensor] = []
        parts = 1 if rule.minibatch is None else -(-batch.support_x.shape[1] // rule.minibatch)
        for step in range(steps):
            x, y = (whole[task][step % parts :: parts] for whole in (batch.support_x, batch.support_y))
            loss = plain_loss(learner, in_step(theta, step), x, y)
            gradient = torch.autograd.grad(loss, list(theta.values()), create_graph=not first_order)
            moving = [rule.adapts is None or name in rule.adapts for name in theta]
            direction = plain_direction(rule, memory, list(gradient), step, moving)
            theta = {name: value - size(name, step) * d for (name, value), d in zip(theta.items(), direction, strict=True)}
            losses.append(plain_loss(learner, in_step(theta, step), batch.query_x[task], batch.query_y[task]))
            weighted.append(weights[step] * losses[-1])
    total = torch.stack(weighted).sum() / len(batch)
    by_leaf = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    return torch.stack(losses[steps - 1 :: steps]).mean().detach(), list(by_leaf)


def ours(
    learner: Learner, params: Params, batch: TaskBatch, steps: int, settings: MetaGradientSettings = EXACT, iteration: int = 0
) -> MetaGradient:
    return AfterAdaptation(learner, steps, settings)(params, batch, iteration)


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    flat, reference = torch.cat([t.flatten() for t in found]), torch.cat([t.flatten() for t in expected])
    return float((flat - reference).norm() / reference.norm())


def plain_inner(learner: Learner, params: Params, batch: TaskBatch) -> list[Tensor]:
    """The first inner gradient, one task after the other, stacked."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    losses = [plain_loss(learner, leaves, x, y) for x, y in zip(batch.support_x, batch.support_y, strict=True)]
    by_task = [torch.autograd.grad(loss, list(leaves.values())) for loss in losses]
    return [torch.stack(gradients) for gradients in zip(*by_task, strict=True)]


def by_name(problem: TaskLoss, theta: Params, packed: Gradient) -> list[Tensor]:
    found = problem.unpack(dict(zip(problem.pack(theta), packed, strict=True)))
    return [found[name] for name in theta]


def last_alone(steps: int) -> list[float]:
    return [0.0] * (steps - 1) + [1.0]
