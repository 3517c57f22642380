"""The meta-gradient against independent computations: a plain loop over tasks, finite differences, and closed forms.

One long file, because all cases are held against the same reference.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metaopt_core import kernels
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.errors import UserError
from metaopt_core.meta import step_sizes
from metaopt_core.meta.convolutional import CrossEntropyConv4
from metaopt_core.meta.gradients import ByTask, MetaGradient, exact, for_each_task, implicit
from metaopt_core.meta.inner_loop import GRADIENT_DESCENT, InnerLoop, Rule
from metaopt_core.meta.learner import Learner, adapting
from metaopt_core.meta.losses import Differentiated, Gradient, SquaredErrorMLP, TaskLoss
from metaopt_core.meta.objectives import EXACT, AfterAdaptation, MetaGradientSettings, Plan
from metaopt_core.networks.build import build
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Params
from metaopt_core.networks.normalization import Normalization
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.networks.user_module import UserModule
from metaopt_core.spec.networks import Conv4Spec, ModelSpec, ModuleSpec, ResNet12Spec
from metaopt_core.spec.train import InnerSpec

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


@pytest.fixture(params=[f"{name}, {loops} loops" for name in PROBLEMS for loops in ("compiled", "no")])
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Learner, Params, TaskBatch]:
    name, loops = request.param.split(", ")
    if loops == "no loops":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    learner, params, batch = PROBLEMS[name]()
    kind = {"mlp": SquaredErrorMLP, "conv4": CrossEntropyConv4}[name] if loops == "compiled loops" else Differentiated
    assert isinstance(learner.support(batch)[0], kind)
    return learner, params, batch


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


FURTHER: dict[str, tuple[ModelSpec, tuple[int, ...]]] = {
    "group norm": (Conv4Spec(name="conv4", filters=4, normalization="group", groups=2), (1, 12, 12)),
    "layer norm": (Conv4Spec(name="conv4", filters=4, normalization="layer"), (1, 12, 12)),
    "no normalization": (Conv4Spec(name="conv4", filters=8, normalization="none"), (1, 12, 12)),
    "pooling": (Conv4Spec(name="conv4", filters=4, pooling=True), (2, 33, 16)),
    "resnet": (ResNet12Spec(name="resnet12", widths=(3, 4)), (2, 9, 8)),
    "resnet with group norm": (ResNet12Spec(name="resnet12", widths=(2, 4), normalization="group", groups=2), (1, 8, 8)),
    "own module": (ModuleSpec(name="module", path="tests.own_nets:Pictures"), (1, 12, 12)),
}


@pytest.mark.parametrize("name", FURTHER)
def test_every_network_equals_the_unrolled_loop_over_tasks(name: str) -> None:
    spec, shape = FURTHER[name]
    learner = Learner(build(spec, shape, 3), classification=True, loss_scale=1.0, inner_lr=0.1)
    random = torch.Generator().manual_seed(6)
    x, qx = (torch.rand(TASKS, n, *shape, generator=random, dtype=torch.float64) for n in (3, 6))
    y = torch.arange(3).expand(TASKS, 3)
    params, batch = doubled(learner.network.init(0)), TaskBatch(x, y, qx, torch.cat([y, y], 1))
    loss, gradient = plain_loop(learner, params, batch, 2)
    for settings in (EXACT, MetaGradientSettings(unrolled=True)):
        found = ours(learner, params, batch, 2, settings)
        assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
        assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE
    inner, expected = learner.support(batch)[0].gradient(for_each_task(params, TASKS))[1], plain_inner(learner, params, batch)
    assert relative_error(list(inner), expected) < PLAIN_LOOP_TOLERANCE


def plain_inner(learner: Learner, params: Params, batch: TaskBatch) -> list[Tensor]:
    """The first inner gradient, one task after the other, stacked."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    losses = [plain_loss(learner, leaves, x, y) for x, y in zip(batch.support_x, batch.support_y, strict=True)]
    by_task = [torch.autograd.grad(loss, list(leaves.values())) for loss in losses]
    return [torch.stack(gradients) for gradients in zip(*by_task, strict=True)]


