"""Pre-training pools the tasks: its loss is that of all examples together."""

from typing import Literal

import pytest
import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.learner import Learner
from metaopt_core.methods.pretrained.joint import Joint
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.normalization import Normalization


def problem(outputs: int = 1) -> tuple[Learner, TaskBatch]:
    learner = Learner(MLP((1, 8, outputs)), classification=outputs > 1, loss_scale=1.0, inner_lr=0.05)
    random = torch.Generator().manual_seed(0)
    x, qx, y, qy = (torch.randn(4, 5, 1, generator=random) for _ in range(4))
    return learner, TaskBatch(x, y, qx, qy)


def test_the_joint_gradient_is_that_of_all_examples_together() -> None:
    learner, batch = problem()
    params = {name: value.requires_grad_() for name, value in learner.network.init(0).items()}
    x, y = torch.cat([batch.support_x, batch.query_x]).flatten(0, 1), torch.cat([batch.support_y, batch.query_y]).flatten(0, 1)
    hidden = (x @ params["layer0.weight"] + params["layer0.bias"]).relu()
    loss = (hidden @ params["layer1.weight"] + params["layer1.bias"] - y).square().mean()
    expected = torch.autograd.grad(loss, list(params.values()))
    found = Joint(learner)(params, batch)
    assert found.losses.mean().item() == pytest.approx(loss.item(), rel=1e-5)
    for gradient, reference in zip(found.gradient.values(), expected, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_joint_training_tells_the_classes_of_the_whole_split_apart() -> None:
    learner, batch = problem(outputs=7)
    labels = torch.tensor([[0, 1, 2, 0, 1]] * 4)
    classes = torch.tensor([[6, 2, 4], [0, 1, 2], [3, 5, 1], [2, 2, 6]])
    tasks = TaskBatch(batch.support_x, labels, batch.query_x, labels, classes=classes)
    x = torch.cat([tasks.support_x, tasks.query_x], 1)
    logits = learner.network({name: value[None] for name, value in learner.network.init(0).items()}, x.flatten(0, 1)[None])[0]
    of_the_split = torch.stack([classes[task][labels[task]] for task in range(4)]).repeat(1, 2)
    expected = torch.nn.functional.cross_entropy(logits, of_the_split.flatten())
    assert Joint(learner)(learner.network.init(0), tasks).losses.mean().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["transductive", "group"])
def test_joint_training_normalizes_a_quarter_of_the_tasks_at_a_time(kind: Literal["transductive", "group"]) -> None:
    learner = Learner(Conv4(1, 4, 5, Normalization(kind, groups=2)), classification=True, loss_scale=1.0, inner_lr=0.1)
    random = torch.Generator().manual_seed(0)
    x, qx = (torch.rand(5, 3, 1, 28, 28, generator=random, dtype=torch.float64) for _ in range(2))
    labels, classes = torch.arange(3).expand(5, 3), torch.arange(15).view(5, 3) % 4
    params = {name: value.double().requires_grad_() for name, value in learner.network.init(0).items()}
    found = Joint(learner)(params, TaskBatch(x, labels, qx, labels, classes=classes))
    losses = []
    for first in (0, 2, 4):  # a quarter of 5 tasks, rounded up
        pictures = torch.cat([x, qx], 1)[first : first + 2].flatten(0, 1)
        logits = learner.network({name: value[None] for name, value in params.items()}, pictures[None])[0]
        of_examples = torch.nn.functional.cross_entropy(logits, classes.repeat(1, 2)[first : first + 2].flatten(), reduction="none")
        losses += list(of_examples.split(6)) if kind == "group" else [of_examples] * (len(of_examples) // 6)
    by_task = torch.stack([loss.mean() for loss in losses])
    expected = torch.autograd.grad(by_task.mean(), list(params.values()))
    torch.testing.assert_close(found.losses, by_task.detach())
    for gradient, reference in zip(found.gradient.values(), expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-12)
