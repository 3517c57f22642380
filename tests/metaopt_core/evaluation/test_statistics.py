"""Statistics over tasks that leave no task out."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from metaopt_core.evaluation.statistics import note_survivors, paired, statistics, survivors


def test_mean_interval_and_quantiles_are_students_and_the_tasks_own() -> None:
    values = np.random.default_rng(0).exponential(size=201)
    found = statistics(values)
    low, high = stats.t.interval(0.95, 200, values.mean(), stats.sem(values))
    assert (found["mean"], found["ci95"]) == pytest.approx((values.mean(), (high - low) / 2))
    ordered = np.sort(values)
    expected = {"median": 100, "q05": 10, "q25": 50, "q75": 150, "q95": 190}
    assert {name: found[name] for name in expected} == pytest.approx({name: ordered[rank] for name, rank in expected.items()})
    assert found["worst"] == pytest.approx(ordered[-21:].mean())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_among_the_worst_whichever_direction_is_better(bad: float) -> None:
    values = np.array([0.5, bad, 0.7])
    assert (statistics(values)["mean"], statistics(values)["median"]) == (None, 0.7)
    accuracies = np.array([0.5, math.nan, 0.7])
    assert (statistics(accuracies, larger_is_better=True)["median"], statistics(accuracies, True)["q95"]) == (0.5, 0.7)


def test_a_paired_difference_has_the_p_value_of_a_t_test() -> None:
    values = np.random.default_rng(1).normal(0.2, size=50)
    assert paired(values)["p"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert paired(np.zeros(5))["p"] == 1.0
    assert paired(np.ones(5))["p"] == 0.0
    assert paired(np.array([1.0]))["p"] is None


def test_holms_survivors_are_those_of_his_procedure() -> None:
    assert survivors([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]  # 0.005 ≤ 0.0125, 0.01 ≤ 0.0167, 0.03 > 0.025
    assert survivors([0.04]) == [True]
    assert survivors([0.001, None]) == [True, False]
    assert survivors([]) == []


def test_survivors_are_noted_for_the_tasks_as_trained_for_and_for_the_models_differences_on_all_variants_together() -> None:
    def differences(*p: float) -> list[dict[str, Any]]:
        pairs = [("maml", "random"), ("maml", "pretrained"), ("pretrained", "random")]
        return [{"of": of, "against": against, "x": {"p": each}} for (of, against), each in zip(pairs, p, strict=True)]

    found: dict[str, Any] = {"model": "maml", "metrics": {"x": {"pooled": False}}, "differences": differences(0.001, 0.02, 0.04)}
    variants = {"a": {"differences": differences(0.001, 0.024, 0.0)}, "b": {"differences": differences(0.02, 0.9, 0.0)}}
    note_survivors(found, variants)

    def noted(pairs: list[dict[str, Any]]) -> list[bool | None]:
        return [pair["x"].get("survives") for pair in pairs]

    assert noted(found["differences"]) == [True, True, True]
    assert noted(variants["a"]["differences"]) == [True, False, None]  # of 4 comparisons: 0.02 > 0.05/3
    assert noted(variants["b"]["differences"]) == [False, False, None]