@pytest.mark.parametrize("steps", STEPS)
def test_equals_the_unrolled_loop_over_tasks(problem: tuple[Learner, Params, TaskBatch], steps: int) -> None:
    learner, params, batch = problem
    loss, gradient = plain_loop(learner, params, batch, steps)
    found = ours(learner, params, batch, steps)
    assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
    assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE


def test_parameters_are_known_by_their_names_whatever_their_order(problem: tuple[Learner, Params, TaskBatch]) -> None:
    learner, params, batch = problem
    in_order, sorted_by_name = ours(learner, params, batch, 2), ours(learner, dict(sorted(params.items())), batch, 2)
    assert all(torch.equal(in_order.gradient[name], sorted_by_name.gradient[name]) for name in params)
    curves = [learner.curves(p, batch, 2).loss for p in (params, dict(sorted(params.items())))]
    assert torch.equal(curves[0], curves[1])


@pytest.mark.parametrize("steps", STEPS)
def test_equals_central_differences(problem: tuple[Learner, Params, TaskBatch], steps: int) -> None:
    learner, params, batch = problem
    found = ours(learner, params, batch, steps).gradient
    width, random = 1e-5, torch.Generator().manual_seed(3)
    for _ in range(3):
        direction = {k: torch.randn(v.shape, generator=random, dtype=v.dtype) for k, v in params.items()}
        norm = sum(d.square().sum() for d in direction.values()) ** 0.5
        direction = {k: d / norm for k, d in direction.items()}

        def loss_at(sign: float, along: Params = direction) -> float:
            moved = {k: v + sign * width * along[k] for k, v in params.items()}
            return learner.curves(moved, batch, steps).loss[:, -1].mean().item()

        slope = (loss_at(1) - loss_at(-1)) / (2 * width)
        assert slope == pytest.approx(
            sum((found[k] * direction[k]).sum().item() for k in params), rel=DIFFERENCE_TOLERANCE, abs=1e-8
        )


@pytest.mark.parametrize("steps", STEPS)
def test_a_first_order_gradient_is_told_apart(problem: tuple[Learner, Params, TaskBatch], steps: int) -> None:
    learner, params, batch = problem
    _, first_order = plain_loop(learner, params, batch, steps, first_order=True)
    found = ours(learner, params, batch, steps)
    assert relative_error(list(found.gradient.values()), first_order) > 1000 * DIFFERENCE_TOLERANCE


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["scalar", "per_layer_and_step", "per_parameter"])
def test_learned_step_sizes_have_the_gradients_of_the_unrolled_loop(
    problem: tuple[Learner, Params, TaskBatch], kind: Literal["scalar", "per_layer_and_step", "per_parameter"], steps: int
) -> None:
    learner, params, batch = problem
    random = torch.Generator().manual_seed(4)
    sizes = doubled(step_sizes.initial(InnerSpec(lr=learner.inner_lr, steps=2, learned_lr=kind), params))
    sizes = {name: value * (0.5 + torch.rand(value.shape, generator=random, dtype=value.dtype)) for name, value in sizes.items()}
    loss, gradient = plain_loop(learner, params | sizes, batch, steps)
    found = ours(learner, params | sizes, batch, steps)
    assert list(found.gradient) == list(params | sizes)
    assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
    count = len(params)
    for part in (slice(None, count), slice(count, None)):
        assert relative_error(list(found.gradient.values())[part], gradient[part]) < PLAIN_LOOP_TOLERANCE


RULES = {
    "momentum": Rule(name="momentum", momentum=0.7),
    "adam": Rule(name="adam"),
    "clipped": Rule(clip_norm=0.5),
    "clipped adam": Rule(name="adam", clip_norm=0.5),
    "minibatches": Rule(minibatch=2),
    "minibatches with momentum": Rule(name="momentum", minibatch=1),
}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_differentiated_exactly(problem: tuple[Learner, Params, TaskBatch], rule: str, steps: int) -> None:
    learner, params, batch = problem
    learner = replace(learner, rule=RULES[rule], inner_lr=0.03)
    sizes = doubled(step_sizes.initial(InnerSpec(lr=0.03, steps=steps, learned_lr="per_layer_and_step"), params))
    loss, gradient = plain_loop(learner, params | sizes, batch, steps)
    for settings in (EXACT, MetaGradientSettings(unrolled=True)):
        found = ours(learner, params | sizes, batch, steps, settings)
        assert found.losses.mean().item() == pytest.approx(loss.item(), rel=1e-8)
        assert relative_error(list(found.gradient.values()), gradient) < 1e-7
        assert relative_error(list(found.gradient.values())[len(params) :], gradient[len(params) :]) < 1e-7


