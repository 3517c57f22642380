"""A learner's losses and curves, and the device it is asked for."""

import pytest
import torch

from metaopt_core.distributions.batch import TaskBatch, Tasks
from metaopt_core.errors import UserError
from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.inner_loop import InnerLoop
from metaopt_core.meta.learner import Learner, device_named
from metaopt_core.meta.losses import Differentiated
from metaopt_core.networks.mlp import MLP


def test_curves_hold_the_losses_after_every_number_of_steps() -> None:
    learner = Learner(MLP((1, 8, 1)), classification=False, loss_scale=1.0, inner_lr=0.1)
    params = learner.network.init(0)
    batch = TaskBatch(*(torch.randn(4, 5, 1, generator=torch.Generator().manual_seed(i)) for i in range(4)))
    curves = learner.curves(params, batch, 2)
    problem = Differentiated(lambda theta: learner.loss(learner.network(theta, batch.support_x), batch.support_y))
    walk = InnerLoop([problem], [0.1] * 2).walk(for_each_task(params, 4))
    for step, (_, theta, _) in enumerate(walk):
        expected = (learner.network(theta, batch.query_x) - batch.query_y).square().mean((1, 2))
        torch.testing.assert_close(curves.loss[:, step], expected)
    assert curves.accuracy is None


def test_examples_of_weight_zero_do_not_count() -> None:
    learner = Learner(MLP((1, 8, 3)), classification=True, loss_scale=3.0, inner_lr=0.1)
    outputs = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    padded = learner.loss(outputs, targets, torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2))
    torch.testing.assert_close(padded, learner.loss(outputs[:, :2], targets[:, :2]))
    mean = -outputs.log_softmax(-1).gather(2, targets[..., None]).mean((1, 2))
    torch.testing.assert_close(learner.loss(outputs, targets), 3 * mean)


def test_a_gpu_that_is_not_there_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device: cuda, but PyTorch finds no GPU"):
        device_named("cuda")


def test_a_mean_over_many_tasks_is_the_same_bits_by_any_number_of_threads() -> None:
    y = torch.rand(50_000, 1, 1, generator=torch.Generator().manual_seed(0))
    learner, drawn = Learner(MLP((1, 1)), classification=False, loss_scale=1.0, inner_lr=0.1), TaskBatch(y, y, y, y)
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            tasks = Tasks(len(drawn), lambda start, count: drawn[start : start + count])
            found.add(learner.means(lambda part: torch.zeros_like(part.query_y), tasks, torch.device("cpu"))["loss"])
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
