"""Safe adaptation: no support loss ever rises, a task is on its own, and a large support set says when to stop."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta import step_sizes
from metaopt_core.meta.inner_loop import Rule
from metaopt_core.meta.learner import Learner
from metaopt_core.meta.safe_adaptation import _held_out, adapt
from metaopt_core.networks.mlp import MLP
from metaopt_core.spec.train import InnerSpec


def problem(inner_lr: float, support: int = 5) -> tuple[Learner, TaskBatch]:
    learner = Learner(MLP((1, 8, 1)), classification=False, loss_scale=1.0, inner_lr=inner_lr, adaptation="safe")
    random = torch.Generator().manual_seed(0)
    shapes = (support, support, 7, 7)
    return learner, TaskBatch(*(3 * torch.randn(6, size, 1, generator=random) for size in shapes))


def support_losses(learner: Learner, batch: TaskBatch, steps: int) -> torch.Tensor:
    """After 0, 1, … steps: [steps + 1, tasks]."""
    adapted = learner.adapt(learner.network.init(0), batch, steps)
    return torch.stack([learner.loss(learner.network(theta, batch.support_x), batch.support_y).detach() for theta in adapted])


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


def test_it_moves_what_the_rule_adapts_by_learned_step_sizes_and_clips_the_gradient() -> None:
    learner, batch = problem(inner_lr=1.0)
    rule = Rule(adapts=frozenset({"layer1.weight"}), clip_norm=0.1)
    learner = replace(learner, rule=rule)
    params = learner.network.init(0)
    params |= step_sizes.initial(InnerSpec(lr=1e-2, steps=2, learned_lr="per_layer_and_step"), params)
    safe, plain = (replace(learner, adaptation=kind).adapt(params, batch, 3) for kind in ("safe", "plain"))
    *_, (one, other) = zip(safe, plain, strict=True)
    for name in other:
        torch.testing.assert_close(one[name], other[name])
        assert torch.equal(one[name][0], params[name]) == (name != "layer1.weight")


@pytest.mark.parametrize("support", [5, 30])
def test_a_task_gets_the_same_alone_as_in_a_batch(support: int) -> None:
    learner, batch = problem(inner_lr=0.5, support=support)
    params = learner.network.init(0)
    *_, together = learner.adapt(params, batch, 5)
    *_, alone = learner.adapt(params, batch[2:3], 5)
    for name in params:
        torch.testing.assert_close(together[name][2], alone[name][0])


def held_out(labels: torch.Tensor) -> torch.Tensor:
    return _held_out(labels, torch.ones_like(labels, dtype=torch.bool))


def test_a_fifth_of_each_class_is_held_out_where_that_is_enough() -> None:
    one_class = torch.zeros(1, 27)
    assert held_out(one_class).nonzero()[:, 1].tolist() == [4, 9, 14, 19, 24]
    assert not held_out(one_class[:, :24]).any()  # four examples say too little
    balanced, scarce = torch.arange(25) % 5, torch.tensor([0] * 4 + [1] * 21)
    assert held_out(torch.stack([balanced, scarce])).nonzero().tolist() == [[0, place] for place in range(20, 25)]


def test_adaptation_to_the_whole_set_stops_before_it_surely_harms_the_held_out_part() -> None:
    """A parameter w from 0, with loss (w − target)²: the targets are 1, and in the first task those that are held out 0.5."""
    target = torch.ones(2, 25)
    target[0, 4::5] = 0.5

    def losses(theta: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (theta["w"] - target).square()

    ones = torch.ones(2, 25)
    adapted = [theta["w"] for theta in adapt(losses, ones, torch.zeros(2, 25), {"w": torch.zeros(2, 1)}, [0.1] * 10)]
    # On the twenty w is 1 − 0.8^k: nearest to 0.5 at k = 3. On all of them the mean target is 0.9.
    for step, w in enumerate(adapted):
        torch.testing.assert_close(w[:, 0], torch.tensor([0.9 * (1 - 0.8 ** min(step, 3)), 1 - 0.8**step]))


def test_padding_is_not_held_out_and_stops_nothing() -> None:
    """As above, with five examples of weight 0 among the others: the same are held out, and it stops where it stopped."""
    places = [place for place in range(30) if place not in (0, 3, 4, 12, 29)]
    target, weight = torch.full((2, 30), 1e3), torch.zeros(2, 30)
    target[:, places], weight[:, places] = 1.0, 1.0
    target[0, places[4::5]] = 0.5
    assert _held_out(torch.zeros(2, 30), weight > 0).nonzero()[:5, 1].tolist() == places[4::5]

    def losses(theta: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (theta["w"] - target).square()

    adapted = [theta["w"] for theta in adapt(losses, weight, torch.zeros(2, 30), {"w": torch.zeros(2, 1)}, [0.1] * 10)]
    for step, w in enumerate(adapted):
        torch.testing.assert_close(w[:, 0], torch.tensor([0.9 * (1 - 0.8 ** min(step, 3)), 1 - 0.8**step]))


def test_a_rise_that_may_be_chance_stops_nothing() -> None:
    """As above, but only one of the five held-out examples is hurt."""
    target = torch.ones(1, 25)
    target[0, 4] = -1.0

    def losses(theta: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (theta["w"] - target).square()

    ones = torch.ones(1, 25)
    *_, last = adapt(losses, ones, torch.zeros(1, 25), {"w": torch.zeros(1, 1)}, [0.1] * 10)
    torch.testing.assert_close(last["w"], torch.tensor([[0.92 * (1 - 0.8**10)]]))