@pytest.mark.parametrize("wanted", ["head", "body", ("*0.weight", "*.bias")])
def test_what_does_not_adapt_is_learned_all_the_same(problem: tuple[Learner, Params, TaskBatch], wanted: str) -> None:
    learner, params, batch = problem
    learner = replace(learner, rule=Rule(adapts=adapting(learner.network, wanted)))
    loss, gradient = plain_loop(learner, params, batch, 2)
    found = ours(learner, params, batch, 2)
    assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
    assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE
    assert all(value.abs().max() > 0 for value in found.gradient.values())
    *_, adapted = learner.adapt(params, batch, 2)
    moved = {name for name, value in params.items() if not torch.equal(adapted[name], value.expand_as(adapted[name]))}
    assert moved == set(learner.rule.adapts or ())


@pytest.mark.parametrize("rule", ["gradient_descent", "momentum"])
@pytest.mark.parametrize("wanted", ["head", ("*0.weight",)])
def test_a_norm_is_clipped_of_what_adapts_alone(
    problem: tuple[Learner, Params, TaskBatch], wanted: str, rule: Literal["gradient_descent", "momentum"]
) -> None:
    learner, params, batch = problem
    clipped = Rule(rule, clip_norm=NORM, adapts=adapting(learner.network, wanted))
    learner = replace(learner, rule=clipped, inner_lr=1.0)
    sizes = doubled(step_sizes.initial(InnerSpec(lr=1.0, steps=2, learned_lr="per_layer_and_step"), params))
    loss, gradient = plain_loop(learner, params | sizes, batch, 2)
    found = ours(learner, params | sizes, batch, 2)
    assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
    assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE
    if rule == "momentum":
        return
    start, one = learner.adapt(params, batch, 1)
    _, safe = replace(learner, adaptation="safe").adapt(params, batch, 1)
    moved = torch.cat([(one[name] - start[name]).flatten(1) for name in params], 1).norm(dim=1)
    torch.testing.assert_close(moved, torch.full_like(moved, NORM))  # times a step size of 1
    for name in params:
        torch.testing.assert_close(safe[name], one[name])


