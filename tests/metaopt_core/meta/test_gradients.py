"""The meta-gradient against independent computations: a plain loop over tasks, finite differences, and closed forms.

One long file, because all cases are held against the same reference.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.errors import UserError
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import ByTask, exact, for_each_task, implicit
from metaopt_core.meta.inner_loop import GRADIENT_DESCENT, InnerLoop, Rule
from metaopt_core.meta.learner import Learner, adapting
from metaopt_core.meta.losses import Differentiated
from metaopt_core.meta.objectives import EXACT, AfterAdaptation, MetaGradientSettings, Plan
from metaopt_core.networks.build import build
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.network import Params
from metaopt_core.spec.networks import Conv4Spec, ModelSpec, ModuleSpec, ResNet12Spec
from metaopt_core.spec.train import InnerSpec
from tests.metaopt_core.meta.plain import (
    DIFFERENCE_TOLERANCE,
    PLAIN_LOOP_TOLERANCE,
    STEPS,
    TASKS,
    doubled,
    last_alone,
    mlp_problem,
    ours,
    plain_inner,
    plain_loop,
    plain_loss,
    relative_error,
)

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
    found = [objective.by_plan(params, batch, Plan(tasks, unrolled=False), 0) for tasks in (1, 2, 3)]
    for chunked in found[:-1]:
        assert relative_error(list(chunked.gradient.values()), list(found[-1].gradient.values())) < PLAIN_LOOP_TOLERANCE
        assert torch.allclose(chunked.losses, found[-1].losses, rtol=PLAIN_LOOP_TOLERANCE)


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
