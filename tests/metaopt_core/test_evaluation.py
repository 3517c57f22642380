"""Statistics over tasks that leave no task out, against hand-made tables."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.evaluation import summarize, with_outputs_of
from metaopt_core.learner import Learner
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.inner_loop import InnerLoop
from metaopt_core.meta.problems import Differentiated
from metaopt_core.models import MLP
from metaopt_core.spec.models import InnerSpec, PipelineSpec

SPEC = PipelineSpec.model_validate(
    {
        "name": "s",
        "generate": {"distribution": "sinusoid"},
        "train": {"model": {"name": "mlp"}, "iterations": 1, "shots": 5, "queries": 5},
        "evaluate": {"steps": 1},
    }
)


def summary_of(before: list[float], after: list[float]) -> list[dict]:  # type: ignore[type-arg]
    table = pd.DataFrame(
        {"variant": "in-distribution", "method": "maml", "task": range(len(before)), "loss_0": before, "loss_1": after}
    )
    found = summarize(SPEC, table)
    assert found["tasks"] == len(before)
    steps: list[dict] = found["methods"]["maml"]["steps"]  # type: ignore[type-arg]
    return steps


def test_mean_interval_and_quantiles() -> None:
    values = np.random.default_rng(0).exponential(size=201)
    loss = summary_of(values.tolist(), values.tolist())[1]["loss"]
    low, high = stats.t.interval(0.95, 200, values.mean(), stats.sem(values))
    assert (loss["mean"], loss["mean"] - loss["ci95"], loss["mean"] + loss["ci95"]) == pytest.approx((values.mean(), low, high))
    ordered = np.sort(values)
    expected = {"median": 100, "q05": 10, "q25": 50, "q75": 150, "q95": 190}
    assert {name: loss[name] for name in expected} == pytest.approx({name: ordered[rank] for name, rank in expected.items()})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_task_that_is_not_finite_is_counted_and_not_averaged_away(bad: float) -> None:
    step = summary_of([1.0, 1.0, 1.0], [0.5, bad, 0.7])[1]
    assert step["diverged"] == 1
    assert step["loss"]["mean"] is None
    assert step["loss"]["ci95"] is None
    assert step["loss"]["median"] == 0.7


def test_a_task_far_above_every_loss_before_adaptation_has_diverged() -> None:
    before, after = summary_of([1.0, 2.0], [19.0, 21.0])
    assert (before["diverged"], after["diverged"]) == (0, 1)
    assert after["loss"]["mean"] == pytest.approx(20.0)


def test_a_shifted_variant_stands_beside_the_tasks_as_trained_for_with_its_change() -> None:
    shifted = {"far": {"x": [5.0, 10.0], "shots": 3}, "left-out": None}
    spec = PipelineSpec.model_validate(SPEC.model_dump() | {"evaluate": {"steps": 1, "shifted": shifted}})
    rows = [("in-distribution", 2.0, 1.0), ("in-distribution", 2.0, 3.0), ("far", 9.0, 4.0), ("far", 9.0, 5.0)]
    table = pd.DataFrame(rows, columns=["variant", "loss_0", "loss_1"]).assign(method="maml", task=[0, 1, 0, 1])
    found = summarize(spec, table)
    assert found["methods"]["maml"]["steps"][1]["loss"]["mean"] == 2.0
    assert list(found["shifted"]) == ["far"]
    far = found["shifted"]["far"]
    assert (far["changes"], far["shots"]) == ({"x": [5.0, 10.0], "shots": 3}, 3)
    assert far["methods"]["maml"]["steps"][1]["loss"]["mean"] == 4.5
    assert far["methods"]["maml"]["change"]["mean"] == 1.25


@pytest.mark.parametrize("ways", [3, 8])
def test_for_other_ways_the_learned_outputs_are_repeated_and_adaptation_tells_them_apart(ways: int) -> None:
    trained, wider = (Learner(MLP((1, 8, size)), classification=True, loss_scale=1.0, inner_lr=0.1) for size in (5, ways))
    params = trained.network.init(0)
    params |= step_sizes.initial(InnerSpec(steps=2, learned_lr="per_parameter"), params)
    params["inner_lr.layer1.weight"] = torch.rand(1, 8, 5)
    x = torch.randn(4, 6, 1)
    resized = with_outputs_of(wider, params)
    outputs = wider.network(for_each_task(step_sizes.split(resized)[0], 4), x)
    learned = trained.network(for_each_task(step_sizes.split(params)[0], 4), x)
    repeated = torch.arange(ways) % 5
    torch.testing.assert_close(outputs, learned[..., repeated])
    assert torch.equal(resized["inner_lr.layer1.weight"], params["inner_lr.layer1.weight"][..., repeated])
    unchanged = with_outputs_of(trained, params)
    assert all(torch.equal(unchanged[name], value) for name, value in params.items())
    labels = torch.arange(6).remainder(ways).expand(4, 6)
    *_, adapted = wider.adapt(resized, TaskBatch(x, labels, x, labels), 3)
    after = wider.network(adapted, x)
    assert len(after[0, 0].unique()) == ways


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
