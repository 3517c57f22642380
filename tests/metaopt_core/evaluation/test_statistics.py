"""Statistics over tasks that leave no task out."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from metaopt_core.evaluation.shared_groups import SharedGroups
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


# --- tasks that share groups --------------------------------------------------------------------------------------------


def _tasks(random: np.random.Generator, tasks: int, each: int, groups: int) -> npt.NDArray[np.int64]:
    return np.array([random.choice(groups, each, replace=False) for _ in range(tasks)])


def test_tasks_that_share_nothing_are_independent() -> None:
    assert SharedGroups.of(np.arange(20).reshape(10, 2)) is None


@pytest.mark.parametrize(("tasks", "each", "groups"), [(300, 5, 60), (400, 5, 1000), (200, 1, 20)])
def test_intervals_hold_the_truth_as_often_as_they_say_where_students_do_not(tasks: int, each: int, groups: int) -> None:
    random = np.random.default_rng(0)
    members = _tasks(random, tasks, each, groups)
    shared = SharedGroups.of(members)
    assert shared is not None
    assert shared.count == len(np.unique(members))
    right = plain = 0
    for _ in range(200):
        values = random.normal(size=groups)[members].mean(1) + 0.3 * random.normal(size=tasks)  # of mean 0
        found = statistics(values, shared=shared)
        assert found["mean"] is not None
        assert found["ci95"] is not None
        right += abs(found["mean"]) < found["ci95"]
        plain += abs(found["mean"]) < (statistics(values)["ci95"] or 0)
    assert right >= 180
    assert plain < 170


def test_where_groups_make_no_difference_intervals_are_hardly_wider() -> None:
    random = np.random.default_rng(0)
    shared = SharedGroups.of(_tasks(random, 600, 5, 100))
    assert shared is not None
    errors = [(shared.standard_error(values), stats.sem(values)) for values in random.normal(size=(100, 600))]
    assert 1.0 <= np.mean([mine / plain for mine, plain in errors]) < 1.15


def test_the_standard_error_is_that_of_resampled_groups() -> None:
    """With one group a task and many tasks a group, against a cluster bootstrap that draws whole groups."""
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 50)
    values = random.normal(size=40)[groups] + random.normal(size=2000)
    shared = SharedGroups.of(groups[:, None])
    assert shared is not None
    means = values.reshape(40, 50).mean(1)
    resampled = means[random.integers(40, size=(4000, 40))].mean(1)
    assert shared.standard_error(values) == pytest.approx(resampled.std(), rel=0.06)


def test_a_mean_that_is_not_finite_has_no_interval() -> None:
    shared = SharedGroups.of(np.zeros((3, 1), np.int64))
    found = statistics(np.array([1.0, math.inf, 2.0]), shared=shared)
    assert (found["mean"], found["ci95"]) == (None, None)
