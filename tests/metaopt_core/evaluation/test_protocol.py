"""Statistics over tasks that leave no task out, against hand-made tables."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.evaluation import protocol as evaluation
from metaopt_core.evaluation.protocol import Method, calibration, summarize, with_outputs_of
from metaopt_core.evaluation.summary import worst_tasks
from metaopt_core.meta import step_sizes
from metaopt_core.meta.gradients import for_each_task
from metaopt_core.meta.inner_loop import GRADIENT_DESCENT, InnerLoop, Rule
from metaopt_core.meta.learner import Learner, adapting
from metaopt_core.meta.losses import Differentiated
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.normalization import Normalization
from metaopt_core.spec.evaluate import ShiftSpec
from metaopt_core.spec.pipeline import PipelineSpec
from metaopt_core.spec.train import InnerSpec
from tests.small import SMALL_CONV

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


def test_the_worst_tenth_and_the_share_that_adaptation_improves() -> None:
    after = np.random.default_rng(0).permutation(np.arange(20.0))
    step = summary_of([10.0] * 20, after.tolist())[1]
    assert step["loss"]["worst"] == 18.5
    assert step["improved"] == 0.5
    diverged = summary_of([10.0] * 20, [*after[1:], math.nan])[1]
    assert diverged["loss"]["worst"] is None


def test_differences_are_paired() -> None:
    random = np.random.default_rng(0)
    hard = random.exponential(10, 50)  # what all methods share, and a paired difference does not see
    losses = {"maml": hard + random.normal(1, 0.1, 50), "random": hard + random.normal(2, 0.1, 50)}
    table = pd.concat(
        pd.DataFrame({"variant": "in-distribution", "method": name, "task": range(50), "loss_0": 1.0, "loss_1": loss})
        for name, loss in losses.items()
    )
    (found,) = summarize(SPEC, table)["differences"]
    interval = stats.ttest_rel(losses["maml"], losses["random"]).confidence_interval(0.95)
    assert (found["of"], found["against"], found["better"]) == ("maml", "random", 1.0)
    low, high = found["loss"]["mean"] - found["loss"]["ci95"], found["loss"]["mean"] + found["loss"]["ci95"]
    assert (low, high) == pytest.approx((interval.low, interval.high))


def test_the_calibration_error_is_the_mean_distance_of_probability_and_frequency() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5])
    correct = np.array([True, True, True, False, True, False])
    found = calibration(confidence, correct)
    assert found["ece"] == pytest.approx(4 / 6 * 0.15)
    assert [part["share"] for part in found["bins"]] == pytest.approx([2 / 6, 4 / 6])
    assert calibration(np.ones(3), np.ones(3, bool))["ece"] == 0


def test_the_worst_tasks_come_first_and_those_that_are_no_number_before_them() -> None:
    columns = {"task": range(4), "loss_0": 1.0, "loss_1": [2.0, 5.0, math.nan, 1.0]}
    table = pd.DataFrame({"variant": "in-distribution", "method": "maml"} | columns)
    assert worst_tasks(summarize(SPEC, table), table, 3) == [2, 1, 0]


class Lines:
    """The same line in every validation task, and nothing else."""

    train_classes = None

    def train(self, *_: object) -> TaskBatch:
        raise AssertionError("meta-train tasks are drawn for statistics of steps alone")

    def train_sample(self, *_: object) -> TaskBatch:
        raise AssertionError("meta-train tasks are drawn for statistics of steps alone")

    def held_out(self, split: str, _: object) -> TaskBatch:
        assert split == "validation"
        x = torch.linspace(-1, 1, 10).view(1, 10, 1).expand(3, -1, -1)
        return TaskBatch(x, 3 * x + 1, x, 3 * x + 1)

    def on(self, device: torch.device) -> "Lines":
        return self

    def shifted(self, shift: ShiftSpec) -> "Lines":
        raise AssertionError("step sizes are chosen on tasks that are not shifted")


def test_a_baseline_gets_the_step_size_that_is_best_on_the_validation_tasks() -> None:
    spec = SPEC.model_copy(update={"evaluate": SPEC.evaluate.model_copy(update={"baseline_lrs": (1e-4, 0.05, 100.0)})})
    found = evaluation.methods(spec, Lines(), {"maml": Learner.from_spec(spec).network.init(0)})
    assert list(found) == ["maml", "maml_safe", "random", "unadapted"]
    assert found["random"].inner_lr == 0.05
    assert found["maml"].inner_lr == spec.train.inner.lr


def test_baselines_adapt_all_parameters_by_gradient_descent_whatever_the_algorithm_does() -> None:
    inner = {"rule": "adam", "adapts": "head", "minibatch": 2}
    train = SPEC.train.model_dump() | {"inner": inner, "algorithm": "anil"}
    spec = PipelineSpec.model_validate(SPEC.model_dump() | {"train": train, "evaluate": {"steps": 1, "baseline_lrs": [0.05]}})
    found = evaluation.methods(spec, Lines(), {"maml": Learner.from_spec(spec).network.init(0)})
    assert list(found) == ["maml", "random", "unadapted"]  # Adam is not made safe
    assert (found["maml"].learner.rule.name, found["random"].learner.rule) == ("adam", GRADIENT_DESCENT)
    assert [method.label for method in found.values()] == ["ANIL", "random init", "no adaptation"]


def test_the_statistics_of_a_step_are_those_that_its_queries_are_normalized_by() -> None:
    """By the statistics of one task's own queries, they come out as they do together."""
    learner = replace(Learner.from_spec(SMALL_CONV), network=Conv4(1, 8, 3, Normalization("per_step", steps=2)))
    learner = replace(learner, rule=Rule(adapts=adapting(learner.network, "all")))
    random = torch.Generator().manual_seed(0)
    x, labels = torch.rand(2, 1, 3, 1, 28, 28, generator=random), torch.arange(3)[None]
    task, params = TaskBatch(x[0], labels, x[1], labels, classes=labels), learner.network.init(0)
    params = {name: value + torch.linspace(0, 1, 2)[:, None] if "norm" in name else value for name, value in params.items()}
    for steps in (0, 1, 2):
        statistics = evaluation.query_statistics(learner, params, task, steps)
        *_, predictions = Method("maml", "", learner, params, steps, statistics).adapted(task)
        found = [predictions[normalized](task.query_x) for normalized in (evaluation.COLLECTED, evaluation.TOGETHER)]
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_inductive_predictions_depend_on_no_other_query() -> None:
    learner = Learner.from_spec(SMALL_CONV)
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(2, 1)
    pictures = torch.rand(3, 2, 3, 1, 28, 28, generator=random)
    queries = pictures[1], pictures[2], torch.cat([pictures[1][:, :1], pictures[2][:, 1:]], 1)
    one, other, mixed = (TaskBatch(pictures[0], labels, x, labels, classes=labels) for x in queries)
    embedding = learner.network.init(0)
    stepwise = replace(learner, network=Conv4(1, 8, 3, Normalization("per_step", steps=2)))
    own = stepwise.network.init(0)
    statistics = evaluation.query_statistics(stepwise, own, other, 1)
    for method in (
        Method("maml", "", learner, embedding, 1),
        Method("maml", "", stepwise, own, 1, statistics),
        Method("protonet", "", learner, embedding, 0),
    ):
        *_, predictions = method.adapted(one)
        predict = predictions.pop(evaluation.TOGETHER)
        assert list(predictions) == [evaluation.INDUCTIVE] + ([evaluation.COLLECTED] if method.statistics else [])
        for predict_alone in predictions.values():
            alone = predict_alone(mixed.query_x)
            torch.testing.assert_close(alone[:, :1], predict_alone(one.query_x)[:, :1])
            torch.testing.assert_close(alone[:, 1:], predict_alone(other.query_x)[:, 1:])
        assert not torch.allclose(predict(one.query_x)[:, 0], predict(mixed.query_x)[:, 0], atol=1e-4)
