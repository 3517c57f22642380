"""Derivatives that are written out equal automatic ones, in double and in single precision."""

import pytest
import torch

from metaopt_core.meta.convolutional import CrossEntropyConv4
from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.losses import Differentiated, SquaredErrorMLP
from tests.metaopt_core.meta.plain import PLAIN_LOOP_TOLERANCE, PROBLEMS, TASKS, by_name, conv_problem, relative_error


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
