"""Tasks that share groups are fewer independent observations than they seem."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from metaopt_core.evaluation.shared_groups import SharedGroups
from metaopt_core.evaluation.statistics import statistics


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
