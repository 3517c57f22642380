"""What a step of the inner loop makes of a gradient is differentiated exactly, clipping and what doesn't adapt included."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import exact
from metaopt_core.meta.inner_loop import InnerLoop, Rule
from metaopt_core.meta.learner import Learner, adapting
from metaopt_core.meta.losses import Differentiated
from metaopt_core.meta.objectives import EXACT, MetaGradientSettings
from metaopt_core.networks.network import Params
from metaopt_core.spec.train import InnerSpec
from tests.metaopt_core.meta.plain import NORM, PLAIN_LOOP_TOLERANCE, doubled, ours, plain_loop, relative_error

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


def test_where_a_gradient_is_zero_clipping_is_differentiated_as_nothing() -> None:
    flat, steep = (
        Differentiated(lambda params: params["theta"].pow(4).sum(1)),
        Differentiated(lambda params: params["theta"].sum(1)),
    )
    loop = InnerLoop([flat], [0.1, 0.1], Rule(clip_norm=0.5))
    found = exact(loop, lambda _: steep, {"theta": torch.zeros(2, 3)}, [0.0, 1.0], False, False)
    assert torch.equal(found.packed["theta"], torch.ones(2, 3))
