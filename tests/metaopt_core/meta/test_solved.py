"""Gradients through solutions in closed form, against automatic differentiation of a loop over tasks and finite differences."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.heads.head import Head
from metaopt_core.meta.heads.kernel import Kernel
from metaopt_core.meta.heads.process import GaussianProcess
from metaopt_core.meta.heads.ridge import Ridge
from metaopt_core.meta.solved import AfterSolving
from metaopt_core.networks.network import Params
from tests.metaopt_core.meta.heads import problems


def process(outputs: int, classes: bool, pooled: bool, kind: Literal["rbf", "linear"], marginal: bool, fitted: bool) -> Head:
    return GaussianProcess(problems.network(outputs), classes, pooled, Kernel(kind), marginal, fitted)


HEADS = {
    "ridge": Ridge(problems.network(2), False, False),
    "ridge, more features": Ridge(problems.network(2, 9), False, True),
    "ridge of classes": Ridge(problems.network(3), True, False),
    "marginal likelihood": process(2, False, True, "rbf", True, False),
    "marginal likelihood, linear": process(2, False, False, "linear", True, False),
    "queries": process(2, False, True, "rbf", False, False),
    "queries of classes": process(3, True, False, "rbf", False, False),
    "fitted to each task": process(2, False, False, "rbf", False, True),
    "fitted to each task, linear, of classes": process(3, True, True, "linear", False, True),
}


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest) -> Head:
    return HEADS[request.param]


def test_the_gradient_is_that_of_finite_differences(head: Head) -> None:
    """Of the loss that is reported, along random directions in all meta-parameters."""
    batch, params = problems.tasks(head.network.outputs, head.classification), problems.initial(head)
    objective = AfterSolving(problems.learner(head))
    gradient = objective(params, batch, 0).gradient
    assert gradient.keys() == params.keys()
    random = torch.Generator().manual_seed(2)
    for part in ("layer", "head."):
        names = [name for name in params if name.startswith(part)]
        direction = {name: torch.randn(params[name].shape, generator=random, dtype=torch.float64) for name in names}

        def loss(step: float, direction: Params = direction) -> Tensor:
            return objective(params | {name: params[name] + step * by for name, by in direction.items()}, batch, 0).losses.mean()

        expected = (8 * (loss(1e-4) - loss(-1e-4)) - (loss(2e-4) - loss(-2e-4))) / 1.2e-3
        found = sum(((gradient[name] * by).sum() for name, by in direction.items()), torch.zeros(()))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-8)


def test_the_ridge_gradient_is_that_of_a_loop_over_tasks() -> None:
    head, batch = Ridge(problems.network(2, 9), False, False), problems.tasks(2)
    params = problems.initial(head)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    total = torch.zeros((), dtype=torch.float64)
    for task, size in enumerate(problems.SIZES):

        def phi(x: Tensor) -> Tensor:
            hidden = (x @ leaves["layer0.weight"] + leaves["layer0.bias"]).relu()
            return (hidden @ leaves["layer1.weight"] + leaves["layer1.bias"]).relu() / 3  # √9

        x, y, w = batch.support_x[task, :size], batch.support_y[task, :size], batch.support_weight[task, :size]  # type: ignore[index]
        features, d = phi(x), torch.diag(w)
        normal = features.T @ d @ features + leaves["head.log_ridge"].exp() * torch.eye(9, dtype=torch.float64)
        solution = torch.linalg.inv(normal) @ features.T @ d @ (y - leaves["head.mean"])
        kept = 3 if task == 1 else 5
        outputs = leaves["head.mean"] + leaves["head.log_scale"].exp() * phi(batch.query_x[task, :kept]) @ solution
        total = total + (outputs - batch.query_y[task, :kept]).square().mean() / problems.TASKS
    expected = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    found = AfterSolving(problems.learner(head))(params, batch, 0)
    torch.testing.assert_close(found.losses.mean(), total.detach())
    for name, value in expected.items():
        torch.testing.assert_close(found.gradient[name], value)


def test_neither_padding_nor_chunks_change_losses_and_gradient(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, params = problems.tasks(head.network.outputs, head.classification), problems.initial(head)
    objective = AfterSolving(problems.learner(head))
    expected = objective(params, batch, 0)
    monkeypatch.setattr("metaopt_core.meta.solved._FEWEST_ROWS", 1)  # a task a chunk
    padded = TaskBatch(
        *(
            torch.cat([part, torch.full_like(part[:, :1], 9)], 1)
            for part in (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
        ),
        *(
            torch.cat([part, torch.zeros_like(part[:, :1])], 1)
            for part in (batch.support_weight, batch.query_weight)
            if part is not None
        ),
    )
    for found in (objective(params, batch, 0), objective(params, padded, 0)):
        torch.testing.assert_close(found.losses, expected.losses, rtol=1e-8, atol=1e-8)
        for name, value in expected.gradient.items():
            torch.testing.assert_close(found.gradient[name], value, rtol=1e-6, atol=1e-8)


def test_a_solution_is_one_step_and_further_steps_change_nothing(head: Head) -> None:
    batch, params = problems.tasks(head.network.outputs, head.classification), problems.initial(head)
    learner = problems.learner(head)
    outputs = [learner.outputs(theta, step, batch.query_x) for step, theta in enumerate(learner.adapt(params, batch, 3))]
    assert len(outputs) == 4
    assert not torch.allclose(outputs[0], outputs[1])
    assert torch.equal(outputs[1], outputs[3])
    torch.testing.assert_close(learner.predict_queries(params, batch, 1), outputs[1])
