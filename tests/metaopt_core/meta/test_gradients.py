"""The meta-gradient against independent computations: a plain loop over tasks, finite differences, and closed forms."""

from collections.abc import Mapping
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.learner import Learner
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import MetaGradient, gradient_step, meta_gradient
from metaopt_core.meta.objectives import MAML, Plan
from metaopt_core.meta.problems import Differentiated, SquaredErrorMLP
from metaopt_core.models import MLP, Conv4, Params
from metaopt_core.spec.models import InnerSpec

TASKS = 3
STEPS = [1, 2, 3, 4, 5]
PLAIN_LOOP_TOLERANCE = 1e-9  # relative, in float64: the same sums in another order
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
    kind = SquaredErrorMLP if request.param == "mlp, compiled loops" else Differentiated
    assert isinstance(learner.support(batch), kind)
    return learner, params, batch


def plain_network(learner: Learner, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """One task's outputs, by PyTorch's ordinary functions."""
    network = learner.network
    if isinstance(network, MLP):
        for layer in range(3):
            x = x @ params[f"layer{layer}.weight"] + params[f"layer{layer}.bias"]
            x = x.relu() if layer < 2 else x
        return x
    for block in range(4):
        x = F.conv2d(x, params[f"conv{block}.weight"].permute(3, 2, 0, 1), stride=2, padding=1)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        x = (x - mean) / (variance + 1e-5).sqrt()
        x = (x * params[f"norm{block}.scale"].view(1, -1, 1, 1) + params[f"norm{block}.shift"].view(1, -1, 1, 1)).relu()
    return x.mean((2, 3)) @ params["linear.weight"] + params["linear.bias"]


def plain_loss(learner: Learner, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    outputs = plain_network(learner, params, x)
    return F.cross_entropy(outputs, y) * learner.loss_scale if learner.classification else F.mse_loss(outputs, y)


def plain_loop(
    learner: Learner, params: Params, batch: TaskBatch, steps: int, first_order: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """The mean query loss and its gradient, one task after the other, through the unrolled inner loop."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    initial = {name: value for name, value in leaves.items() if not name.startswith(step_sizes.PREFIX)}

    def size(name: str, step: int) -> Tensor | float:
        rows = leaves.get(f"{step_sizes.PREFIX}{name}", leaves.get(step_sizes.EVERY))
        return learner.inner_lr if rows is None else rows[min(step, len(rows) - 1)]

    losses = []
    for task in range(len(batch)):
        theta: Mapping[str, Tensor] = initial
        for step in range(steps):
            loss = plain_loss(learner, theta, batch.support_x[task], batch.support_y[task])
            gradient = torch.autograd.grad(loss, list(theta.values()), create_graph=not first_order)
            theta = {name: value - size(name, step) * g for (name, value), g in zip(theta.items(), gradient, strict=True)}
        losses.append(plain_loss(learner, theta, batch.query_x[task], batch.query_y[task]))
    mean = torch.stack(losses).mean()
    return mean.detach(), list(torch.autograd.grad(mean, list(leaves.values())))


def ours(learner: Learner, params: Params, batch: TaskBatch, steps: int, unrolled: bool = False) -> MetaGradient:
    return meta_gradient(learner.support(batch), learner.query(batch), params, len(batch), learner.inner_lr, steps, unrolled)


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    flat, reference = torch.cat([t.flatten() for t in found]), torch.cat([t.flatten() for t in expected])
    return float((flat - reference).norm() / reference.norm())


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


@pytest.mark.parametrize("steps", [1, 4, 11])
def test_the_way_back_is_the_same_bits_kept_or_made_again(problem: tuple[Learner, Params, TaskBatch], steps: int) -> None:
    learner, params, batch = problem
    again, kept = ours(learner, params, batch, steps), ours(learner, params, batch, steps, unrolled=True)
    assert torch.equal(again.losses, kept.losses)
    assert all(torch.equal(again.gradient[name], kept.gradient[name]) for name in params)


def test_chunks_of_tasks_change_nothing_beyond_rounding(problem: tuple[Learner, Params, TaskBatch]) -> None:
    learner, params, batch = problem
    objective = MAML(learner, 2)
    found = []
    for tasks in (1, 2, 3):
        objective.plan = Plan(tasks, unrolled=False)
        found.append(objective(params, batch))
    for chunked in found[:-1]:
        assert relative_error(list(chunked.gradient.values()), list(found[-1].gradient.values())) < PLAIN_LOOP_TOLERANCE
        assert torch.allclose(chunked.losses, found[-1].losses, rtol=PLAIN_LOOP_TOLERANCE)


def test_the_plan_is_measured_and_kept_within_the_batch() -> None:
    learner, params, batch = conv_problem()
    objective = MAML(learner, 2, unrolled=None)
    objective.measure(params, batch)
    assert objective.plan is not None
    assert 1 <= objective.plan.tasks_at_once <= len(batch)
    learner, params, batch = mlp_problem()
    objective = MAML(learner, 2, unrolled=None)
    objective.measure(params, batch)
    assert objective.plan == Plan(len(batch), unrolled=False)


class TestQuadratic:
    """L_i(θ) = ½‖θ − c_i‖²: with α and K steps, θ_K = c_i + (1−α)^K (θ − c_i), and the meta-gradient is (1−α)^{2K} (θ − mean c)."""

    centres = torch.tensor([[1.0, -2.0], [0.5, 4.0], [-3.0, 1.0]], dtype=torch.float64)
    theta = torch.tensor([2.0, 0.5], dtype=torch.float64)
    lr = 0.3

    def loss(self, params: Mapping[str, Tensor]) -> Tensor:
        return 0.5 * (params["theta"] - self.centres).square().sum(1)

    @pytest.mark.parametrize("steps", [1, 2, 5, 20])
    def test_inner_loop(self, steps: int) -> None:
        params = {"theta": self.theta.expand(3, 2)}
        for _ in range(steps):
            params = gradient_step(Differentiated(self.loss), params, self.lr)
        torch.testing.assert_close(params["theta"], self.centres + (1 - self.lr) ** steps * (self.theta - self.centres))

    @pytest.mark.parametrize("steps", [1, 2, 5, 20])
    def test_meta_gradient(self, steps: int) -> None:
        found = meta_gradient(Differentiated(self.loss), Differentiated(self.loss), {"theta": self.theta}, 3, self.lr, steps)
        torch.testing.assert_close(found.gradient["theta"], (1 - self.lr) ** (2 * steps) * (self.theta - self.centres.mean(0)))
        torch.testing.assert_close(
            found.losses, (1 - self.lr) ** (2 * steps) * self.loss({"theta": self.theta.expand(3, 2)}), rtol=1e-12, atol=0
        )

    def test_optimum_is_the_mean_of_the_centres(self) -> None:
        theta = self.theta
        for _ in range(400):
            loss = Differentiated(self.loss)
            theta = theta - 0.5 * meta_gradient(loss, loss, {"theta": theta}, 3, self.lr, 2).gradient["theta"]
        torch.testing.assert_close(theta, self.centres.mean(0))


def test_a_loss_without_curvature_has_its_query_gradient_as_meta_gradient() -> None:
    slopes, query = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[0.5, 1.0], [2.0, 4.0]])
    found = meta_gradient(
        Differentiated(lambda p: (p["theta"] * slopes).sum(1)),
        Differentiated(lambda p: (p["theta"] * query).sum(1)),
        {"theta": torch.zeros(2)},
        2,
        0.1,
        3,
    )
    torch.testing.assert_close(found.gradient["theta"], query.mean(0))


def test_no_inner_step_is_refused() -> None:
    learner, params, batch = mlp_problem()
    with pytest.raises(ValueError, match="0 inner steps: expected at least 1"):
        ours(learner, params, batch, 0)
