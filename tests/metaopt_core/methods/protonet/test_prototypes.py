"""ProtoNet against a plain loop, and that it learns."""

from dataclasses import replace

import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.learner import Learner
from metaopt_core.methods.protonet.prototypes import NearestMean, scores
from metaopt_core.networks.mlp import MLP


def problem() -> tuple[Learner, TaskBatch]:
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 1, 1, 0, 0]])
    centres = torch.randn(2, 3, 4, generator=random)
    support, query = (centres.gather(1, labels[..., None].expand(-1, -1, 4)) for _ in range(2))
    noise = torch.randn(2, 2, 6, 4, generator=random)
    learner = Learner(MLP((4, 8, 5)), classification=True, loss_scale=1.0, inner_lr=0.1)
    return learner, TaskBatch(support + noise[0], labels, query + noise[1], labels, classes=torch.arange(3).expand(2, 3))


def test_scores_are_minus_squared_distances_to_the_class_means() -> None:
    learner, batch = problem()
    params = learner.network.init(0)
    found = scores(learner, params, batch, batch.query_x)
    for task in range(2):
        one = {name: value[None] for name, value in params.items()}
        support, query = (learner.network(one, x[task][None])[0] for x in (batch.support_x, batch.query_x))
        for way in range(3):
            mean = support[batch.support_y[task] == way].mean(0)
            torch.testing.assert_close(found[task, :, way], -(query - mean).square().sum(1))


def test_no_query_belongs_to_a_class_whose_examples_weigh_nothing() -> None:
    learner, batch = problem()
    weight = torch.ones(2, 6)
    weight[0] = (batch.support_y[0] != 1).float()
    weight[1] = 0
    batch = replace(batch, support_weight=weight, query_weight=torch.stack([weight[0], torch.ones(6)]))
    found = scores(learner, learner.network.init(0), batch, batch.query_x).softmax(-1)
    torch.testing.assert_close(found[0].sum(-1), torch.ones(6))
    assert (found[0, :, 1] == 0).all()
    torch.testing.assert_close(found[1], torch.full((6, 3), 1 / 3))
    made = NearestMean(learner)(learner.network.init(0), batch)
    assert made.losses.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in made.gradient.values())


def test_its_gradient_lowers_the_loss_and_does_not_depend_on_the_chunks() -> None:
    learner, batch = problem()
    params = learner.network.init(0)
    whole = NearestMean(learner)(params, batch)
    halves = [NearestMean(learner)(params, batch[task : task + 1]) for task in range(2)]
    for name in params:
        torch.testing.assert_close(whole.gradient[name], (halves[0].gradient[name] + halves[1].gradient[name]) / 2)
    moved = {name: value - 0.01 * whole.gradient[name] for name, value in params.items()}
    assert NearestMean(learner)(moved, batch).losses.mean() < whole.losses.mean()
