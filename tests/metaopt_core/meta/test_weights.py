"""Examples of weight 0 are padding: whatever stands there, no number changes, and tasks of unequal size can share a batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from metaopt_core import kernels
from metaopt_core.distributions.batch import TaskBatch
from metaopt_core.meta.inner_loop import Rule
from metaopt_core.meta.learner import Learner, adapting
from metaopt_core.meta.objectives import AfterAdaptation, MetaGradientSettings
from metaopt_core.networks.conv4 import Conv4
from metaopt_core.networks.mlp import MLP
from metaopt_core.networks.network import Network, Params
from metaopt_core.networks.normalization import Normalization, Noted
from metaopt_core.networks.resnet12 import ResNet12
from metaopt_core.networks.user_module import user_module

TASKS, SUPPORT, QUERIES, WAYS = 3, 7, 5, 3
PICTURES = (1, 8, 8)


def own(batch: bool) -> Network:
    return user_module("tests.own_nets:Pictures", {"batch": batch}, PICTURES, WAYS)


NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: MLP((2, 6, 1)),
    "large mlp": lambda: MLP((2, 70, 70, 1)),
    "conv4": lambda: Conv4(1, 4, WAYS),
    "conv4 without normalization": lambda: Conv4(1, 4, WAYS, Normalization("none")),
    "conv4 by groups": lambda: Conv4(1, 4, WAYS, Normalization("group", groups=2)),
    "conv4 by steps": lambda: Conv4(1, 4, WAYS, Normalization("per_step", steps=2)),
    "resnet": lambda: ResNet12(1, (2, 3), WAYS, size=(8, 8)),
    "own module": lambda: own(batch=False),
    "own module that normalizes by its batch": lambda: own(batch=True),
}


def problem(name: str, support: int = SUPPORT) -> tuple[Learner, Params, TaskBatch]:
    network, classification = NETWORKS[name](), not name.endswith("mlp")
    random = torch.Generator().manual_seed(3)
    shape = PICTURES if classification else (2,)
    x, qx = (torch.rand(TASKS, count, *shape, generator=random, dtype=torch.float64) for count in (support, QUERIES))
    if classification:
        y, qy = (torch.arange(count).remainder(WAYS).expand(TASKS, count) for count in (support, QUERIES))
    else:
        y, qy = (torch.randn(TASKS, count, 1, generator=random, dtype=torch.float64) for count in (support, QUERIES))
    learner = Learner(network, classification, 1.0, 0.1, rule=Rule(adapts=adapting(network, "all") if network.per_step else None))
    return learner, {key: value.double() for key, value in network.init(0).items()}, TaskBatch(x, y, qx, qy)


def padded(x: Tensor, y: Tensor, places: list[int], content: float) -> tuple[Tensor, Tensor, Tensor]:
    """Examples with rows put in at some places, and their weights."""
    count = x.shape[1] + len(places)
    kept = [place for place in range(count) if place not in places]
    weight = torch.zeros(TASKS, count, dtype=torch.float64)
    weight[:, kept] = 1

    def more(values: Tensor) -> Tensor:
        made = values.new_full((TASKS, count, *values.shape[2:]), content if values.is_floating_point() else 99)
        made[:, kept] = values
        return made

    return more(x), more(y), weight


def with_padding(batch: TaskBatch, content: float) -> TaskBatch:
    x, y, weight = padded(batch.support_x, batch.support_y, [0, 4, 9], content)
    qx, qy, query_weight = padded(batch.query_x, batch.query_y, [1, 6], content)
    return TaskBatch(x, y, qx, qy, weight, query_weight)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("content", [float("nan"), 1e6])
@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_no_prediction_loss_or_accuracy(name: str, content: float) -> None:
    learner, params, batch = problem(name)
    more = with_padding(batch, content)
    for adaptation in ("plain", "safe") if learner.can_be_safe else ("plain",):
        one = replace(learner, adaptation=adaptation)
        found, expected = one.curves(params, more, 3), one.curves(params, batch, 3)
        close(found.loss, expected.loss)
        if expected.accuracy is not None and found.accuracy is not None:
            torch.testing.assert_close(found.accuracy.float(), expected.accuracy)
        outputs = one.predict_queries(params, more, 3)
        assert outputs.isfinite().all()
        close(outputs[:, [0, 2, 3, 4, 5]], one.predict_queries(params, batch, 3))


SETTINGS: dict[str, tuple[MetaGradientSettings, Rule]] = {
    "exact": (MetaGradientSettings(), Rule()),
    "first order": (MetaGradientSettings("first_order"), Rule()),
    "reptile": (MetaGradientSettings("reptile"), Rule()),
    "implicit": (MetaGradientSettings("implicit"), Rule(proximal=2.0)),
    "minibatches": (MetaGradientSettings(), Rule(minibatch=3)),
    "clipped momentum": (MetaGradientSettings(), Rule("momentum", clip_norm=0.5)),
}


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_no_meta_gradient(name: str, how: str) -> None:
    learner, params, batch = problem(name)
    settings, rule = SETTINGS[how]
    if learner.network.per_step and settings.kind in {"reptile", "implicit"}:
        pytest.skip("refused by the spec")
    objective = AfterAdaptation(replace(learner, rule=replace(rule, adapts=learner.rule.adapts)), 2, settings)
    found, expected = objective(params, with_padding(batch, float("nan")), 0), objective(params, batch, 0)
    close(found.losses, expected.losses)
    for key in params:
        close(found.gradient[key], expected.gradient[key])


@pytest.mark.parametrize("minibatch", [None, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_tasks_of_unequal_size_share_a_batch(name: str, minibatch: int | None) -> None:
    learner, params, batch = problem(name)
    learner = replace(learner, rule=replace(learner.rule, minibatch=minibatch))
    sizes = [(SUPPORT, 2), (2, QUERIES), (3, 3)]
    weight, query_weight = (torch.zeros(TASKS, count, dtype=torch.float64) for count in (SUPPORT, QUERIES))
    for task, (support, queries) in enumerate(sizes):
        weight[task, :support], query_weight[task, :queries] = 1, 1
    together = AfterAdaptation(learner, 2)(params, replace(batch, support_weight=weight, query_weight=query_weight), 0)
    alone = []
    for task, (support, queries) in enumerate(sizes):
        one = batch[task : task + 1]
        own = TaskBatch(one.support_x[:, :support], one.support_y[:, :support], one.query_x[:, :queries], one.query_y[:, :queries])
        alone.append(AfterAdaptation(learner, 2)(params, own, 0))
        close(together.losses[task : task + 1], alone[-1].losses)
    for key in params:
        close(together.gradient[key], torch.stack([one.gradient[key] for one in alone]).mean(0))


@pytest.mark.parametrize("name", ["mlp", "conv4", "resnet", "own module that normalizes by its batch"])
def test_weights_of_one_are_none_to_the_bit(name: str) -> None:
    learner, params, batch = problem(name)
    ones = replace(batch, support_weight=torch.ones(TASKS, SUPPORT), query_weight=torch.ones(TASKS, QUERIES))
    for rule in (learner.rule, Rule(minibatch=3)):
        one = replace(learner, rule=rule)
        found, expected = (AfterAdaptation(one, 2)(params, each, 0) for each in (ones, batch))
        assert torch.equal(found.losses, expected.losses)
        assert all(torch.equal(found.gradient[key], expected.gradient[key]) for key in params)
        assert torch.equal(one.predict_queries(params, ones, 2), one.predict_queries(params, batch, 2))


@pytest.mark.parametrize("kind", ["plain", "safe"])
@pytest.mark.parametrize("name", ["mlp", "conv4", "resnet"])
def test_a_weight_of_two_is_the_example_twice(name: str, kind: Literal["plain", "safe"]) -> None:
    learner, params, batch = problem(name)
    learner, twice = replace(learner, adaptation=kind), [0, 0, *range(1, SUPPORT)]
    weight = torch.ones(TASKS, SUPPORT)
    weight[:, 0] = 2
    weighted = replace(batch, support_weight=weight)
    repeated = replace(batch, support_x=batch.support_x[:, twice], support_y=batch.support_y[:, twice])
    close(learner.predict_queries(params, weighted, 2), learner.predict_queries(params, repeated, 2))


def test_statistics_are_noted_by_weights() -> None:
    _, params, batch = problem("conv4")
    noted = []
    for each in (batch, with_padding(batch, 0.0)):
        network = Conv4(1, 4, WAYS, Noted("transductive"))
        network({key: value.expand(TASKS, *value.shape) for key, value in params.items()}, each.query_x, each.query_weight)
        assert isinstance(network.normalization, Noted)
        noted.append(network.normalization.noted)
    assert noted[0].keys() == {f"norm{block}" for block in range(4)}
    for layer in noted[0]:
        for expected, found in zip(noted[0][layer], noted[1][layer], strict=True):
            close(found, expected)


@pytest.mark.parametrize("loops", ["compiled", "no"])
@pytest.mark.parametrize("name", ["mlp", "conv4", "own module that normalizes by its batch"])
def test_a_task_without_support_stays_where_it_is(name: str, loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loops == "no":
        monkeypatch.setattr(kernels, "usable", lambda *tensors: False)
    learner, params, batch = problem(name)
    weight = torch.ones(TASKS, SUPPORT)
    weight[1] = 0
    for adaptation in ("plain", "safe"):
        one = replace(learner, adaptation=adaptation)
        *_, adapted = one.adapt(params, replace(batch, support_weight=weight), 2)
        for key, value in params.items():
            assert torch.equal(adapted[key][1], value)
            assert adapted[key].isfinite().all()
        assert any(not torch.equal(adapted[key][0], params[key]) for key in params)


def test_a_task_without_queries_is_refused() -> None:
    _, _, batch = problem("mlp")
    weight = torch.ones(TASKS, QUERIES)
    weight[1] = 0
    with pytest.raises(ValueError, match="all queries of a task have weight 0: expected one that judges it"):
        replace(batch, query_weight=weight)
