"""Statistics over tasks that leave no task out, against hand-made tables."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metaopt_core.spec.pipeline import PipelineSpec
from tests.hand_made import SPEC, summary_of


def steps_of(before: list[float], after: list[float]) -> list[dict[str, Any]]:
    table = pd.DataFrame(
        {"variant": "in-distribution", "method": "maml", "task": range(len(before)), "loss_0": before, "loss_1": after}
    )
    found = summary_of(SPEC, table)
    assert found["tasks"] == len(before)
    steps: list[dict[str, Any]] = found["methods"]["maml"]["steps"]
    return steps


def test_mean_interval_and_quantiles() -> None:
    values = np.random.default_rng(0).exponential(size=201)
    loss = steps_of(values.tolist(), values.tolist())[1]["loss"]
    low, high = stats.t.interval(0.95, 200, values.mean(), stats.sem(values))
    assert (loss["mean"], loss["mean"] - loss["ci95"], loss["mean"] + loss["ci95"]) == pytest.approx((values.mean(), low, high))
    ordered = np.sort(values)
    expected = {"median": 100, "q05": 10, "q25": 50, "q75": 150, "q95": 190}
    assert {name: loss[name] for name in expected} == pytest.approx({name: ordered[rank] for name, rank in expected.items()})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_task_that_is_not_finite_is_counted_and_not_averaged_away(bad: float) -> None:
    step = steps_of([1.0, 1.0, 1.0], [0.5, bad, 0.7])[1]
    assert step["diverged"] == 1
    assert step["loss"]["mean"] is None
    assert step["loss"]["ci95"] is None
    assert step["loss"]["median"] == 0.7


def test_a_task_far_above_every_loss_before_adaptation_has_diverged() -> None:
    before, after = steps_of([1.0, 2.0], [19.0, 21.0])
    assert (before["diverged"], after["diverged"]) == (0, 1)
    assert after["loss"]["mean"] == pytest.approx(20.0)


def test_a_shifted_variant_stands_beside_the_tasks_as_trained_for_with_its_change() -> None:
    shifted = {"far": {"x": [5.0, 10.0], "shots": 3}, "left-out": None}
    spec = PipelineSpec.model_validate(SPEC.model_dump() | {"evaluate": {"steps": 1, "shifted": shifted}})
    rows = [("in-distribution", 2.0, 1.0), ("in-distribution", 2.0, 3.0), ("far", 9.0, 4.0), ("far", 9.0, 5.0)]
    table = pd.DataFrame(rows, columns=["variant", "loss_0", "loss_1"]).assign(method="maml", task=[0, 1, 0, 1])
    found = summary_of(spec, table)
    assert found["methods"]["maml"]["steps"][1]["loss"]["mean"] == 2.0
    assert list(found["shifted"]) == ["far"]
    far = found["shifted"]["far"]
    assert (far["changes"], far["shots"]) == ({"x": [5.0, 10.0], "shots": 3}, 3)
    assert far["methods"]["maml"]["steps"][1]["loss"]["mean"] == 4.5
    assert far["methods"]["maml"]["change"]["mean"] == 1.25


def test_the_worst_tenth_and_the_share_that_adaptation_improves() -> None:
    after = np.random.default_rng(0).permutation(np.arange(20.0))
    step = steps_of([10.0] * 20, after.tolist())[1]
    assert step["loss"]["worst"] == 18.5
    assert step["improved"] == 0.5
    diverged = steps_of([10.0] * 20, [*after[1:], math.nan])[1]
    assert diverged["loss"]["worst"] is None


def test_differences_are_paired() -> None:
    random = np.random.default_rng(0)
    hard = random.exponential(10, 50)  # what all methods share, and a paired difference does not see
    losses = {"maml": hard + random.normal(1, 0.1, 50), "random": hard + random.normal(2, 0.1, 50)}
    table = pd.concat(
        pd.DataFrame({"variant": "in-distribution", "method": name, "task": range(50), "loss_0": 1.0, "loss_1": loss})
        for name, loss in losses.items()
    )
    (found,) = summary_of(SPEC, table)["differences"]
    interval = stats.ttest_rel(losses["maml"], losses["random"]).confidence_interval(0.95)
    assert (found["of"], found["against"], found["better"]) == ("maml", "random", 1.0)
    low, high = found["loss"]["mean"] - found["loss"]["ci95"], found["loss"]["mean"] + found["loss"]["ci95"]
    assert (low, high) == pytest.approx((interval.low, interval.high))