@pytest.mark.parametrize("network", [Conv4, ResNet12])
@pytest.mark.parametrize("loops", ["compiled loops", "no loops"])
def test_every_step_has_its_own_normalization(network: type[Conv4 | ResNet12], loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loops == "no loops":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    learner, _, batch = conv_problem()
    own = Normalization("per_step", steps=3)
    learner = replace(learner, network=Conv4(1, 4, 3, own) if network is Conv4 else ResNet12(1, (2, 3), 3, own))
    learner = replace(learner, rule=Rule(adapts=adapting(learner.network, "all")))
    random = torch.Generator().manual_seed(5)
    params = {
        name: value + 0.3 * torch.rand(value.shape, generator=random) if name in learner.network.per_step else value
        for name, value in learner.network.init(0).items()
    }
    params = doubled(params)
    assert {value.shape for name, value in params.items() if "norm" in name} <= {(3, 4), (3, 2), (3, 3)}
    several = MetaGradientSettings(multi_step_until=100)
    for steps, settings in (
        (2, EXACT),
        (5, MetaGradientSettings(unrolled=True)),
        (4, several),
        (3, MetaGradientSettings("first_order", multi_step_until=100)),
    ):
        first, weights = settings.kind == "first_order", settings.weights(steps, 10)
        loss, gradient = plain_loop(learner, params, batch, steps, first, weights)
        found = ours(learner, params, batch, steps, settings, 10)
        assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
        assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE
        used = [bool(row.abs().max() > 0) for row in found.gradient["norm0.scale" if network is Conv4 else "block0.norm0.scale"]]
        assert used == [step < steps for step in range(3)]
    curves = learner.curves(params, batch, 5).loss.mean(0)
    for steps in range(1, 6):
        assert curves[steps].item() == pytest.approx(plain_loop(learner, params, batch, steps)[0].item(), rel=PLAIN_LOOP_TOLERANCE)


def test_a_step_s_own_parameters_do_not_adapt() -> None:
    network = Conv4(1, 4, 3, Normalization("per_step", steps=2))
    assert adapting(network, "all") == {name for name in network.init(0) if "norm" not in name}
    assert adapting(network, "body") == {f"conv{block}.weight" for block in range(4)}
    with pytest.raises(UserError, match=r"adapts: norm0.scale is the name of no parameter: expected some of conv0.weight, "):
        adapting(network, ("norm0.scale",))


@pytest.mark.parametrize("kind", ["scalar", "per_layer_and_step", "per_parameter"])
@pytest.mark.parametrize("wanted", ["head", ("*0.weight",)])
def test_step_sizes_are_learned_for_what_adapts_alone(
    problem: tuple[Learner, Params, TaskBatch], wanted: str, kind: Literal["scalar", "per_layer_and_step", "per_parameter"]
) -> None:
    learner, params, batch = problem
    learner = replace(learner, rule=Rule(adapts=adapting(learner.network, wanted)))
    sizes = doubled(step_sizes.initial(InnerSpec(lr=learner.inner_lr, steps=2, learned_lr=kind), params))
    for first in (False, True):
        _, gradient = plain_loop(learner, params | sizes, batch, 2, first)
        found = ours(learner, params | sizes, batch, 2, MetaGradientSettings("first_order" if first else "exact")).gradient
        of_sizes = [found[name] for name in sizes]
        assert relative_error(of_sizes, gradient[len(params) :]) < PLAIN_LOOP_TOLERANCE
        moving = [name in (learner.rule.adapts or ()) for name in params]
        assert [bool(value.any()) for value in of_sizes] == ([True] if kind == "scalar" else moving)


def test_where_a_gradient_is_zero_clipping_is_differentiated_as_nothing() -> None:
    flat, steep = (
        Differentiated(lambda params: params["theta"].pow(4).sum(1)),
        Differentiated(lambda params: params["theta"].sum(1)),
    )
    loop = InnerLoop([flat], [0.1, 0.1], Rule(clip_norm=0.5))
    found = exact(loop, lambda _: steep, {"theta": torch.zeros(2, 3)}, [0.0, 1.0], False, False)
    assert torch.equal(found.packed["theta"], torch.ones(2, 3))


def test_a_name_of_no_parameter_is_refused() -> None:
    with pytest.raises(UserError, match=r"adapts: conv9.\* is the name of no parameter: expected some of conv0.weight, "):
        adapting(Conv4(1, 4, 3), ("conv9.*",))


@pytest.mark.parametrize("first", [True, False])
def test_losses_after_every_step_count_by_their_weights(problem: tuple[Learner, Params, TaskBatch], first: bool) -> None:
    learner, params, batch = problem
    sizes = doubled(step_sizes.initial(InnerSpec(lr=learner.inner_lr, steps=3, learned_lr="per_layer_and_step"), params))
    settings = MetaGradientSettings(kind="first_order" if first else "exact", multi_step_until=100)
    for iteration in (0, 40, 200):
        loss, gradient = plain_loop(learner, params | sizes, batch, 3, first, settings.weights(3, iteration))
        found = ours(learner, params | sizes, batch, 3, settings, iteration)
        assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
        assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE


def test_weights_move_from_all_steps_to_the_last() -> None:
    settings = MetaGradientSettings(multi_step_until=100)
    assert settings.weights(5, 0) == pytest.approx([0.2] * 5)
    assert settings.weights(5, 50) == pytest.approx([0.1] * 4 + [0.6])
    assert settings.weights(5, 99) == pytest.approx([0.006] * 4 + [0.976])
    assert settings.weights(5, 100) == [0.0] * 4 + [1.0]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_first_order_gradient_is_that_of_a_loop_without_second_derivatives(
    problem: tuple[Learner, Params, TaskBatch], steps: int
) -> None:
    learner, params, batch = problem
    loss, gradient = plain_loop(learner, params, batch, steps, first_order=True)
    annealed = MetaGradientSettings(first_order_until=10)
    for found in (
        ours(learner, params, batch, steps, MetaGradientSettings(kind="first_order")),
        ours(learner, params, batch, steps, annealed, 9),
    ):
        assert found.losses.mean().item() == pytest.approx(loss.item(), rel=PLAIN_LOOP_TOLERANCE)
        assert relative_error(list(found.gradient.values()), gradient) < PLAIN_LOOP_TOLERANCE
    exact, later = ours(learner, params, batch, steps), ours(learner, params, batch, steps, annealed, 10)
    assert all(torch.equal(exact.gradient[name], later.gradient[name]) for name in params)


def test_reptile_goes_the_way_that_the_inner_loop_went_on_all_examples(problem: tuple[Learner, Params, TaskBatch]) -> None:
    learner, params, batch = problem
    found = ours(learner, params, batch, 3, MetaGradientSettings(kind="reptile"))
    x, y = torch.cat([batch.support_x, batch.query_x], 1), torch.cat([batch.support_y, batch.query_y], 1)
    ways = []
    for task in range(len(batch)):
        theta: Mapping[str, Tensor] = {name: value.clone().requires_grad_() for name, value in params.items()}
        for _ in range(3):
            gradient = torch.autograd.grad(plain_loss(learner, theta, x[task], y[task]), list(theta.values()))
            theta = {name: value - learner.inner_lr * g for (name, value), g in zip(theta.items(), gradient, strict=True)}
        ways.append([params[name] - value.detach() for name, value in theta.items()])
    expected = [torch.stack(each).mean(0) for each in zip(*ways, strict=True)]
    assert relative_error(list(found.gradient.values()), expected) < PLAIN_LOOP_TOLERANCE


def test_the_implicit_gradient_solves_its_equation() -> None:
    learner, params, batch = mlp_problem()
    learner = replace(learner, rule=Rule(proximal=3.0))
    found = ours(learner, params, batch, 4, MetaGradientSettings(kind="implicit", solver_steps=200))
    expected = []
    for task in range(len(batch)):
        start = torch.cat([value.flatten() for value in params.values()])
        sizes = [value.numel() for value in params.values()]

        def shaped(flat: Tensor, sizes: list[int] = sizes) -> Params:
            return {name: part.view(params[name].shape) for name, part in zip(params, flat.split(sizes), strict=True)}

        def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return plain_loss(learner, shaped(flat), x, y)

        support, query = (batch.support_x[task], batch.support_y[task]), (batch.query_x[task], batch.query_y[task])
        theta = start
        for _ in range(4):
            theta = theta - learner.inner_lr * (torch.func.grad(loss)(theta, *support) + 3.0 * (theta - start))
        matrix = torch.eye(len(start), dtype=start.dtype) + torch.func.hessian(loss)(theta, *support) / 3.0
        expected.append(torch.linalg.solve(matrix, torch.func.grad(loss)(theta, *query)))
    flat = torch.cat([value.flatten() for value in found.gradient.values()])
    assert relative_error([flat], [torch.stack(expected).mean(0)]) < 1e-6
    assert found.notes["solver_residual"].max() < 1e-7
    unsolved = ours(learner, params, batch, 4, MetaGradientSettings(kind="implicit", solver_steps=1)).notes["solver_residual"]
    assert (unsolved > 1e-3).all()


@pytest.mark.parametrize("steps", [1, 4, 11])
def test_the_way_back_is_the_same_bits_kept_or_made_again(problem: tuple[Learner, Params, TaskBatch], steps: int) -> None:
    learner, params, batch = problem
    for rule in (learner.rule, Rule(name="momentum")):
        found = [
            ours(replace(learner, rule=rule), params, batch, steps, MetaGradientSettings(unrolled=unrolled))
            for unrolled in (False, True)
        ]
        assert torch.equal(found[0].losses, found[1].losses)
        assert all(torch.equal(found[0].gradient[name], found[1].gradient[name]) for name in params)


def test_chunks_of_tasks_change_nothing_beyond_rounding(problem: tuple[Learner, Params, TaskBatch]) -> None:
    learner, params, batch = problem
    objective = AfterAdaptation(learner, 2)
    found = []
    for tasks in (1, 2, 3):
        objective.plan = Plan(tasks, unrolled=False)
        found.append(objective(params, batch, 0))
    for chunked in found[:-1]:
        assert relative_error(list(chunked.gradient.values()), list(found[-1].gradient.values())) < PLAIN_LOOP_TOLERANCE
        assert torch.allclose(chunked.losses, found[-1].losses, rtol=PLAIN_LOOP_TOLERANCE)


@pytest.mark.parametrize("kind", [*PROBLEMS])
def test_derivatives_that_are_written_out_equal_automatic_ones(kind: str) -> None:
    learner, params, batch = PROBLEMS[kind]()
    random = torch.Generator().manual_seed(2)
    weight = torch.rand(batch.support_y.shape[:2], generator=random, dtype=torch.float64)
    weighted = weight / weight.sum(1, keepdim=True) if kind == "mlp" else None  # weights normalize pictures by PyTorch alone
    ours = learner._task_loss(batch.support_x, batch.support_y, weighted)
    automatic = Differentiated(lambda theta: learner._loss_of(theta, batch.support_x, batch.support_y, weighted))
    assert isinstance(ours, (SquaredErrorMLP, CrossEntropyConv4))

    theta = {name: torch.stack([value + 0.1 * task for task in range(TASKS)]) for name, value in params.items()}
    direction = {name: torch.randn(value.shape, generator=random, dtype=torch.float64) for name, value in theta.items()}
    losses, gradient = ours.gradient(ours.pack(theta))
    expected_losses, expected = automatic.gradient(theta)
    assert torch.allclose(losses, expected_losses, rtol=1e-12)
    assert relative_error(by_name(ours, theta, gradient), list(expected)) < PLAIN_LOOP_TOLERANCE

    gradient, product = ours.linearized(ours.pack(theta))
    assert relative_error(by_name(ours, theta, gradient), list(expected)) < PLAIN_LOOP_TOLERANCE
    expected = automatic.linearized(theta)[1](list(direction.values()))
    for _ in range(2):  # it may be asked for more than one product
        found = product(list(ours.pack(direction).values()))
        assert relative_error(by_name(ours, theta, found), list(expected)) < PLAIN_LOOP_TOLERANCE


def by_name(problem: TaskLoss, theta: Params, packed: Gradient) -> list[Tensor]:
    found = problem.unpack(dict(zip(problem.pack(theta), packed, strict=True)))
    return [found[name] for name in theta]


def test_single_precision_is_precise_where_much_of_a_picture_is_empty() -> None:
    """Sums over many equal numbers are where rounding adds up."""
    learner, params, _ = conv_problem()
    x = torch.zeros(TASKS, 60, 1, 28, 28, dtype=torch.float64)
    x[..., 8:20, 8:20] = torch.rand(TASKS, 60, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(60).remainder(3).expand(TASKS, 60)
    found = []
    for dtype in (torch.float64, torch.float32):
        problem = learner._task_loss(x.to(dtype), labels, None)
        found.append(problem.gradient(for_each_task({name: value.to(dtype) for name, value in params.items()}, TASKS))[1])
    assert relative_error([value.double() for value in found[1]], list(found[0])) < 2e-6


def test_what_a_linearization_keeps_is_known() -> None:
    learner, params, batch = conv_problem()
    theta = for_each_task(params, TASKS)
    automatic = Differentiated(lambda theta: learner._loss_of(theta, batch.support_x, batch.support_y, None))
    kept, kept_by_graph = learner.support(batch)[0].bytes_kept(theta), automatic.bytes_kept(theta)
    activations = TASKS * 3 * 4 * (14**2 + 7**2 + 4**2 + 2**2) * 8
    assert 3 * activations < kept < kept_by_graph < 20 * activations


def test_the_plan_is_measured_and_kept_within_the_batch() -> None:
    learner, params, batch = conv_problem()
    objective = AfterAdaptation(learner, 2, MetaGradientSettings(unrolled=None))
    objective.measure(params, batch)
    assert objective.plan is not None
    assert 1 <= objective.plan.tasks_at_once <= len(batch)
    learner, params, batch = mlp_problem()
    objective = AfterAdaptation(learner, 2, MetaGradientSettings(unrolled=None))
    objective.measure(params, batch)
    assert objective.plan == Plan(len(batch), unrolled=False)


class TestQuadratic:
    """L_i(θ) = ½‖θ − c_i‖²: with α and K steps, θ_K = c_i + (1−α)^K (θ − c_i), and the meta-gradient is (1−α)^{2K} (θ − mean c)."""

    centres = torch.tensor([[1.0, -2.0], [0.5, 4.0], [-3.0, 1.0]], dtype=torch.float64)
    theta = torch.tensor([2.0, 0.5], dtype=torch.float64)
    lr = 0.3

    def loss(self, params: Mapping[str, Tensor]) -> Tensor:
        return 0.5 * (params["theta"] - self.centres).square().sum(1)

    def loop(self, steps: int, rule: Rule = GRADIENT_DESCENT) -> InnerLoop:
        return InnerLoop([Differentiated(self.loss)], [self.lr] * steps, rule)

    def gradient(self, steps: int, theta: Tensor) -> ByTask:
        return exact(
            self.loop(steps), lambda _: Differentiated(self.loss), {"theta": theta.expand(3, 2)}, last_alone(steps), False, False
        )

    @pytest.mark.parametrize("steps", [1, 2, 5, 20])
    def test_inner_loop(self, steps: int) -> None:
        *_, end = self.loop(steps).walk({"theta": self.theta.expand(3, 2)})
        torch.testing.assert_close(end.theta["theta"], self.centres + (1 - self.lr) ** steps * (self.theta - self.centres))

    @pytest.mark.parametrize("steps", [1, 2, 5, 20])
    def test_meta_gradient(self, steps: int) -> None:
        found = self.gradient(steps, self.theta)
        torch.testing.assert_close(found.packed["theta"], (1 - self.lr) ** (2 * steps) * (self.theta - self.centres))
        torch.testing.assert_close(
            found.losses, (1 - self.lr) ** (2 * steps) * self.loss({"theta": self.theta.expand(3, 2)}), rtol=1e-12, atol=0
        )

    def test_optimum_is_the_mean_of_the_centres(self) -> None:
        theta = self.theta
        for _ in range(400):
            theta = theta - 0.5 * self.gradient(2, theta).packed["theta"].mean(0)
        torch.testing.assert_close(theta, self.centres.mean(0))

    def test_implicit_gradient(self) -> None:
        """At the minimum of L + λ/2 ‖θ' − θ‖², θ' = (c + λ θ)/(1 + λ), so the gradient by θ is λ/(1 + λ) (θ' − c)."""
        found = implicit(
            self.loop(200, Rule(proximal=2.0)), lambda _: Differentiated(self.loss), {"theta": self.theta.expand(3, 2)}, 2
        )
        adapted = (self.centres + 2.0 * self.theta) / 3.0
        torch.testing.assert_close(found.packed["theta"], 2 / 3 * (adapted - self.centres))


def last_alone(steps: int) -> list[float]:
    return [0.0] * (steps - 1) + [1.0]


def test_a_loss_without_curvature_has_its_query_gradient_as_meta_gradient() -> None:
    slopes, query = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[0.5, 1.0], [2.0, 4.0]])
    loop = InnerLoop([Differentiated(lambda p: (p["theta"] * slopes).sum(1))], [0.1] * 3)
    upper = Differentiated(lambda p: (p["theta"] * query).sum(1))
    found = exact(loop, lambda _: upper, {"theta": torch.zeros(2, 2)}, last_alone(3), False, False)
    torch.testing.assert_close(found.packed["theta"], query)


def test_no_inner_step_is_refused() -> None:
    learner, params, batch = mlp_problem()
    with pytest.raises(ValueError, match="0 inner steps: expected at least 1"):
        ours(learner, params, batch, 0)
