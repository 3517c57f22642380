"""Safe adaptation: no support loss ever rises, a task is on its own, and a large support set says when to stop."""

from dataclasses import replace

import pytest
import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.learner import Learner
from metaopt_core.meta.gradients import Loss
from metaopt_core.models import MLP
from metaopt_core.safe_adaptation import _held_out, adapt


def problem(inner_lr: float, support: int = 5) -> tuple[Learner, TaskBatch]:
    learner = Learner(MLP((1, 8, 1)), classification=False, loss_scale=1.0, inner_lr=inner_lr, adaptation="safe")
    random = torch.Generator().manual_seed(0)
    shapes = (support, support, 7, 7)
    return learner, TaskBatch(*(3 * torch.randn(6, size, 1, generator=random) for size in shapes))


def support_losses(learner: Learner, batch: TaskBatch, steps: int) -> torch.Tensor:
    """After 0, 1, … steps: [steps + 1, tasks]."""
    params, loss = learner.network.init(0), learner.support_loss(batch)
    return torch.stack([loss(theta).detach() for theta in learner.adapt(params, batch, steps)])


def test_no_support_loss_rises_where_plain_descent_blows_up() -> None:
    learner, batch = problem(inner_lr=3.0)
    plain = support_losses(replace(learner, adaptation="plain"), batch, 8)
    assert not (plain[-1] < plain[0]).all()
    safe = support_losses(learner, batch, 8)
    assert (safe.diff(dim=0) <= 0).all()
    assert (safe[-1] < safe[0]).all()


def test_with_a_step_size_that_is_small_enough_it_is_plain_descent() -> None:
    learner, batch = problem(inner_lr=1e-3)
    params = learner.network.init(0)
    for safe, plain in zip(
        learner.adapt(params, batch, 3), replace(learner, adaptation="plain").adapt(params, batch, 3), strict=True
    ):
        for name in params:
            torch.testing.assert_close(safe[name], plain[name])


@pytest.mark.parametrize("support", [5, 20])
def test_a_task_gets_the_same_alone_as_in_a_batch(support: int) -> None:
    learner, batch = problem(inner_lr=0.5, support=support)
    params = learner.network.init(0)
    *_, together = learner.adapt(params, batch, 5)
    *_, alone = learner.adapt(params, batch[2:3], 5)
    for name in params:
        torch.testing.assert_close(together[name][2], alone[name][0])


def test_a_fifth_of_each_class_is_held_out_where_that_is_enough() -> None:
    one_class = torch.zeros(1, 12)
    assert _held_out(one_class).nonzero()[:, 1].tolist() == [4, 9]
    assert not _held_out(one_class[:, :9]).any()  # a single example says too little
    labels = torch.tensor([[0, 1, 0, 1, 0, 1, 0, 1, 0, 1], [0] * 6 + [1] * 4])
    assert _held_out(labels).nonzero().tolist() == [[0, 8], [0, 9]]  # and so does a class of four


def test_adaptation_to_the_whole_set_stops_where_the_held_out_part_was_predicted_best() -> None:
    """A parameter w from 0, with loss (w − target)²: eight targets of 1, and the two that are held out 0.5, in the first task."""
    target = torch.ones(2, 10)
    target[0, [4, 9]] = 0.5

    def loss(weight: torch.Tensor) -> Loss:
        return lambda theta: (weight * (theta["w"] - target).square()).sum(1) / weight.sum(1)

    ones = torch.ones(2, 10)
    adapted = [theta["w"] for theta in adapt(loss, ones, torch.zeros(2, 10), {"w": torch.zeros(2, 1)}, [0.1] * 10)]
    # On the eight w is 1 − 0.8^k: nearest to 0.5 at k = 3. On all ten the mean target is 0.9.
    for step, w in enumerate(adapted):
        torch.testing.assert_close(w[:, 0], torch.tensor([0.9 * (1 - 0.8 ** min(step, 3)), 1 - 0.8**step]))
